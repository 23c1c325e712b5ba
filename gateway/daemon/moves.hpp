// All that moves need in a daemon: the job store, the bus, the disks that come here, the machines that leave,
// and those that are taken over from hosts that are gone.
// Made and ended as one by daemon.cpp.
#pragma once

#include "gateway/config/config.hpp"
#include "gateway/daemon/local_jobs.hpp"
#include "gateway/daemon/local_peers.hpp"
#include "gateway/move/disk_exports.hpp"
#include "gateway/move/disk_keeper.hpp"
#include "gateway/move/replace_service.hpp"
#include "gateway/nbd/server.hpp"

#include <memory>
#include <optional>
#include <string>

namespace diskferry::daemon {

/// Thread: start() and stop() once each. Lifetime: stop() before destruction; what it is given outlives it.
class Moves {
 public:
  Moves(DriverContext& context, const Config& config, nbd_server::Server& nbd);
  /// Opens the job store. First.
  Task<Result<void>> open_store();
  /// Where exports are whose storage was replaced, whatever the configuration says.
  Task<Result<std::vector<EndpointRecord>>> endpoints() { return store_->endpoints(); }
  /// A move of an earlier process may have had the other host open that export's storage, too.
  Task<bool> is_taken_over(std::string export_name);
  Task<Result<void>> forget_endpoint(std::string name) { return store_->forget_endpoint(std::move(name)); }
  /// Puts the replacements of an earlier process behind their exports, before clients find those. Lifetime:
  /// `endpoints` and `disks` until stop() has completed.
  Task<Result<void>> take_up_replacements(Endpoints& endpoints, DiskExports& disks, const std::string& id);
  /// Offers the disks of moves that have not ended, and takes up the jobs of an earlier process.
  Task<Result<void>> start(std::string name, std::string id);
  LocalJobs& jobs() noexcept { return *jobs_; }
  control::PeerApi& peers() noexcept { return *peers_; }
  /// Undoes the moves that are not committed; withdraws what is offered.
  Task<void> stop();

 private:
  DriverContext& context_;
  const Config& config_;
  nbd_server::Server& nbd_;
  EventBus bus_;
  std::unique_ptr<JobStore> store_{};
  DiskExports* exports_ = nullptr;
  std::optional<TargetDisks> disks_{};
  std::optional<TargetMachines> machines_{};
  std::optional<MoveService> moves_{};
  std::optional<EvacuationService> evacuations_{};
  std::optional<ReplaceService> replacements_{};
  std::optional<DiskKeeper> disk_keeper_{};
  std::optional<LocalJobs> jobs_{};
  std::optional<LocalPeers> peers_{};
};

}  // namespace diskferry::daemon
