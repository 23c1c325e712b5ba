// The exports of the daemon: images that are open and offered by its NBD server, from the configuration or
// added while it runs. Used by LocalGateway and the daemon's start and end.
#pragma once

#include "gateway/control/api.hpp"
#include "gateway/nbd/server.hpp"

#include <memory>
#include <string>
#include <vector>

namespace diskferry::daemon {

/// Thread: any, many calls at once. Lifetime: `context` and `server` outlive it; close_all() before
/// destruction.
class Exports {
 public:
  Exports(DriverContext& context, nbd_server::Server& server);
  ~Exports();
  Exports(const Exports&) = delete;
  Exports& operator=(const Exports&) = delete;

  /// Opens the image and offers it. Errors: already_exists (the name), invalid_argument, and those of
  /// opening.
  Task<Result<control::ExportDescription>> add(control::ExportRequest request, bool is_configured = false);
  /// No new clients; those inside are disconnected in order, what they wrote is flushed and the image closed.
  /// Not cut short by cancelling: the server's limits bound it. Errors: not_found, in_use (it is being added
  /// or removed), those of flush and close.
  Task<Result<void>> remove(std::string name);
  std::vector<control::ExportDescription> list() const;

  /// Storage that is away is no longer waited for. Call it before the server is stopped.
  void stop_waiting();
  /// After the server has been stopped: closes every image. Errors: the first one of closing.
  Task<Result<void>> close_all();

 private:
  struct Entry;
  Task<Result<std::shared_ptr<Entry>>> open(control::ExportRequest request);
  control::ExportDescription describe(const Entry& entry) const;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace diskferry::daemon
