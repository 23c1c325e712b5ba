// One list of holds in order of arrival, granted or waiting. An entry is blocked by any earlier one that
// overlaps it when either is exclusive.
#include "drivers/support/range_lock.hpp"

namespace diskferry {

void RangeLock::append(Hold& hold, Range range, Mode mode) noexcept {
  DISKFERRY_ASSERT(hold.lock_ == nullptr, "a hold holds one range at a time");
  hold.lock_ = this;
  hold.range_ = range;
  hold.mode_ = mode;
  hold.is_granted_ = false;
  hold.before_ = last_;
  hold.after_ = nullptr;
  (last_ != nullptr ? last_->after_ : first_) = &hold;
  last_ = &hold;
  ++count_;
  if (mode == Mode::exclusive) ++exclusive_;
}

void RangeLock::unlink(Hold& hold) noexcept {
  (hold.before_ != nullptr ? hold.before_->after_ : first_) = hold.after_;
  (hold.after_ != nullptr ? hold.after_->before_ : last_) = hold.before_;
  hold.lock_ = nullptr;
  --count_;
  if (hold.mode_ == Mode::exclusive) --exclusive_;
}

bool RangeLock::is_blocked(const Hold& hold) const noexcept {
  if (exclusive_ == 0) return false;
  for (const Hold* earlier = hold.before_; earlier != nullptr; earlier = earlier->before_) {
    if ((earlier->mode_ == Mode::exclusive || hold.mode_ == Mode::exclusive) &&
        earlier->range_.overlaps(hold.range_))
      return true;
  }
  return false;
}

void RangeLock::grant_waiting() {
  if (waiting_ == 0) return;
  for (Hold* hold = first_; hold != nullptr; hold = hold->after_) {
    if (hold->is_granted_ || is_blocked(*hold)) continue;
    hold->is_granted_ = true;
    --waiting_;
    hold->waiting_.wake_one();
  }
}

bool RangeLock::try_lock(Hold& hold, Range range, Mode mode) {
  std::lock_guard guard(guard_);
  append(hold, range, mode);
  if (is_blocked(hold)) {
    unlink(hold);
    return false;
  }
  hold.is_granted_ = true;
  return true;
}

Task<Result<void>> RangeLock::lock(Hold& hold, Range range, Mode mode) {
  std::unique_lock guard(guard_);
  append(hold, range, mode);
  if (!is_blocked(hold)) {
    hold.is_granted_ = true;
    co_return Result<void>{};
  }
  ++waiting_;
  if (!co_await hold.waiting_.wait(guard)) {
    // Between giving up and getting here the range may have been granted all the same: it is passed on.
    guard.lock();
    if (!hold.is_granted_) --waiting_;
    unlink(hold);
    grant_waiting();
    guard.unlock();
    co_return unexpected(
        cancelled_error("wait for a range that is being changed").at(range.offset, range.length));
  }
  co_return Result<void>{};
}

void RangeLock::Hold::release() noexcept {
  if (lock_ == nullptr) return;
  RangeLock& lock = *lock_;
  std::lock_guard guard(lock.guard_);
  lock.unlink(*this);
  lock.grant_waiting();
}

std::size_t RangeLock::size() const {
  std::lock_guard guard(guard_);
  return count_;
}

}  // namespace diskferry
