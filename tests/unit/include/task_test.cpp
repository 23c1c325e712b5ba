// Tasks, groups, deadlines and the fake clock, and what cancellation does to each.
#include "diskferry/clock.hpp"
#include "diskferry/sync.hpp"
#include "diskferry/task_group.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>
#include <thread>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using test::must;
using test::run;
using test::runtime;

Clock& system_clock() {
  return runtime().context().clock;
}
ErrorKind kind_of(const Result<void>& result) {
  EXPECT_FALSE(result);
  return result ? ErrorKind::internal : result.error().kind();
}
template <class Condition>
Task<Result<void>> poll_until(Condition condition) {
  const TimePoint deadline = Clock::after(system_clock().now(), seconds(20));
  while (!condition()) {
    if (system_clock().now() > deadline) co_return unexpected(fail(ErrorKind::timed_out, "poll"));
    DISKFERRY_CO_CHECK(co_await system_clock().sleep_for(std::chrono::microseconds(50)));
  }
  co_return Result<void>{};
}

// TaskGroup

Task<Result<void>> sleep_long() {
  co_return co_await system_clock().sleep_for(hours(1));
}
Task<Result<void>> finish_in_spite_of_cancellation(AsyncEvent& began, std::atomic<bool>& finished) {
  began.set();
  (void)co_await system_clock().sleep_for(hours(1));
  // Clean-up after a cancellation: it takes some turns of the reactor, and succeeds.
  const Executor executor = co_await boost::asio::this_coro::executor;
  for (int i = 0; i < 10; ++i) co_await boost::asio::post(executor, boost::asio::use_awaitable_t<Executor>{});
  finished = true;
  co_return Result<void>{};
}
struct JoinOutcome {
  bool joined_well = false;
  bool child_finished = false;
  bool saw_cancellation = false;
};
Task<Result<void>> join_and_look(AsyncEvent& began, JoinOutcome& outcome) {
  std::atomic<bool> finished = false;
  TaskGroup group(runtime().reactor(1));
  group.spawn(finish_in_spite_of_cancellation(began, finished));
  const auto joined = co_await group.join();
  outcome = {joined.has_value(), finished.load(), co_await is_cancelled()};
  co_return Result<void>{};
}
Task<Result<void>> cancel_while_joining(JoinOutcome& outcome) {
  AsyncEvent began;
  TaskGroup group(runtime().reactor(0));
  group.spawn(join_and_look(began, outcome));
  DISKFERRY_CO_CHECK(co_await began.wait());
  group.cancel();
  co_return co_await group.join();
}
TEST(TaskGroup, ACancelledJoinStillJoinsAndTheCancellationStaysVisible) {
  JoinOutcome outcome;
  must(run(cancel_while_joining(outcome)));
  EXPECT_TRUE(outcome.child_finished) << "join returned before the task had ended";
  EXPECT_TRUE(outcome.joined_well);
  EXPECT_TRUE(outcome.saw_cancellation) << "a loop around join would go on for ever";
}

Task<Result<void>> spawn_many(TaskGroup& group, std::size_t turn) {
  for (std::size_t i = 0; i < 200; ++i) group.spawn_on(runtime().reactor(turn + i), sleep_long());
  co_return Result<void>{};
}
Task<Result<void>> cancel_while_spawning() {
  TaskGroup group(runtime().reactor(0));
  TaskGroup spawners(runtime().reactor(0));
  for (std::size_t i = 0; i < 2; ++i) spawners.spawn_on(runtime().reactor(i), spawn_many(group, i));
  for (int i = 0; i < 20; ++i) group.cancel();
  DISKFERRY_CO_CHECK(co_await spawners.join());
  co_return co_await group.join();
}
TEST(TaskGroup, CancelReachesTasksThatAreBeingSpawned) {
  for (int i = 0; i < 20; ++i) EXPECT_EQ(kind_of(run(cancel_while_spawning())), ErrorKind::cancelled);
}

Task<Result<void>> fail_with(ErrorKind kind) {
  co_return unexpected(fail(kind, "test"));
}
Task<Result<void>> fail_beside_a_cancelled_one(TaskGroup& group) {
  group.spawn(fail_with(ErrorKind::cancelled));
  group.spawn(fail_with(ErrorKind::no_space));
  group.spawn(fail_with(ErrorKind::io));
  co_return co_await group.join();
}
TEST(TaskGroup, TheFirstErrorThatIsNoCancellationCounts) {
  TaskGroup group(runtime().reactor(0));
  EXPECT_EQ(kind_of(run(fail_beside_a_cancelled_one(group))), ErrorKind::no_space);
  EXPECT_TRUE(group.has_failed());
}

// with_deadline

Task<Result<int>> finish_late(AsyncEvent& began) {
  began.set();
  (void)co_await system_clock().sleep_for(hours(1));
  co_return 7;
}
Task<Result<int>> answer_or_wait(FakeClock& clock, Duration after) {
  DISKFERRY_CO_CHECK(co_await clock.sleep_for(after));
  co_return 1;
}
Task<Result<int>> throw_bad_alloc() {
  throw std::bad_alloc();
  co_return 0;
}

TEST(Deadline, WhatCompletesInSpiteOfTheLimitHasCompleted) {
  AsyncEvent began;
  EXPECT_EQ(must(run(with_deadline<int>(system_clock(), milliseconds(2), "answer", finish_late(began)))), 7);
}
TEST(Deadline, AnEndlessLimitIsNoOverflow) {
  EXPECT_EQ(Clock::after(TimePoint(seconds(5)), Duration::max()), TimePoint::max());
  AsyncEvent began;
  began.set();
  FakeClock clock;
  clock.advance(seconds(5));
  EXPECT_EQ(must(run(with_deadline<int>(clock, Duration::max(), "answer",
                                        answer_or_wait(clock, Duration::zero())))),
            1);
}
TEST(Deadline, WhatATaskThrowsIsToldAsItIs) {
  const auto failed = run(with_deadline<int>(system_clock(), seconds(30), "answer", throw_bad_alloc()));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().kind(), ErrorKind::too_large);
}

struct DeadlineOutcome {
  std::optional<ErrorKind> kind;
  bool saw_cancellation = false;
};
Task<Result<void>> wait_with_deadline(FakeClock& clock, DeadlineOutcome& outcome) {
  const auto result = co_await with_deadline<int>(clock, hours(1), "answer", answer_or_wait(clock, hours(2)));
  if (!result) outcome.kind = result.error().kind();
  outcome.saw_cancellation = co_await is_cancelled();
  co_return Result<void>{};
}
Task<Result<void>> cancel_above_a_deadline(FakeClock& clock, DeadlineOutcome& outcome) {
  TaskGroup group(runtime().reactor(1));
  group.spawn(wait_with_deadline(clock, outcome));
  DISKFERRY_CO_CHECK(co_await poll_until([&clock] { return clock.sleepers() == 2; }));
  group.cancel();
  co_return co_await group.join();
}
TEST(Deadline, CancellingTheCallerIsACancellationAndNoTimeout) {
  FakeClock clock;
  DeadlineOutcome outcome;
  must(run(cancel_above_a_deadline(clock, outcome)));
  EXPECT_EQ(outcome.kind, ErrorKind::cancelled);
  EXPECT_TRUE(outcome.saw_cancellation);
  EXPECT_EQ(clock.sleepers(), 0u) << "the timer was joined";
}

// FakeClock

Task<Result<void>> note_when_woken(FakeClock& clock, Duration at, std::vector<Duration>& order) {
  DISKFERRY_CO_CHECK(co_await clock.sleep_until(TimePoint(at)));
  order.push_back(at);
  co_return Result<void>{};
}
Task<Result<void>> sleep_side_by_side(FakeClock& clock, std::vector<Duration>& order) {
  TaskGroup group(runtime().reactor(1));
  for (const int at : {30, 10, 20, 40}) group.spawn(note_when_woken(clock, seconds(at), order));
  DISKFERRY_CO_CHECK(co_await poll_until([&clock] { return clock.sleepers() == 4; }));
  EXPECT_EQ(clock.first_wake(), TimePoint(seconds(10)));
  clock.advance(seconds(35));
  EXPECT_EQ(clock.sleepers(), 1u) << "who is not due sleeps on";
  EXPECT_EQ(clock.first_wake(), TimePoint(seconds(40)));
  clock.advance(seconds(5));
  co_return co_await group.join();
}
TEST(FakeClock, WakesThoseWhoAreDueInTheOrderOfTheirTimes) {
  FakeClock clock;
  std::vector<Duration> order;
  must(run(sleep_side_by_side(clock, order)));
  EXPECT_EQ(order, (std::vector<Duration>{seconds(10), seconds(20), seconds(30), seconds(40)}));
  EXPECT_FALSE(clock.first_wake());
  must(run(clock.sleep_until(TimePoint{})));
}

// Queues: no unit and no lock is lost, whatever is cancelled when.

Task<Result<void>> lock_briefly(AsyncMutex& mutex, int times) {
  for (int i = 0; i < times; ++i) {
    auto lock = co_await mutex.lock();
    if (!lock) co_return unexpected(std::move(lock).error());
    const Executor executor = co_await boost::asio::this_coro::executor;
    co_await boost::asio::post(executor, boost::asio::use_awaitable_t<Executor>{});
  }
  co_return Result<void>{};
}
Task<Result<void>> take_briefly(AsyncSemaphore& semaphore, std::uint64_t units, int times) {
  for (int i = 0; i < times; ++i) {
    DISKFERRY_CO_CHECK(co_await semaphore.acquire(units));
    const Executor executor = co_await boost::asio::this_coro::executor;
    co_await boost::asio::post(executor, boost::asio::use_awaitable_t<Executor>{});
    semaphore.release(units);
  }
  co_return Result<void>{};
}
/// Half of the tasks are cancelled in the middle of it, the others must all get their turns.
Task<Result<void>> cancel_half(AsyncMutex& mutex, AsyncSemaphore& semaphore, Duration after) {
  TaskGroup stay(runtime().reactor(0));
  TaskGroup go(runtime().reactor(0));
  for (std::size_t i = 0; i < 6; ++i) {
    stay.spawn_on(runtime().reactor(i), lock_briefly(mutex, 40));
    stay.spawn_on(runtime().reactor(i), take_briefly(semaphore, 1 + i, 40));
    go.spawn_on(runtime().reactor(i), lock_briefly(mutex, 1000000));
    go.spawn_on(runtime().reactor(i), take_briefly(semaphore, 1 + i, 1000000));
  }
  DISKFERRY_CO_CHECK(co_await system_clock().sleep_for(after));
  go.cancel();
  (void)co_await go.join();
  co_return co_await stay.join();
}
TEST(WaitQueue, CancelledWaitersLoseNeitherLocksNorUnits) {
  for (int i = 0; i < 20; ++i) {
    AsyncMutex mutex;
    AsyncSemaphore semaphore(6);
    must(run(cancel_half(mutex, semaphore, std::chrono::microseconds(100 * i))));
    EXPECT_EQ(semaphore.available(), 6u);
    EXPECT_TRUE(mutex.try_lock().has_value());
  }
}

Task<Result<void>> set_event(AsyncEvent& event) {
  event.set();
  co_return Result<void>{};
}
/// The event lives in this frame: it is gone as soon as wait() has returned.
Task<Result<void>> wait_for_short_lived_event(TaskGroup& setters) {
  AsyncEvent event;
  setters.spawn_on(runtime().reactor(1), set_event(event));
  co_return co_await event.wait();
}
Task<Result<void>> many_short_lived_events() {
  TaskGroup setters(runtime().reactor(0));
  for (int i = 0; i < 2000; ++i) DISKFERRY_CO_CHECK(co_await wait_for_short_lived_event(setters));
  co_return co_await setters.join();
}
TEST(AsyncEvent, MayBeDestroyedByWhoeverItWoke) {
  must(run(many_short_lived_events()));
}

Task<Result<void>> large_then_small(AsyncSemaphore& semaphore, TaskGroup& large) {
  DISKFERRY_CO_CHECK(co_await semaphore.acquire(3));
  large.spawn(take_briefly(semaphore, 4, 1));
  TaskGroup small(runtime().reactor(0));
  while (semaphore.try_acquire(1)) {  // until the large one is in the queue
    semaphore.release(1);
    DISKFERRY_CO_CHECK(co_await system_clock().sleep_for(std::chrono::microseconds(50)));
  }
  small.spawn(take_briefly(semaphore, 1, 1));
  large.cancel();
  (void)co_await large.join();
  DISKFERRY_CO_CHECK(co_await small.join());  // one unit is free: only the large one stood in the way
  semaphore.release(3);
  co_return Result<void>{};
}
TEST(AsyncSemaphore, ALargeOneThatGivesUpLetsTheSmallOnesPass) {
  AsyncSemaphore semaphore(4);
  TaskGroup large(runtime().reactor(0));
  must(run(large_then_small(semaphore, large)));
  EXPECT_EQ(semaphore.available(), 4u);
}

}  // namespace
}  // namespace diskferry
