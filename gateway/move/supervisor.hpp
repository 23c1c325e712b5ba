// Watches a machine that goes over while it runs: disks and memory together, by one budget, one bound for the
// pause and one for the time. It changes limits and gives up; it decides nothing else.
#pragma once

#include "diskferry/task_group.hpp"
#include "gateway/move/link_share.hpp"
#include "gateway/move/move_context.hpp"

#include <optional>

namespace diskferry {

/// What the supervisor asks of who moves the machine. Errors also: unsupported, where there is no such thing.
class LiveMachine {
 public:
  virtual ~LiveMachine() = default;
  virtual Task<Result<LibvirtJob>> memory_job() = 0;
  /// 0: no bound.
  virtual Task<Result<void>> set_memory_rate(std::uint64_t bytes_per_s) = 0;
  virtual Task<Result<void>> set_memory_pause_ms(std::uint64_t ms) = 0;
  virtual Task<Result<void>> abort() = 0;
  virtual Task<Result<void>> suspend() = 0;
  virtual Task<Result<void>> start_post_copy() = 0;
  /// As far as it is known without asking.
  virtual bool is_guest_stopped() const = 0;
  /// Called at every look.
  virtual Task<Result<void>> looked() { co_return Result<void>{}; }
};

/// Thread: all on the move's reactor. Lifetime: machine and context outlive it; end() after begin().
class Supervisor {
 public:
  Supervisor(MoveContext& move, LiveMachine& machine)
      : move_(move), machine_(machine), told_bytes_per_s_(move.request.bytes_per_s) {}

  /// What the disks still have to send goes at full speed: everybody waits for it now.
  void guest_stopped();
  Task<void> begin();
  Task<void> end();
  /// The move took longer than its request allows, and was given up.
  bool has_timed_out() const noexcept { return has_timed_out_; }
  /// The memory may still have a rate of ours.
  bool has_told_rate() const noexcept { return told_bytes_per_s_ != 0; }

 private:
  Task<Result<void>> watch();
  Task<Result<void>> look_once();
  /// All disks together.
  struct DisksNow {
    std::uint64_t bytes_per_s = 0;
    std::uint64_t sent_bytes = 0;
    bool are_pending = false;
    bool does_guest_wait = false;  ///< a window is so full that its writes do
  };
  DisksNow look_at_disks() const;
  void fit_window(const DisksNow& disks, double seconds);
  /// What the disks may send a second, so that the memory comes to its end; 0: no bound.
  std::uint64_t share_link(const DisksNow& disks);
  Task<Result<void>> apply_rate(const DisksNow& disks, bool memory_goes);
  Task<Result<void>> apply_pause();
  /// Nothing gets through to the targets, for long enough to be no chance.
  bool are_stalled(const DisksNow& disks);
  Task<Result<void>> act_on_timeout();

  MoveContext& move_;
  LiveMachine& machine_;
  std::optional<TaskGroup> side_{};
  bool is_over_ = false;
  LinkShare share_{};
  struct {
    TimePoint at{};
    std::uint64_t memory_bytes = 0;
  } last_look_{};
  struct {
    TimePoint at{};
    std::uint64_t sent_bytes = 0;
  } last_progress_{};
  std::uint64_t told_bytes_per_s_;  ///< the limits that the parts of the move know of
  std::uint64_t told_pause_ms_ = 0;
  bool has_suspended_ = false;
  bool has_post_copied_ = false;
  bool has_timed_out_ = false;
};

/// Of the pause that is allowed, what the memory may take; the rest is for the disks' windows. Pure.
std::uint64_t memory_pause_ms(std::uint64_t max_pause_ms) noexcept;

}  // namespace diskferry
