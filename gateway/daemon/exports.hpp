// The exports of the daemon: images that are open and offered by its NBD server, from the configuration or
// added while it runs; and disks of machines, which jobs brought here and which only the hypervisor is
// offered. Used by LocalGateway and the daemon's start and end.
#pragma once

#include "gateway/control/api.hpp"
#include "gateway/daemon/disk_server.hpp"
#include "gateway/move/disk_exports.hpp"
#include "gateway/move/endpoints.hpp"
#include "gateway/nbd/server.hpp"

#include <memory>
#include <string>
#include <vector>

namespace diskferry::daemon {

/// Thread: any, many calls at once. Lifetime: `context`, `server` and `disks` outlive it; close_all() before
/// destruction.
class Exports final : public Endpoints, public DiskExports {
 public:
  Exports(DriverContext& context, nbd_server::Server& server, DiskServer& disks);
  ~Exports() override;
  Exports(const Exports&) = delete;
  Exports& operator=(const Exports&) = delete;

  /// Opens the image and offers it. Errors: already_exists (the name, also of one that waits),
  /// invalid_argument, and those of opening.
  Task<Result<control::ExportDescription>> add(control::ExportRequest request);
  /// The same of one of the configuration, which clients find when offer_configured() is called: jobs of an
  /// earlier process have put themselves behind it by then.
  /// `size_bytes`: the disk is so much of its storage; 0: all. `configured`: the image that the configuration
  /// names, where that is not the request's. Errors also: mismatch (the storage is smaller). One whose
  /// storage cannot be opened waits for it.
  Task<Result<control::ExportDescription>> open_configured(control::ExportRequest request,
                                                           std::uint64_t size_bytes, std::string configured);
  /// The same of a disk of a machine that a job of an earlier process brought here.
  /// `is_taken_over`: another host may have it open, and writes nothing before a move of ours has closed it.
  Task<Result<control::ExportDescription>> open_disk(EndpointRecord record, bool is_taken_over = false);
  /// Those that cannot be are told in the log.
  void offer_configured();
  /// Opens those whose storage was away as soon as it is there, and lets clients in. After
  /// offer_configured(); once.
  void keep_trying();
  Task<void> stop_trying();
  bool is_disk(const std::string& name) const;
  /// Of any machine, also one that waits for its storage.
  bool has_disks() const;
  /// No new clients; those inside are disconnected in order, what they wrote is flushed and the image closed.
  /// Not cut short by cancelling: the server's limits bound it. Errors: not_found, in_use (it is being added
  /// or removed), those of flush and close.
  Task<Result<void>> remove(std::string name);
  std::vector<control::ExportDescription> list() const;

  Result<Lent> borrow(const std::string& name) override;
  Task<Result<void>> put(std::string name, std::shared_ptr<BlockDevice> device) override;
  void give_back(const std::string& name, Lent lent) override;

  bool has_export(const std::string& name) const override;
  std::string export_at(const ImageUri& storage) const override;
  std::optional<ExportStorage> storage_of(const std::string& name) const override;
  std::vector<std::string> disk_names() const override;
  const std::string& disk_socket() const noexcept override;
  Task<Result<void>> offer_disk(EndpointRecord record) override;
  Task<Result<void>> write_through(std::string name, bool is_on) override;
  Task<Result<void>> withdraw_disk(std::string name) override;

  /// Storage that is away is no longer waited for. Call it before the server is stopped.
  void stop_waiting();
  /// After the server has been stopped: closes every image. Errors: the first one of closing.
  Task<Result<void>> close_all();

 private:
  struct Entry;
  enum class Kind : std::uint8_t { added, configured, disk };
  struct Addition {
    Kind kind = Kind::added;
    bool is_offered_later = false;
    bool is_taken_over = false;
    std::uint64_t size_bytes = 0;
    std::string configured{};
  };
  Task<Result<std::shared_ptr<Entry>>> open(control::ExportRequest request, const Addition& addition);
  Result<void> check_protection(const control::ExportRequest& request) const;
  Task<Result<control::ExportDescription>> add_as(control::ExportRequest request, Addition addition);
  // exports_waiting.cpp
  static std::shared_ptr<Entry> waiting_entry(control::ExportRequest request, Addition addition,
                                              const Error& why);
  Task<Result<void>> try_until_open(std::string name);
  Task<bool> try_again(std::string name);
  bool take_opened(const std::shared_ptr<Entry>& waiting, const std::shared_ptr<Entry>& opened);
  Task<Result<void>> remove_now(std::string name);
  nbd_server::Server& server_of(const Entry& entry) const;
  Result<std::shared_ptr<Entry>> lent_entry(const std::string& name) const;
  control::ExportDescription describe(const Entry& entry) const;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace diskferry::daemon
