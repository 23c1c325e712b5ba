// When targets are flushed ahead of the switchover.
#include "gateway/move/flush_ahead.hpp"

#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "tests/support/test_runtime.hpp"

#include <functional>

#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;

struct Targets {
  std::uint64_t sent = 0;
  bool is_near = false;
  bool fails = false;
  int flushes = 0;

  Task<Result<void>> make_durable() {
    ++flushes;
    if (fails) co_return unexpected(fail(ErrorKind::io, "flush"));
    co_return Result<void>{};
  }
};

/// Lets all that is ready on this executor run, after a second has passed on the clock, in small steps.
Task<void> pass_time(FakeClock& clock) {
  const Executor own = co_await boost::asio::this_coro::executor;
  for (int i = 0; i < 50; ++i) {
    clock.advance(std::chrono::milliseconds(20));
    for (int turn = 0; turn < 10; ++turn)
      co_await boost::asio::post(own, boost::asio::use_awaitable_t<Executor>{});
  }
}

Task<Result<void>> with_targets(std::function<Task<void>(FakeClock&, Targets&)> act) {
  FakeClock clock;
  Targets targets;
  TaskGroup group(co_await boost::asio::this_coro::executor);
  group.spawn(flush_ahead(clock, {.make_durable = [&targets] { return targets.make_durable(); },
                                  .sent_bytes = [&targets] { return targets.sent; },
                                  .is_near = [&targets] { return targets.is_near; }}));
  co_await act(clock, targets);
  group.cancel();
  (void)co_await group.join();
  co_return Result<void>{};
}

Task<void> large_amounts_far_from_the_end(FakeClock& clock, Targets& targets) {
  targets.sent = 31 * mib;
  co_await pass_time(clock);
  EXPECT_EQ(targets.flushes, 0);
  targets.sent = 32 * mib;
  co_await pass_time(clock);
  EXPECT_EQ(targets.flushes, 1);
  targets.sent = 40 * mib;
  co_await pass_time(clock);
  EXPECT_EQ(targets.flushes, 1);
}

TEST(FlushAhead, OnlyLargeAmountsWhileTheEndIsFar) {
  must(run(with_targets(large_amounts_far_from_the_end)));
}

Task<void> anything_near_the_end(FakeClock& clock, Targets& targets) {
  targets.is_near = true;
  co_await pass_time(clock);
  EXPECT_EQ(targets.flushes, 0) << "nothing was sent";
  targets.sent = 4096;
  co_await pass_time(clock);
  EXPECT_EQ(targets.flushes, 1);
  targets.sent = 8192;
  co_await pass_time(clock);
  EXPECT_EQ(targets.flushes, 2);
}

TEST(FlushAhead, WhateverWasSentNearTheEnd) {
  must(run(with_targets(anything_near_the_end)));
}

Task<void> stops_at_an_error(FakeClock& clock, Targets& targets) {
  targets.is_near = targets.fails = true;
  targets.sent = 1;
  co_await pass_time(clock);
  targets.sent = 2;
  co_await pass_time(clock);
  EXPECT_EQ(targets.flushes, 1);
}

TEST(FlushAhead, EndsWithATargetThatFails) {
  must(run(with_targets(stops_at_an_error)));
}

}  // namespace
}  // namespace diskferry
