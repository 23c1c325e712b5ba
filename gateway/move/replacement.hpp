// The replacement of the storage behind exports while clients use them: a list of steps, each written down
// before it is done. Until the commit record the old storage is in charge, whatever happens; after it the new
// one is, and a fallback is the same in the other direction. All disks change places at one moment or none.
#pragma once

#include "gateway/mirror/convergence.hpp"
#include "gateway/move/replace_environment.hpp"
#include "gateway/move/replace_job.hpp"
#include "gateway/move/replace_record.hpp"
#include "gateway/move/replaced_disk.hpp"

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace diskferry {

/// How a disk stands.
struct ReplacedDiskView {
  ReplacedDiskStats stats{};
  ConvergenceStep step{};
  std::string why{};  ///< of the last change of mode
};

/// Thread: one reactor, but where said. Lifetime: of the environment.
class Replacement final : public ReplaceJob {
 public:
  Replacement(ReplaceEnvironment& environment, JobRecord job);
  ~Replacement() override;
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;

  /// For a job that an earlier process left: puts the mirrors behind the exports, before clients are let in.
  /// Once, before run(). Errors: those of ReplacedDisk::begin(); what could not be put behind its export is
  /// not followed, and known not to be.
  Task<Result<void>> take_up() override;
  /// Instead of run(): leaves everything to a later process.
  Task<void> leave_to_next() override;
  /// The replacement, from wherever its record says it is, to its end. Cancel: before the commit it is
  /// undone; after it nothing follows any more, and the new storage is kept. Errors: why it ended.
  Task<Result<void>> run() override;

  // What operators ask for while it runs. Thread: any.
  Result<void> accepts(Wish) const override { return {}; }
  /// Before the commit: changes places as soon as that can be. After it: lets the old storage go, which ends
  /// a fallback that has not been possible yet.
  void commit_now() override {
    if (is_committed_) is_fallback_wanted_ = false;
    (is_committed_ ? is_release_wanted_ : is_commit_wanted_) = true;
  }
  void fall_back() override { is_fallback_wanted_ = true; }
  // The last word counts, also where the one before it has not been followed yet.
  void pause() override {
    is_resume_wanted_ = false;
    is_pause_wanted_ = true;
  }
  void resume() override {
    is_pause_wanted_ = false;
    is_resume_wanted_ = true;
  }
  /// Holds at once, and is written down within look_interval: later processes go by it, too. Errors:
  /// invalid_argument.
  Result<void> set(const ReplaceSettings& settings) override;
  /// The cancellation that follows is the end of this process: the next one goes on.
  void gateway_stops() noexcept override { is_gateway_stopping_ = true; }
  /// The same of a wish to cancel: a cancellation alone may come while nothing can be cut short.
  void cancel() noexcept override { is_cancel_wanted_ = true; }

 private:
  struct Disk;
  using IsEnough = bool (Replacement::*)() const;

  // replacement.cpp: the steps
  Task<Result<void>> load();
  Task<Result<void>> save(JobChanges changes);
  Task<Result<void>> enter(Phase next, JobChanges changes = {});
  std::string map_path(std::size_t disk) const;
  Result<void> remove_maps() const;
  void make_disks();
  ReplaceLimits limits() const;
  ConvergenceLimits limits_now() const;
  std::uint64_t fitting_window(const WindowStats& now, std::uint64_t wanted) const;
  std::uint64_t first_window(std::uint64_t copy_bytes_per_s) const;
  Task<Result<void>> note_limits();
  Task<Result<void>> forward();
  Task<Result<void>> begin_again();
  Task<Result<void>> prepare();
  Task<Result<void>> converge();
  Task<Result<void>> retain();
  Task<Result<bool>> take_source_back();
  Task<Result<bool>> follow_and_change(IsEnough is_enough, IsEnough is_off, Phase next);
  Result<void> note_attempt();
  Task<Result<void>> let_source_go();
  Task<Result<void>> undo(Error why);
  Task<Result<void>> end_disks();
  Task<Result<void>> remove_storage(std::string uri);
  Task<Result<void>> note_end(Result<void> result);
  bool targets_are_in_charge() const noexcept { return state_.switchovers % 2 != 0; }

  // replacement_follow.cpp: having the targets follow
  Task<Result<void>> follow_until(IsEnough is_enough);
  Task<Result<void>> supervise(IsEnough is_enough, TaskGroup& followers, bool& was_enough);
  Task<Result<void>> wait_while_paused(Error why, IsEnough is_off);
  Task<Result<void>> note_phase();
  void steer();
  bool is_end_wanted() const noexcept { return is_cancel_wanted_ || is_gateway_stopping_; }
  bool is_in_step() const;
  Duration predicted_pause() const;
  bool can_change_places() const;
  bool is_time_to_commit() const;
  bool is_time_to_fall_back() const;
  bool is_time_to_end() const;
  bool is_never() const { return false; }
  bool is_fallback_off() const { return !is_fallback_wanted_; }

  // replacement_faults.cpp
  Task<Result<void>> note_losses();
  void set_skips();
  bool is_to_be_undone() const;
  Error paused_error(Error why) const;

  // replacement_progress.cpp
  std::vector<ReplacedDiskView> views() const;
  std::string progress() const;
  std::string report() const;

  // replacement_switch.cpp: changing places
  Task<Result<bool>> change_places(Phase next);
  Task<Result<void>> hold_and_copy(HoldParts& parts, TimePoint since);
  Task<Result<void>> hold_within_pause(HoldParts& parts, TimePoint since);
  Task<Result<void>> let_go_at(TimePoint end, TaskGroup& work, bool& is_over);
  Task<Result<void>> commit(Phase next, HoldParts& parts);
  Task<Result<void>> record(Phase next);
  Task<Result<void>> for_each(Task<Result<void>> (ReplacedDisk::*act)());
  std::vector<EndpointRecord> records() const;
  void let_go();

  ReplaceEnvironment& environment_;
  ReplaceRecord record_;
  // Of the record.
  const JobRecord& job_;
  const ReplaceRequest& request_;
  ReplaceState& state_;
  std::deque<Disk> disks_;
  std::vector<ReplacedDiskView> last_views_{};  // once disks_ have ended
  bool is_taken_up_ = false;
  bool was_paused_ = false;
  bool is_record_unsure_ = false;  // a commit that failed may be found by a later process: nobody is let go
  std::string unsaved_loss_{};     // what was skipped and is not in the record yet
  unsigned attempts_ = 0;          // to change places, one after the other
  TimePoint next_attempt_{};

  std::atomic<bool> is_committed_ = false;
  std::atomic<bool> is_cancel_wanted_ = false;
  std::atomic<bool> is_commit_wanted_ = false;
  std::atomic<bool> is_release_wanted_ = false;
  std::atomic<bool> is_fallback_wanted_ = false;
  std::atomic<bool> is_pause_wanted_ = false;
  std::atomic<bool> is_resume_wanted_ = false;
  std::atomic<bool> is_gateway_stopping_ = false;
  mutable std::mutex limits_guard_;
  ReplaceLimits limits_{};
  std::atomic<bool> are_limits_noted_ = true;
};

}  // namespace diskferry
