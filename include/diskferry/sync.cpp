// The wait queue and what is made of it.
#include "diskferry/sync.hpp"

#include <algorithm>

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry {
namespace asio = boost::asio;

Task<bool> WaitQueue::wait(std::unique_lock<std::mutex>& lock, std::uint64_t tag) {
  const auto state = co_await asio::this_coro::cancellation_state;
  if (state.cancelled() != asio::cancellation_type::none) {
    lock.unlock();
    co_return false;
  }
  co_return co_await wait_in_queue(lock, tag, Cancellation::ends_wait);
}

Task<void> WaitQueue::wait_uncancelled(std::unique_lock<std::mutex>& lock) {
  (void)co_await wait_in_queue(lock, 0, Cancellation::ignored);
}

Task<bool> WaitQueue::wait_in_queue(std::unique_lock<std::mutex>& lock, std::uint64_t tag,
                                    Cancellation cancellation) {
  DISKFERRY_ASSERT(lock.owns_lock(), "waiting needs the guarding mutex");
  const Executor executor = co_await asio::this_coro::executor;
  // From here the mutex is ours alone: the unique_lock is the caller's, who may use it again as soon as this
  // task is woken, while unlock() would still be writing to it.
  std::mutex& mutex = *lock.release();
  lock = std::unique_lock(mutex, std::defer_lock);
  asio::cancellation_slot slot;
  const bool woken = co_await asio::async_initiate<const asio::use_awaitable_t<Executor>, void(bool)>(
      [this, &mutex, &slot, tag, cancellation, &executor](auto&& handler) {
        const std::uint64_t id = next_id_++;
        if (cancellation == Cancellation::ends_wait) slot = asio::get_associated_cancellation_slot(handler);
        if (slot.is_connected()) {
          slot.assign([this, &mutex, id](asio::cancellation_type) { cancel_waiter(mutex, id); });
        }
        std::mutex& guarding = mutex;  // the frame that `mutex` refers to may be gone after unlock()
        // any_completion_handler would put a handler of its own into our slot: it gets an empty one.
        waiters_.push_back(Waiter{id, tag, executor,
                                  Handler(asio::bind_cancellation_slot(
                                      asio::cancellation_slot(), std::forward<decltype(handler)>(handler)))});
        guarding.unlock();
      },
      asio::use_awaitable_t<Executor>{});
  slot.clear();  // a later cancellation must not find this queue, which may be gone by then
  // Whoever woke us holds the mutex still, or has let go of it: after this it has.
  mutex.lock();
  mutex.unlock();
  co_return woken;
}

void WaitQueue::cancel_waiter(std::mutex& mutex, std::uint64_t id) {
  std::unique_lock lock(mutex);
  const auto found = std::ranges::find(waiters_, id, &Waiter::id);
  if (found == waiters_.end()) return;  // already woken: the wake-up wins
  Waiter waiter = std::move(*found);
  waiters_.erase(found);
  lock.unlock();
  resume(std::move(waiter), false);
}

void WaitQueue::resume(Waiter waiter, bool woken) {
  auto executor = waiter.executor;
  asio::post(executor, [handler = std::move(waiter.handler), woken]() mutable { std::move(handler)(woken); });
}

bool WaitQueue::wake_one() {
  if (waiters_.empty()) return false;
  Waiter waiter = std::move(waiters_.front());
  waiters_.pop_front();
  resume(std::move(waiter), true);
  return true;
}

void WaitQueue::wake_all() {
  while (wake_one()) {
  }
}

bool WaitQueue::wake_lowest(std::uint64_t tag_max) {
  const auto lowest = std::ranges::min_element(waiters_, {}, &Waiter::tag);
  if (lowest == waiters_.end() || lowest->tag > tag_max) return false;
  Waiter waiter = std::move(*lowest);
  waiters_.erase(lowest);
  resume(std::move(waiter), true);
  return true;
}

std::optional<std::uint64_t> WaitQueue::lowest_tag() const noexcept {
  const auto lowest = std::ranges::min_element(waiters_, {}, &Waiter::tag);
  if (lowest == waiters_.end()) return std::nullopt;
  return lowest->tag;
}

Task<Result<AsyncMutex::Lock>> AsyncMutex::lock() {
  std::unique_lock guard(guard_);
  if (!held_) {
    held_ = true;
    co_return Lock(*this);
  }
  // Ownership is handed over by release(): a woken waiter holds the mutex already.
  if (!co_await waiting_.wait(guard)) co_return unexpected(cancelled_error("wait for lock"));
  co_return Lock(*this);
}

std::optional<AsyncMutex::Lock> AsyncMutex::try_lock() {
  std::lock_guard guard(guard_);
  if (held_) return std::nullopt;
  held_ = true;
  return Lock(*this);
}

void AsyncMutex::release() noexcept {
  std::lock_guard guard(guard_);
  if (!waiting_.wake_one()) held_ = false;
}

Task<Result<void>> AsyncSemaphore::acquire(std::uint64_t units) {
  units = std::min(units, capacity_);
  std::unique_lock guard(guard_);
  if (waiting_.empty() && free_ >= units) {
    free_ -= units;
    co_return Result<void>{};
  }
  if (!co_await waiting_.wait(guard, units)) {
    // The one that gave up may have been the large one at the head.
    guard.lock();
    while (!waiting_.empty() && free_ >= waiting_.first_tag()) {
      free_ -= waiting_.first_tag();
      waiting_.wake_one();
    }
    guard.unlock();
    co_return unexpected(cancelled_error("wait for a free slot"));
  }
  co_return Result<void>{};  // release() took the units for us
}

bool AsyncSemaphore::try_acquire(std::uint64_t units) {
  units = std::min(units, capacity_);
  std::lock_guard guard(guard_);
  if (!waiting_.empty() || free_ < units) return false;
  free_ -= units;
  return true;
}

void AsyncSemaphore::release(std::uint64_t units) {
  units = std::min(units, capacity_);
  std::lock_guard guard(guard_);
  free_ += units;
  DISKFERRY_ASSERT(free_ <= capacity_, "more was released than acquired");
  while (!waiting_.empty() && free_ >= waiting_.first_tag()) {
    free_ -= waiting_.first_tag();
    waiting_.wake_one();
  }
}

std::uint64_t AsyncSemaphore::available() const {
  std::lock_guard guard(guard_);
  return free_;
}

void AsyncEvent::set() {
  std::lock_guard guard(guard_);
  set_ = true;
  waiting_.wake_all();
}

bool AsyncEvent::is_set() const {
  std::lock_guard guard(guard_);
  return set_;
}

Task<Result<void>> AsyncEvent::wait() {
  std::unique_lock guard(guard_);
  if (set_) co_return Result<void>{};
  if (!co_await waiting_.wait(guard)) co_return unexpected(cancelled_error("wait for event"));
  co_return Result<void>{};
}

}  // namespace diskferry
