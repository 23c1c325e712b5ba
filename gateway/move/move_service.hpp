// The moves of this gateway: begun, changed, cancelled, released, and taken up again when the gateway starts
// anew.
#pragma once

#include "gateway/move/coordinator.hpp"
#include "gateway/move/move_plan.hpp"
#include "gateway/move/running_jobs.hpp"

#include <memory>
#include <string>

namespace diskferry {

/// Thread: any. Lifetime: stop() before destruction; what the environment names outlives it.
class MoveService {
 public:
  explicit MoveService(MoveEnvironment environment);
  MoveService(const MoveService&) = delete;
  MoveService& operator=(const MoveService&) = delete;

  /// Takes up the moves that an earlier process left: goes forward where they are committed, back where they
  /// are not.
  Task<Result<void>> start();
  /// What a move would do. Errors: as plan_move().
  Task<Result<MovePlan>> plan(std::string request_json, unsigned watch_seconds);
  /// Records a move and begins it. Errors: invalid_argument, in_use (the machine is being moved).
  Task<Result<JobRecord>> begin(std::string request_json);
  /// Asks for the end; it has come when the job says so. Errors: not_found, in_use (it is committed: fall
  /// back instead).
  Task<Result<void>> cancel(std::string id);
  /// Lets go of a source that was kept. Errors: not_found, in_use (not in that phase).
  Task<Result<void>> release(std::string id);
  /// Takes a cold move back whose source was kept. Errors: not_found, in_use (another phase, or the machine
  /// runs there).
  Task<Result<void>> revert(std::string id);
  /// Takes up a move whose outcome could not be found out. Errors: not_found, in_use (it runs).
  Task<Result<void>> take_up(std::string id);
  /// Errors: not_found.
  Result<void> set_bytes_per_s(const std::string& id, std::uint64_t bytes_per_s);
  Result<void> set_max_pause_ms(const std::string& id, std::uint64_t ms);
  /// Undoes what is not committed, and waits for all.
  Task<void> stop();

 private:
  Task<Result<void>> launch(JobRecord job);
  static Task<Result<void>> act(Coordinator& coordinator, std::string id);
  Task<Result<std::unique_ptr<Coordinator>>> idle(std::string id);

  MoveEnvironment environment_;
  RunningJobs<Coordinator> running_;
};

}  // namespace diskferry
