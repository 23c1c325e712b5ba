// The two clocks.
#include "diskferry/clock.hpp"

#include "diskferry/task_group.hpp"

#include <atomic>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry {
namespace asio = boost::asio;

Task<Result<void>> SystemClock::sleep_until(TimePoint time) {
  if (co_await is_cancelled()) co_return unexpected(cancelled_error("sleep"));
  asio::steady_timer timer(co_await asio::this_coro::executor);
  timer.expires_at(std::chrono::time_point_cast<std::chrono::steady_clock::duration>(time));
  const auto [error] = co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  if (error) co_return unexpected(cancelled_error("sleep"));
  co_return Result<void>{};
}

TimePoint FakeClock::now() const {
  std::lock_guard lock(guard_);
  return now_;
}

Task<Result<void>> FakeClock::sleep_until(TimePoint time) {
  if (co_await is_cancelled()) co_return unexpected(cancelled_error("sleep"));
  std::unique_lock lock(guard_);
  if (time <= now_) co_return Result<void>{};
  // Never negative: the clock starts at the epoch and does not go back.
  const auto tag = static_cast<std::uint64_t>(time.time_since_epoch().count());
  if (!co_await waiting_.wait(lock, tag)) co_return unexpected(cancelled_error("sleep"));
  co_return Result<void>{};
}

void FakeClock::advance(Duration by) {
  std::lock_guard lock(guard_);
  now_ = after(now_, by);
  while (waiting_.wake_lowest(static_cast<std::uint64_t>(now_.time_since_epoch().count()))) {
  }
}

std::size_t FakeClock::sleepers() const {
  std::lock_guard lock(guard_);
  return waiting_.size();
}

std::optional<TimePoint> FakeClock::first_wake() const {
  std::lock_guard lock(guard_);
  const auto tag = waiting_.lowest_tag();
  if (!tag) return std::nullopt;
  return TimePoint(Duration(static_cast<Duration::rep>(*tag)));
}

namespace detail {
Task<Result<void>> expire(Clock& clock, TimePoint when, TaskGroup& work, std::atomic<bool>& expired) {
  DISKFERRY_CO_CHECK(co_await clock.sleep_until(when));
  expired.store(true);
  work.cancel();
  co_return Result<void>{};
}
}  // namespace detail

}  // namespace diskferry
