// The record of a job that replaces storage: what is written down before each step, and how it ends.
#pragma once

#include "gateway/move/replace_environment.hpp"
#include "gateway/move/replace_request.hpp"

#include <functional>
#include <string>
#include <string_view>

namespace diskferry {

/// Thread: that of its job. Lifetime: of the environment.
class ReplaceRecord {
 public:
  ReplaceRecord(const ReplaceEnvironment& environment, JobRecord job)
      : environment_(environment), job_(std::move(job)) {}

  const JobRecord& job() const noexcept { return job_; }
  const ReplaceRequest& request() const noexcept { return request_; }
  ReplaceState& state() noexcept { return state_; }
  const ReplaceState& state() const noexcept { return state_; }

  /// Makes this process the one that acts for the job. Errors: in_use, and those of reading.
  Task<Result<void>> load();
  Task<Result<void>> save(JobChanges changes);
  /// Errors: internal (a phase that must not follow), those of the store.
  Task<Result<void>> enter(Phase next, JobChanges changes = {});
  /// That phase was written down, though enter() could not tell.
  void has_entered(Phase phase);
  /// As enter(), tried again until it is known whether it was written or `gives_up` says so.
  Task<Result<void>> enter_for_sure(Phase next, JobChanges changes, std::function<bool()> gives_up);
  /// Why a job is undone, told to people: a wish to cancel shows up as whatever was being waited for then.
  Error end_reason(Error why, bool is_cancel_wanted) const;
  /// That the target of this disk, which the job was to make, could not be made: it is not removed, since it
  /// may be somebody else's. Where it may be there all the same, the report and the error that is returned
  /// tell of it. Looks at the storage, also when cancelled.
  Task<Error> note_unmade(ReplaceDiskState& disk, Error why);
  /// Returns `result`. Tried again as enter_for_sure().
  Task<Result<void>> note_end(Result<void> result, std::string report, std::function<bool()> gives_up);

 private:
  Task<bool> may_be_there(std::string uri) const;
  void die_at(std::string_view prefix, Phase phase) const;

  const ReplaceEnvironment& environment_;
  JobRecord job_;
  ReplaceRequest request_{};
  ReplaceState state_{};
};

}  // namespace diskferry
