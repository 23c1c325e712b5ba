// The barrier: no flush of a stopped guest is answered before all disks are durable and that is written down.
#include "gateway/move/barrier.hpp"

#include "diskferry/task_group.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>

#include <boost/asio/this_coro.hpp>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;

/// What a barrier asks, and what it was asked.
struct World {
  std::atomic<bool> is_stopped = true;
  std::atomic<int> asked = 0;
  std::atomic<int> made_durable = 0;
  std::atomic<int> recorded = 0;
  std::optional<Error> durable_error{};
  std::optional<Error> record_error{};
  AsyncEvent* gate = nullptr;  ///< making durable waits for it

  Task<Result<bool>> ask() {
    ++asked;
    co_return is_stopped.load();
  }
  Task<Result<void>> make_durable() {
    if (gate != nullptr) DISKFERRY_CO_CHECK(co_await gate->wait());
    if (durable_error) co_return unexpected(*durable_error);
    ++made_durable;
    co_return Result<void>{};
  }
  Task<Result<void>> record() {
    // Nothing is written down that is not so.
    EXPECT_GT(made_durable.load(), 0);
    if (record_error) co_return unexpected(*record_error);
    ++recorded;
    co_return Result<void>{};
  }
  BarrierHooks hooks() {
    return {.is_guest_stopped = [this] { return ask(); },
            .make_all_durable = [this] { return make_durable(); },
            .record = [this] { return record(); }};
  }
};

Clock& system_clock() {
  return test::runtime().context().clock;
}

TEST(MoveBarrier, PassesBeforeItIsArmed) {
  World world;
  Barrier barrier(system_clock(), world.hooks());
  must(run(barrier.flushed()));
  EXPECT_EQ(world.asked, 0);
  EXPECT_EQ(world.made_durable, 0);
}

TEST(MoveBarrier, PassesWhileTheGuestRuns) {
  World world;
  world.is_stopped = false;
  Barrier barrier(system_clock(), world.hooks());
  barrier.arm();
  must(run(barrier.flushed()));
  EXPECT_EQ(world.made_durable, 0);
  EXPECT_FALSE(barrier.times().last_answer);
}

TEST(MoveBarrier, RecordsOnceForEachStopAndMakesDurableEachTime) {
  World world;
  Barrier barrier(system_clock(), world.hooks());
  barrier.arm();
  for (int i = 0; i < 3; ++i) must(run(barrier.flushed()));
  EXPECT_EQ(world.made_durable, 3);
  EXPECT_EQ(world.recorded, 1);
  EXPECT_TRUE(barrier.times().first_flush);
  world.is_stopped = false;  // its operator had stopped it, and lets it go on
  must(run(barrier.flushed()));
  EXPECT_FALSE(barrier.times().first_flush);
  world.is_stopped = true;
  must(run(barrier.flushed()));
  EXPECT_EQ(world.recorded, 2);
}

TEST(MoveBarrier, ADiskThatCannotBeMadeDurableFailsTheFlush) {
  World world;
  world.durable_error = fail(ErrorKind::no_space, "write", "vdb");
  Barrier barrier(system_clock(), world.hooks());
  barrier.arm();
  const auto flushed = run(barrier.flushed());
  ASSERT_FALSE(flushed);
  EXPECT_EQ(flushed.error().kind(), ErrorKind::no_space);
  EXPECT_EQ(world.recorded, 0);
  EXPECT_FALSE(barrier.times().last_answer);
}

TEST(MoveBarrier, WhatCannotBeWrittenDownFailsTheFlushAndIsTriedAgain) {
  World world;
  world.record_error = fail(ErrorKind::io, "write the job down");
  Barrier barrier(system_clock(), world.hooks());
  barrier.arm();
  EXPECT_FALSE(run(barrier.flushed()));
  world.record_error.reset();
  must(run(barrier.flushed()));
  EXPECT_EQ(world.recorded, 1);
}

TEST(MoveBarrier, RefusesOnceTheMoveIsUndone) {
  World world;
  Barrier barrier(system_clock(), world.hooks());
  barrier.refuse();
  const auto flushed = run(barrier.flushed());
  ASSERT_FALSE(flushed);
  EXPECT_EQ(flushed.error().kind(), ErrorKind::cancelled);
}

TEST(MoveBarrier, HoldsNoFlushForEver) {
  World world;
  AsyncEvent never;
  world.gate = &never;
  Barrier barrier(system_clock(), world.hooks(), std::chrono::milliseconds(20));
  barrier.arm();
  const auto flushed = run(barrier.flushed());
  ASSERT_FALSE(flushed);
  EXPECT_EQ(flushed.error().kind(), ErrorKind::timed_out);
  EXPECT_EQ(world.recorded, 0);
}

Task<Result<void>> flush_from_all_reactors(Barrier& barrier) {
  TaskGroup group(co_await boost::asio::this_coro::executor);
  const auto reactors = test::runtime().context().reactors;
  for (int i = 0; i < 8; ++i)
    group.spawn_on(reactors[static_cast<std::size_t>(i) % reactors.size()], barrier.flushed());
  co_return co_await group.join();
}

TEST(MoveBarrier, FlushesOfManyDisksTakeTurns) {
  World world;
  Barrier barrier(system_clock(), world.hooks());
  barrier.arm();
  must(run(flush_from_all_reactors(barrier)));
  EXPECT_EQ(world.recorded, 1);
  EXPECT_EQ(world.made_durable, 8);
}

}  // namespace
}  // namespace diskferry
