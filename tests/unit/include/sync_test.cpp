#include "diskferry/sync.hpp"

#include "diskferry/clock.hpp"
#include "diskferry/task_group.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;

Task<Result<void>> count_under(AsyncMutex& mutex, int& counter, int times) {
  for (int i = 0; i < times; ++i) {
    DISKFERRY_CO_TRY(auto lock, co_await mutex.lock());
    const int before = counter;
    co_await boost::asio::this_coro::executor;
    counter = before + 1;
  }
  co_return Result<void>{};
}

Task<Result<void>> two_threads_count(AsyncMutex& mutex, int& counter) {
  TaskGroup group(runtime().reactor(0));
  for (std::size_t i = 0; i < 8; ++i) group.spawn_on(runtime().reactor(i), count_under(mutex, counter, 1000));
  co_return co_await group.join();
}

TEST(AsyncMutex, ExcludesAcrossThreads) {
  AsyncMutex mutex;
  int counter = 0;
  must(run(two_threads_count(mutex, counter)));
  EXPECT_EQ(counter, 8000);
}

Task<Result<void>> wait_forever(AsyncEvent& event) {
  co_return co_await event.wait();
}
Task<Result<void>> cancel_waiters(AsyncEvent& event) {
  TaskGroup group(runtime().reactor(0));
  for (std::size_t i = 0; i < 10; ++i) group.spawn_on(runtime().reactor(i), wait_forever(event));
  group.cancel();
  co_return co_await group.join();
}

TEST(TaskGroup, CancelWakesEverybodyAndJoinSaysSo) {
  AsyncEvent never;
  const auto result = run(cancel_waiters(never));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind(), ErrorKind::cancelled);
}

Task<Result<void>> take_and_give(AsyncSemaphore& semaphore, std::uint64_t units,
                                 std::atomic<std::uint64_t>& held, std::atomic<std::uint64_t>& most) {
  for (int i = 0; i < 500; ++i) {
    DISKFERRY_CO_CHECK(co_await semaphore.acquire(units));
    const auto now = held.fetch_add(units) + units;
    auto seen = most.load();
    while (now > seen && !most.compare_exchange_weak(seen, now)) {
    }
    held.fetch_sub(units);
    semaphore.release(units);
  }
  co_return Result<void>{};
}
Task<Result<void>> many_take(AsyncSemaphore& semaphore, std::atomic<std::uint64_t>& most) {
  std::atomic<std::uint64_t> held = 0;
  TaskGroup group(runtime().reactor(0));
  for (std::size_t i = 0; i < 6; ++i)
    group.spawn_on(runtime().reactor(i), take_and_give(semaphore, 1 + i, held, most));
  co_return co_await group.join();
}

TEST(AsyncSemaphore, NeverLendsMoreThanItHasAndGetsAllBack) {
  AsyncSemaphore semaphore(7);
  std::atomic<std::uint64_t> most = 0;
  must(run(many_take(semaphore, most)));
  EXPECT_LE(most.load(), 7u);
  EXPECT_EQ(semaphore.available(), 7u);
}

Task<Result<int>> slow_answer(Clock& clock, Duration after) {
  DISKFERRY_CO_CHECK(co_await clock.sleep_for(after));
  co_return 42;
}

TEST(Deadline, PassesTheResultOfWhatIsInTime) {
  EXPECT_EQ(
      must(run(with_deadline<int>(runtime().context().clock, std::chrono::seconds(30), "answer",
                                  slow_answer(runtime().context().clock, std::chrono::milliseconds(1))))),
      42);
}
TEST(Deadline, StopsWhatIsLate) {
  const auto late = run(with_deadline<int>(runtime().context().clock, std::chrono::milliseconds(5), "answer",
                                           slow_answer(runtime().context().clock, std::chrono::hours(1))));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().kind(), ErrorKind::timed_out);
}

Task<Result<void>> throws_bad_alloc() {
  throw std::bad_alloc();
  co_return Result<void>{};
}
TEST(TopFrame, TurnsExceptionsIntoErrors) {
  const auto result = run(throws_bad_alloc());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind(), ErrorKind::too_large);
}

}  // namespace
}  // namespace diskferry
