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

}  // namespace
}  // namespace diskferry
