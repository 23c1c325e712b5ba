// Flushes at the switchover: which pass, which are held, which fail.
#include "gateway/move/barrier.hpp"

#include "diskferry/task_group.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;

/// The hypervisor, the disks and the record of a move, as far as the barrier asks for them.
struct FakeMove {
  std::atomic<bool> is_stopped = true;
  std::atomic<int> made_durable = 0;
  std::atomic<int> recorded = 0;
  std::atomic<int> inside = 0;
  std::atomic<bool> overlapped = false;
  std::atomic<bool> is_durable_when_recorded = false;
  bool holds = false;  ///< make_all_durable waits for `released`
  AsyncEvent released;
  ErrorKind asking_fails = ErrorKind::cancelled;  // cancelled: does not fail
  ErrorKind durable_fails = ErrorKind::cancelled;
  ErrorKind record_fails = ErrorKind::cancelled;

  static Result<void> outcome(ErrorKind kind) {
    if (kind == ErrorKind::cancelled) return {};
    return unexpected(fail(kind, "fail as told"));
  }
  Task<Result<bool>> ask() {
    DISKFERRY_CO_CHECK(outcome(asking_fails));
    co_return is_stopped.load();
  }
  Task<Result<void>> make_durable() {
    if (++inside > 1) overlapped = true;
    Result<void> result = outcome(durable_fails);
    if (holds && result) result = co_await released.wait();
    --inside;
    if (result) ++made_durable;
    co_return result;
  }
  Task<Result<void>> record() {
    DISKFERRY_CO_CHECK(outcome(record_fails));
    is_durable_when_recorded = made_durable > 0;
    ++recorded;
    co_return Result<void>{};
  }
  BarrierHooks hooks() {
    return {.is_guest_stopped = [this] { return ask(); },
            .make_all_durable = [this] { return make_durable(); },
            .record = [this] { return record(); }};
  }
};

class BarrierTest : public testing::Test {
 protected:
  ErrorKind kind_of_flush() {
    const auto result = run(barrier.flushed());
    EXPECT_FALSE(result);
    return result ? ErrorKind::internal : result.error().kind();
  }
  /// Waits until `what` has come; the test fails when it does not within ten seconds.
  template <class Condition>
  static void wait_for(Condition what) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!what() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    EXPECT_TRUE(what());
  }

  FakeClock clock;
  FakeMove move;
  Barrier barrier{clock, move.hooks(), std::chrono::seconds(30)};
};

TEST_F(BarrierTest, FlushesPassBeforeItIsArmed) {
  move.asking_fails = ErrorKind::gone;  // nobody is asked
  must(run(barrier.flushed()));
  EXPECT_EQ(move.made_durable, 0);
  EXPECT_EQ(move.recorded, 0);
  EXPECT_FALSE(barrier.times().first_flush);
}

TEST_F(BarrierTest, AFlushIsAnsweredWhenAllIsDurableAndThatIsWrittenDown) {
  barrier.arm();
  clock.advance(std::chrono::seconds(1));
  must(run(barrier.flushed()));
  EXPECT_EQ(move.made_durable, 1);
  EXPECT_EQ(move.recorded, 1);
  EXPECT_TRUE(move.is_durable_when_recorded);
  EXPECT_EQ(barrier.times().first_flush, clock.now());
  EXPECT_EQ(barrier.times().last_answer, clock.now());
}

TEST_F(BarrierTest, OneStopIsRecordedOnceAndEveryFlushMakesDurable) {
  barrier.arm();
  const TimePoint first = clock.now();
  for (int i = 0; i < 3; ++i) {
    must(run(barrier.flushed()));
    clock.advance(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(move.made_durable, 3);
  EXPECT_EQ(move.recorded, 1);
  EXPECT_EQ(barrier.times().first_flush, first);
  EXPECT_EQ(barrier.times().last_answer, first + std::chrono::milliseconds(2));
}

TEST_F(BarrierTest, AGuestThatRunsAgainBeginsAnew) {
  barrier.arm();
  must(run(barrier.flushed()));
  move.is_stopped = false;
  must(run(barrier.flushed()));
  EXPECT_EQ(move.made_durable, 1) << "a running guest's flush waits for nobody";
  EXPECT_FALSE(barrier.times().first_flush);
  EXPECT_FALSE(barrier.times().last_answer);
  move.is_stopped = true;
  must(run(barrier.flushed()));
  EXPECT_EQ(move.recorded, 2) << "the next stop is another one";
}

TEST_F(BarrierTest, WhatFailsFailsTheFlush) {
  struct Row {
    const char* name;
    ErrorKind FakeMove::* fails;
  };
  barrier.arm();
  for (const Row& row : {Row{"asking", &FakeMove::asking_fails}, Row{"flushing", &FakeMove::durable_fails},
                         Row{"recording", &FakeMove::record_fails}}) {
    SCOPED_TRACE(row.name);
    move.*row.fails = ErrorKind::io;
    EXPECT_EQ(kind_of_flush(), ErrorKind::io);
    EXPECT_EQ(move.recorded, 0);
    EXPECT_FALSE(barrier.times().last_answer);
    move.*row.fails = ErrorKind::cancelled;
  }
  must(run(barrier.flushed()));
  EXPECT_EQ(move.recorded, 1) << "what failed is done again";
}

TEST_F(BarrierTest, ARefusedBarrierFailsEveryFlush) {
  barrier.refuse();
  EXPECT_EQ(kind_of_flush(), ErrorKind::cancelled);
  barrier.arm();
  EXPECT_EQ(kind_of_flush(), ErrorKind::cancelled);
  EXPECT_EQ(move.made_durable, 0);
}

Task<Result<void>> flush_times(Barrier& barrier, int times) {
  for (int i = 0; i < times; ++i) DISKFERRY_CO_CHECK(co_await barrier.flushed());
  co_return Result<void>{};
}
Task<Result<void>> flush_at_once(Barrier& barrier, std::vector<Executor> executors, int times) {
  TaskGroup group(co_await boost::asio::this_coro::executor);
  for (const Executor& executor : executors) group.spawn_on(executor, flush_times(barrier, times));
  co_return co_await group.join();
}

TEST_F(BarrierTest, FlushesOfManyDisksTakeTurns) {
  barrier.arm();
  std::vector<Executor> executors;
  for (int i = 0; i < 4; ++i)
    executors.push_back(runtime().reactor(static_cast<std::size_t>(i) % runtime().reactor_count()));
  must(run(flush_at_once(barrier, executors, 50)));
  EXPECT_EQ(move.made_durable, 200);
  EXPECT_EQ(move.recorded, 1);
  EXPECT_FALSE(move.overlapped);
}

TEST_F(BarrierTest, AFlushIsHeldNoLongerThanItsLimit) {
  barrier.arm();
  move.holds = true;
  std::jthread clockwork([this] {
    wait_for([this] { return clock.sleepers() == 1 && move.inside == 1; });
    clock.advance(std::chrono::seconds(29));
    EXPECT_EQ(move.inside, 1) << "it is held until the limit";
    clock.advance(std::chrono::seconds(1));
  });
  EXPECT_EQ(kind_of_flush(), ErrorKind::timed_out);
  EXPECT_EQ(move.recorded, 0);
  EXPECT_EQ(move.inside, 0) << "who holds it has let go";
}

TEST_F(BarrierTest, AFlushThatIsHeldWhileTheMoveIsUndoneFails) {
  barrier.arm();
  move.holds = true;
  std::jthread undoing([this] {
    wait_for([this] { return move.inside == 1; });
    barrier.refuse();
    move.released.set();
  });
  EXPECT_EQ(kind_of_flush(), ErrorKind::cancelled);
  EXPECT_EQ(move.recorded, 0) << "a move that is undone is not synchronized";
  EXPECT_FALSE(barrier.times().last_answer);
}

}  // namespace
}  // namespace diskferry
