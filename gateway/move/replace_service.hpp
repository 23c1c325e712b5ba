// The replacements of this gateway: begun, changed, ended, and gone on with when the gateway starts anew.
#pragma once

#include "diskferry/sync.hpp"
#include "gateway/jobs/job_store.hpp"
#include "gateway/move/replace_job.hpp"
#include "gateway/move/replace_plan.hpp"
#include "gateway/move/replacement.hpp"
#include "gateway/move/running_jobs.hpp"

#include <memory>
#include <string>
#include <vector>

namespace diskferry {

inline constexpr std::string_view replace_kind = "replace";

/// Thread: any, but where said. Lifetime: stop() before destruction; what the environment names outlives it.
class ReplaceService {
 public:
  /// `jobs` is also the environment's journal.
  ReplaceService(ReplaceEnvironment environment, JobStore& jobs);
  ReplaceService(const ReplaceService&) = delete;
  ReplaceService& operator=(const ReplaceService&) = delete;

  /// Puts mirrors behind the exports of what an earlier process left. Before clients are let in. One that
  /// cannot be taken up is told in the log and in its job, and its export is as its record says.
  Task<Result<void>> take_up();
  /// Goes on with them.
  Task<Result<void>> start();
  /// Errors: invalid_argument, cancelled.
  Task<Result<ReplacePlan>> plan(std::string request_json);
  /// Records a replacement and begins it. `for_move`: the job that goes through it. Errors: invalid_argument,
  /// in_use (an export is part of another, or goes over to another host).
  Task<Result<JobRecord>> begin(std::string request_json, std::string for_move = {});
  /// Errors of all: not_found. Of these also: in_use (committed already, or not yet).
  Task<Result<void>> cancel(std::string id);
  Task<Result<void>> fall_back(std::string id);
  Task<Result<void>> commit(std::string id);
  Task<Result<void>> pause(std::string id);
  /// Also takes up what could not be when the gateway was started.
  Task<Result<void>> resume(std::string id);
  /// Errors: also invalid_argument.
  Result<void> set(const std::string& id, const ReplaceSettings& settings);
  /// They end as they are, for the next process to go on.
  Task<void> stop();

 private:
  static Task<Result<void>> act(ReplaceJob& replacing, std::string id);
  Task<bool> take_up_one(ReplaceJob& replacing, JobRecord job);
  Task<Result<void>> have_running(std::string id);
  Task<Result<void>> give_up(std::string id);
  Task<Result<bool>> is_committed(std::string id);
  Task<Result<void>> refuse_shared_targets(ReplaceRequest request);
  Task<Result<void>> refuse_moving_exports(ReplaceRequest request, std::string for_move);
  Result<void> launch(std::string id, std::unique_ptr<ReplaceJob> replacement);
  std::unique_ptr<ReplaceJob> make(JobRecord job);
  Result<void> accepts(const std::string& id, ReplaceJob::Wish wish) const;
  Result<void> with(const std::string& id, void (*tell)(ReplaceJob&));

  ReplaceEnvironment environment_;
  JobStore& jobs_;
  /// Between take_up() and start().
  std::vector<std::pair<std::string, std::unique_ptr<ReplaceJob>>> taken_up_{};
  RunningJobs<std::unique_ptr<ReplaceJob>> running_;
  AsyncMutex taking_up_{};
};

}  // namespace diskferry
