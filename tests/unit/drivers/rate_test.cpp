#include "drivers/filters/rate.hpp"

#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/memory/memory_device.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <thread>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using std::chrono::milliseconds;
using std::chrono::seconds;
using test::must;
using test::run;
using test::runtime;
using test::wait_until;

/// A task that runs while the test's own thread moves the clock.
class Background {
 public:
  explicit Background(Task<Result<void>> task)
      : thread_([this, moved = std::make_shared<Task<Result<void>>>(std::move(task))] {
          result_ = run(std::move(*moved));
        }) {}
  Result<void> wait() {
    thread_.join();
    return result_;
  }

 private:
  Result<void> result_;
  std::thread thread_;
};

TEST(RateLimit, WaitsExactlyAsLongAsWhatIsOwedTakes) {
  FakeClock clock;
  RateLimit limit(clock, 1000, 100);
  EXPECT_TRUE(limit.try_take(600)) << "a request larger than the bucket goes ahead and owes the rest";
  EXPECT_FALSE(limit.try_take(1));
  Background waiter(limit.take(200));
  ASSERT_TRUE(wait_until([&] { return clock.sleepers() == 1; }));
  EXPECT_EQ(*clock.first_wake() - clock.now(), milliseconds(500));
  clock.advance(milliseconds(499));
  EXPECT_EQ(clock.sleepers(), 1u);
  clock.advance(milliseconds(1));
  must(waiter.wait());
  EXPECT_FALSE(limit.try_take(1)) << "the second request owes, too";
}

TEST(RateLimit, APauseSavesUpNoMoreThanTheBurst) {
  FakeClock clock;
  RateLimit limit(clock, 1000, 100);
  clock.advance(std::chrono::hours(1));
  EXPECT_TRUE(limit.try_take(100));
  EXPECT_TRUE(limit.try_take(1));
  EXPECT_FALSE(limit.try_take(1));
}

TEST(RateLimit, ANewRateHoldsForWhoeverWaitsNow) {
  FakeClock clock;
  RateLimit limit(clock, 1000, 1);
  EXPECT_TRUE(limit.try_take(10001));
  Background waiter(limit.take(1));
  ASSERT_TRUE(wait_until([&] { return clock.sleepers() == 1; }));
  EXPECT_EQ(*clock.first_wake() - clock.now(), seconds(10));
  limit.set_rate(10000, 1);
  ASSERT_TRUE(wait_until([&] {
    const auto wake = clock.first_wake();
    return wake && *wake - clock.now() == seconds(1);
  }));
  limit.set_rate(0);
  must(waiter.wait());
  EXPECT_TRUE(limit.try_take(1u << 30));
}

Task<Result<void>> take_and_cancel(RateLimit& limit, FakeClock& clock) {
  TaskGroup group(runtime().reactor(1));
  for (int i = 0; i < 5; ++i) group.spawn(limit.take(1));
  while (clock.sleepers() == 0)
    DISKFERRY_CO_CHECK(co_await runtime().context().clock.sleep_for(Duration(1000)));
  group.cancel();
  co_return co_await group.join();
}
TEST(RateLimit, CancellingIsImmediateAndTakesNothing) {
  FakeClock clock;
  RateLimit limit(clock, 1, 1);
  EXPECT_TRUE(limit.try_take(1001));
  const auto cancelled = run(take_and_cancel(limit, clock));
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().kind(), ErrorKind::cancelled);
  clock.advance(seconds(1000));
  EXPECT_TRUE(limit.try_take(1)) << "those who gave up took nothing and stand in nobody's way";
}

Task<Result<void>> take_in_order(RateLimit& limit, std::uint64_t bytes, std::vector<std::uint64_t>& order) {
  DISKFERRY_CO_CHECK(co_await limit.take(bytes));
  order.push_back(bytes);
  co_return Result<void>{};
}
Task<Result<void>> take_side_by_side(RateLimit& limit, std::vector<std::uint64_t>& order) {
  TaskGroup group(runtime().reactor(0));  // one reactor: `order` needs no lock, and they come in this order
  for (const std::uint64_t bytes : {3000u, 1u, 2000u, 2u, 3u})
    group.spawn(take_in_order(limit, bytes, order));
  co_return co_await group.join();
}
TEST(RateLimit, FirstComeFirstServedWhateverTheSize) {
  RateLimit limit(runtime().context().clock, 1 * mib, 1);
  EXPECT_TRUE(limit.try_take(20000));
  std::vector<std::uint64_t> order;
  must(run(take_side_by_side(limit, order)));
  EXPECT_EQ(order, (std::vector<std::uint64_t>{3000, 1, 2000, 2, 3}));
}

TEST(RateDevice, CountsBytesOfReadsAndWritesAndOfZerosWrittenAsData) {
  FakeClock clock;
  auto limit = std::make_shared<RateLimit>(clock, 1000, 100);
  auto device = checked(make_rate_device(
      checked(make_memory_device({.size_bytes = 64 * kib, .zero = ZeroSupport::none})), limit));
  std::vector<std::byte> bytes(300);
  must(run(device->write_zeroes({0, 600}, {})));
  EXPECT_FALSE(limit->try_take(1));
  clock.advance(milliseconds(500));
  must(run(device->read(0, bytes)));
  EXPECT_FALSE(device->try_read(0, bytes)) << "not now";
  clock.advance(milliseconds(300));
  must(run(device->write(0, bytes, {})));
  must(run(device->flush()));
  EXPECT_FALSE(limit->try_take(1));
  must(run(device->close()));
}

}  // namespace
}  // namespace diskferry
