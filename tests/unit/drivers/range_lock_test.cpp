#include "drivers/support/range_lock.hpp"

#include "diskferry/task_group.hpp"
#include "tests/support/test_runtime.hpp"

#include <array>
#include <atomic>
#include <random>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;
using Mode = RangeLock::Mode;

TEST(RangeLock, SharedOverlapAndExclusiveDoNot) {
  RangeLock lock;
  RangeLock::Hold first;
  RangeLock::Hold second;
  RangeLock::Hold third;
  EXPECT_TRUE(lock.try_lock(first, {0, 100}, Mode::shared));
  EXPECT_TRUE(lock.try_lock(second, {50, 100}, Mode::shared));
  EXPECT_FALSE(lock.try_lock(third, {99, 1}, Mode::exclusive));
  EXPECT_TRUE(lock.try_lock(third, {150, 1}, Mode::exclusive));
  second.release();
  EXPECT_FALSE(lock.try_lock(second, {150, 1}, Mode::shared));
  EXPECT_TRUE(lock.try_lock(second, {151, 1}, Mode::shared));
}

constexpr std::size_t cells = 16;
struct Board {
  RangeLock lock;
  std::array<std::atomic<int>, cells> users{};  // readers count 1, a writer 1000
  std::atomic<bool> broken = false;
};
Task<Result<void>> use(Board& board, unsigned seed, bool may_be_cancelled) {
  std::mt19937 random(seed);
  for (int i = 0; i < 400; ++i) {
    const std::uint64_t offset = random() % cells;
    const Range range{offset, 1 + random() % (cells - offset)};
    const Mode mode = random() % 3 == 0 ? Mode::exclusive : Mode::shared;
    RangeLock::Hold hold;
    const auto locked = co_await board.lock.lock(hold, range, mode);
    if (!locked) {
      if (may_be_cancelled) co_return locked;
      co_return unexpected(fail(ErrorKind::internal, "lock"));
    }
    const int weight = mode == Mode::exclusive ? 1000 : 1;
    for (std::uint64_t at = range.offset; at < range.end(); ++at) {
      const int before = board.users[at].fetch_add(weight);
      if (before >= 1000 || (weight == 1000 && before != 0)) board.broken = true;
    }
    DISKFERRY_CO_CHECK(co_await runtime().context().clock.sleep_for(std::chrono::microseconds(random() % 3)));
    for (std::uint64_t at = range.offset; at < range.end(); ++at) board.users[at].fetch_sub(weight);
  }
  co_return Result<void>{};
}
Task<Result<void>> use_from_many(Board& board, unsigned seed, bool cancel_some) {
  TaskGroup group(runtime().reactor(0));
  TaskGroup cancelled(runtime().reactor(0));
  for (unsigned i = 0; i < 8; ++i) group.spawn_on(runtime().reactor(i), use(board, seed + i, false));
  if (cancel_some) {
    for (unsigned i = 0; i < 8; ++i)
      cancelled.spawn_on(runtime().reactor(i), use(board, seed + 50 + i, true));
    DISKFERRY_CO_CHECK(co_await runtime().context().clock.sleep_for(std::chrono::milliseconds(3)));
    cancelled.cancel();
    (void)co_await cancelled.join();
    // What was cancelled while it slept left its marks on the board; only the lock itself is judged then.
  }
  co_return co_await group.join();
}
TEST(RangeLock, ExclusiveIsAloneAndEverybodyGetsATurn) {
  Board board;
  must(run(use_from_many(board, 1, false)));
  EXPECT_FALSE(board.broken);
  EXPECT_EQ(board.lock.size(), 0u);
}
TEST(RangeLock, CancelledWaitersLeaveNothingBehind) {
  Board board;
  must(run(use_from_many(board, 2, true)));
  EXPECT_EQ(board.lock.size(), 0u);
}

Task<Result<void>> take(RangeLock& lock, Range range, Mode mode) {
  RangeLock::Hold hold;
  co_return co_await lock.lock(hold, range, mode);
}
Task<Result<void>> shared_waits_behind_exclusive(RangeLock& lock) {
  TaskGroup group(runtime().reactor(0));
  RangeLock::Hold first;
  if (!lock.try_lock(first, {0, 10}, Mode::shared)) co_return unexpected(fail(ErrorKind::internal, "lock"));
  group.spawn(take(lock, {0, 10}, Mode::exclusive));
  while (lock.size() < 2) DISKFERRY_CO_CHECK(co_await runtime().context().clock.sleep_for(Duration(1000)));
  RangeLock::Hold second;
  EXPECT_FALSE(lock.try_lock(second, {5, 1}, Mode::shared)) << "a waiting exclusive lock would starve";
  EXPECT_TRUE(lock.try_lock(second, {10, 1}, Mode::shared));
  first.release();
  co_return co_await group.join();
}
TEST(RangeLock, SharedHoldersDoNotStarveAnExclusiveOne) {
  RangeLock lock;
  must(run(shared_waits_behind_exclusive(lock)));
  EXPECT_EQ(lock.size(), 0u);
}

}  // namespace
}  // namespace diskferry
