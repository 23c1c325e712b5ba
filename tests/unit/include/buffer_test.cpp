#include "diskferry/buffer.hpp"

#include "diskferry/task_group.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;

Task<Result<void>> borrow(BufferPool& pool, std::size_t bytes) {
  for (int i = 0; i < 200; ++i) {
    DISKFERRY_CO_TRY(auto buffer, co_await pool.acquire(bytes));
    if (pool.leased_bytes() > pool.limit_bytes())
      co_return unexpected(fail(ErrorKind::internal, "over the limit"));
    buffer.data()[bytes - 1] = std::byte{1};
  }
  co_return Result<void>{};
}
Task<Result<void>> borrow_side_by_side(BufferPool& pool) {
  TaskGroup group(runtime().reactor(0));
  for (std::size_t i = 0; i < 8; ++i) group.spawn_on(runtime().reactor(i), borrow(pool, 5000 << i));
  co_return co_await group.join();
}

TEST(BufferPool, StaysUnderItsLimitAndGetsEverythingBack) {
  BufferPool pool(2u << 20);
  must(run(borrow_side_by_side(pool)));
  EXPECT_EQ(pool.leased_bytes(), 0u);
}
TEST(BufferPool, TryAcquireSaysNoInsteadOfWaiting) {
  BufferPool pool(8192);
  Buffer first = pool.try_acquire(8192);
  ASSERT_TRUE(first);
  EXPECT_FALSE(pool.try_acquire(1));
  first.reset();
  EXPECT_TRUE(pool.try_acquire(1));
}

Task<Result<void>> hold_until(BufferPool& pool, std::size_t bytes, AsyncEvent& release) {
  DISKFERRY_CO_TRY(const auto buffer, co_await pool.acquire(bytes));
  co_return co_await release.wait();
}
Task<Result<void>> cancel_waiting(BufferPool& pool) {
  AsyncEvent release;
  TaskGroup holders(runtime().reactor(0));
  TaskGroup waiters(runtime().reactor(1));
  holders.spawn(hold_until(pool, pool.limit_bytes(), release));
  while (pool.leased_bytes() == 0)
    DISKFERRY_CO_CHECK(co_await runtime().context().clock.sleep_for(std::chrono::microseconds(50)));
  for (std::size_t i = 0; i < 8; ++i)
    waiters.spawn_on(runtime().reactor(i), hold_until(pool, 4096 << i, release));
  waiters.cancel();
  const auto waited = co_await waiters.join();
  release.set();
  DISKFERRY_CO_CHECK(co_await holders.join());
  co_return waited;
}
TEST(BufferPool, WhoGivesUpWaitingTakesNothing) {
  BufferPool pool(1u << 20);
  for (int i = 0; i < 50; ++i) {
    const auto waited = run(cancel_waiting(pool));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().kind(), ErrorKind::cancelled);
    EXPECT_EQ(pool.leased_bytes(), 0u);
  }
}

TEST(BufferPool, AnOversizedRequestIsServedAloneAndMovesKeepOneOwner) {
  BufferPool pool(64u << 10);
  Buffer large = must(run(pool.acquire(100000)));  // more than the limit: counts as all of it
  EXPECT_EQ(pool.leased_bytes(), pool.limit_bytes());
  EXPECT_FALSE(pool.try_acquire(1));
  Buffer moved = std::move(large);
  EXPECT_FALSE(large);  // NOLINT(bugprone-use-after-move): that it is empty is what is tested
  EXPECT_EQ(moved.size(), 100000u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(moved.data()) % BufferPool::alignment, 0u);
  moved = {};
  EXPECT_EQ(pool.leased_bytes(), 0u);
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
TEST(BufferPool, AddressSanitizerSeesUseAfterGivingBack) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  BufferPool pool(64u << 10);
  Buffer buffer = pool.try_acquire(5000);
  volatile std::byte* data = buffer.data();
  EXPECT_DEATH(data[5000] = std::byte{1}, "use-after-poison") << "a byte too far";
  buffer.reset();
  EXPECT_DEATH(data[0] = std::byte{1}, "use-after-poison");
}
#endif
#endif

}  // namespace
}  // namespace diskferry
