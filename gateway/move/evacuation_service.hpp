// The evacuations of this gateway: planned, begun and cancelled. One that an earlier process left is not gone
// on with, because what it knew of the old host is not known any more: the operator asks again.
#pragma once

#include "gateway/move/evacuation_run.hpp"
#include "gateway/move/running_jobs.hpp"

#include <string>

namespace diskferry {

inline constexpr std::string_view evacuate_kind = "evacuate";

/// Thread: any. Lifetime: stop() before destruction; what the environment names outlives it.
class EvacuationService {
 public:
  explicit EvacuationService(EvacuationEnvironment environment);
  EvacuationService(const EvacuationService&) = delete;
  EvacuationService& operator=(const EvacuationService&) = delete;

  /// Ends the jobs that an earlier process left.
  Task<Result<void>> start();
  /// What an evacuation would do. Errors: as Evacuation::plan().
  Task<Result<EvacuationPlan>> plan(std::string request_json);
  /// Records an evacuation and begins it. Errors: invalid_argument, too_large, in_use (the machine is part of
  /// another job).
  Task<Result<JobRecord>> begin(std::string request_json);
  /// Asks for the end; it has come when the job says so. A machine that is defined already is started all the
  /// same.
  void cancel(const std::string& id);
  /// Cancels what can be, and waits for all.
  Task<void> stop();

 private:
  static Task<Result<void>> act(Evacuation& evacuation, JobRecord job);

  EvacuationEnvironment environment_;
  RunningJobs<Evacuation> running_;
};

}  // namespace diskferry
