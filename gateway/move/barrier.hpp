// The barrier of a switchover under libvirt: the flushes that the source's QEMU sends while the guest is
// stopped are answered only when every disk's target is durable and that is written down. An error in place
// of the answer makes libvirt resume the guest on the source. Nothing else tells libvirt to wait.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/sync.hpp"

#include <functional>
#include <optional>

namespace diskferry {

struct BarrierHooks {
  /// Whether the guest is stopped now, as the hypervisor says.
  std::function<Task<Result<bool>>()> is_guest_stopped;
  /// Drains and flushes every disk of the move.
  std::function<Task<Result<void>>()> make_all_durable;
  /// Writes `synchronized` down, durably. Called once for each stop of the guest.
  std::function<Task<Result<void>>()> record;
};

/// When what was seen, on the steady clock.
struct BarrierTimes {
  std::optional<TimePoint> first_flush{};  ///< of the latest stop
  std::optional<TimePoint> last_answer{};
};

/// Thread: any; the flushes of all disks come here, and take turns.
class Barrier {
 public:
  /// How long a flush may be held. A guest that is stopped for longer than that goes on on the source.
  static constexpr Duration hold_limit_default = std::chrono::seconds(30);

  Barrier(Clock& clock, BarrierHooks hooks, Duration hold_limit = hold_limit_default)
      : clock_(clock), hooks_(std::move(hooks)), hold_limit_(hold_limit) {}

  /// From now on the guest may be stopped for the switchover; before, flushes pass.
  void arm();
  /// For Window's before_flush_returns: this disk is durable, may its flush be answered? Errors: those of the
  /// hooks, timed_out; then the switchover must not go on.
  Task<Result<void>> flushed();
  /// Every flush fails from now on: the move is being undone. Errors of theirs: cancelled.
  void refuse();
  BarrierTimes times() const;

 private:
  Task<Result<void>> hold();
  bool is_refused() const;

  Clock& clock_;
  const BarrierHooks hooks_;
  const Duration hold_limit_;
  AsyncMutex turn_;
  mutable std::mutex guard_;
  bool is_armed_ = false;
  bool refuses_ = false;
  bool is_recorded_ = false;
  BarrierTimes times_;
};

}  // namespace diskferry
