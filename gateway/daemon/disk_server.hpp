// The NBD server for disks of machines of this host: a UNIX socket that only the hypervisor's user may use,
// without TLS. Apart from the operators' server, whose clients have no business with the disks of machines.
// Listens from when it is needed first.
#pragma once

#include "diskferry/sync.hpp"
#include "gateway/nbd/server.hpp"

#include <cstdint>
#include <string>

namespace diskferry::daemon {

struct DiskServerOptions {
  std::string socket{};  ///< in a folder of its own
  std::int64_t hypervisor_uid = -1;
  std::int64_t hypervisor_gid = -1;
};

/// Thread: any. Lifetime: stop() before destruction.
class DiskServer {
 public:
  DiskServer(DriverContext& context, DiskServerOptions options);
  DiskServer(const DiskServer&) = delete;
  DiskServer& operator=(const DiskServer&) = delete;

  nbd_server::Server& server() noexcept { return server_; }
  const std::string& socket() const noexcept { return options_.socket; }
  /// Once it listens this does nothing. Errors: in_use (the socket), permission.
  Task<Result<void>> have_listening();
  /// Errors: those of the last flushes.
  Task<Result<void>> stop();

 private:
  Task<Result<void>> listen();

  DriverContext& context_;
  const DiskServerOptions options_;
  nbd_server::Server server_;
  AsyncMutex guard_{};
  bool is_listening_ = false;  // guard_
};

}  // namespace diskferry::daemon
