// Gathers what an evacuation is judged by, and does it: cut the old host off, define the machine here, start
// it. The same request again does what is left to do. Called by EvacuationService.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/hypervisor/libvirt.hpp"
#include "gateway/jobs/job_store.hpp"
#include "gateway/move/evacuation.hpp"
#include "gateway/move/fence.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace diskferry {

/// What the daemon lends to its evacuations.
struct EvacuationEnvironment {
  DriverContext& drivers;
  JobStore& jobs;
  std::string controller{};                    ///< this process's name in leases
  std::string libvirt_uri = "qemu:///system";  ///< of this host
  std::string host_name{};                     ///< of this host
  FenceCommand fence{};
  std::vector<std::string> hosts{};  ///< libvirt URIs of hosts that are asked each time
  /// Names of the storage that moves to this host have not finished with.
  std::function<std::vector<std::string>()> unfinished{};
};

struct EvacuationPlan {
  std::vector<Finding> findings{};
  bool runs_here = false;
  std::string definition{};  ///< for this host; may hold passwords
  std::string definition_diff{};
  std::string place{};  ///< the libvirt URI that takes it
};
/// {"preflight", "text", "definition-diff", "runs-here"}.
std::string to_json(const EvacuationPlan& plan);

/// Thread: one task, on one reactor. Lifetime: `environment` outlives it.
class Evacuation {
 public:
  Evacuation(EvacuationEnvironment& environment, EvacuationRequest request)
      : environment_(environment), request_(std::move(request)) {}

  /// Changes nothing. Errors: those of the hypervisor here; corrupt (the definition); not_found (no move of
  /// the machine is noted here).
  Task<Result<EvacuationPlan>> plan();
  /// The work of a job that begin() of the service has noted: every step is written down before the next one,
  /// and the job's end with it. Cancel: before the machine is defined; then nothing was changed but that the
  /// old host may have been cut off. Errors: as plan(), and unsupported (something speaks against it), those
  /// of fence_host() and of the hypervisor.
  Task<Result<void>> run(JobRecord job);

 private:
  Task<Result<EvacuationPlan>> plan_connected();
  Task<Result<void>> act();
  Task<Result<void>> enter(std::string phase);
  Task<Result<void>> define_and_start(EvacuationPlan plan);
  // evacuation_collect.cpp
  Task<Result<EvacuationFacts>> collect();
  Task<Result<void>> take_from_record(EvacuationFacts& facts);
  Task<Result<void>> ask_here(EvacuationFacts& facts);
  Task<void> ask_old_host(EvacuationFacts& facts);
  Task<AskedHost> ask_host(std::string uri, std::string uuid);
  Task<void> look_at_disks(EvacuationFacts& facts);
  Task<Result<void>> look_at(ImageUri uri, std::string format, bool is_read_only);

  EvacuationEnvironment& environment_;
  EvacuationRequest request_;
  JobRecord job_{};
  std::unique_ptr<Libvirt> here_{};
  std::string recorded_libvirt_{};          ///< of the host that this gateway sent the machine to
  std::vector<std::string> left_behind_{};  ///< disks it had here before that
  std::string fenced_by_{};
  std::vector<std::string> warnings_{};
  std::vector<std::string> leftovers_{};
};

}  // namespace diskferry
