// QEMU flushes its nodes one after the other: the flush of the second disk is not sent before the first is
// answered. So no flush waits for another one; each makes all disks durable, which costs nothing where they
// are already.
#include "gateway/move/barrier.hpp"

namespace diskferry {

void Barrier::arm() {
  std::lock_guard lock(guard_);
  is_armed_ = true;
}

void Barrier::refuse() {
  std::lock_guard lock(guard_);
  refuses_ = true;
}

bool Barrier::is_refused() const {
  std::lock_guard lock(guard_);
  return refuses_;
}

BarrierTimes Barrier::times() const {
  std::lock_guard lock(guard_);
  return times_;
}

Task<Result<void>> Barrier::flushed() {
  {
    std::lock_guard lock(guard_);
    if (refuses_) co_return unexpected(cancelled_error("switch over"));
    if (!is_armed_) co_return Result<void>{};
  }
  co_return co_await with_deadline(clock_, hold_limit_, "make the targets durable", hold());
}

Task<Result<void>> Barrier::hold() {
  const TimePoint arrived = clock_.now();
  DISKFERRY_CO_TRY(const auto lock, co_await turn_.lock());
  DISKFERRY_CO_TRY(const bool is_stopped, co_await hooks_.is_guest_stopped());
  if (!is_stopped) {
    // A guest that runs again was stopped by its operator and not for good.
    is_recorded_ = false;
    std::lock_guard guard(guard_);
    times_ = {};
    co_return Result<void>{};
  }
  {
    std::lock_guard guard(guard_);
    if (!times_.first_flush) times_.first_flush = arrived;
  }
  DISKFERRY_CO_CHECK(co_await hooks_.make_all_durable());
  // Nothing is written down of a move that was given up meanwhile.
  if (is_refused()) co_return unexpected(cancelled_error("switch over"));
  if (!is_recorded_) DISKFERRY_CO_CHECK(co_await hooks_.record());
  is_recorded_ = true;
  std::lock_guard guard(guard_);
  if (refuses_) co_return unexpected(cancelled_error("switch over"));
  times_.last_answer = clock_.now();
  co_return Result<void>{};
}

}  // namespace diskferry
