// Calls that block: their value comes back, and one that nobody waits for any more is given up, not leaked.
#include "drivers/support/blocking_pool.hpp"

#include "diskferry/task_group.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>
#include <latch>
#include <thread>
#include <vector>

namespace diskferry::test {
namespace {

Task<Result<void>> call_and_keep(BlockingPool& pool, std::latch& may_end, std::shared_ptr<int> owned,
                                 std::optional<std::optional<std::shared_ptr<int>>>& into) {
  into = co_await pool.run_or_give_up([&may_end, owned = std::move(owned)] {
    may_end.wait();
    return owned;
  });
  co_return Result<void>{};
}

TEST(BlockingPool, GivesTheValueBack) {
  BlockingPool pool(1);
  std::latch may_end(0);
  std::optional<std::optional<std::shared_ptr<int>>> got;
  must(run(call_and_keep(pool, may_end, std::make_shared<int>(7), got)));
  ASSERT_TRUE(got && *got);
  EXPECT_EQ(***got, 7);
}

Task<Result<void>> meet(BlockingPool& pool, std::latch& all, std::thread::id& in) {
  in = co_await pool.run([&all] {
    if (!all.try_wait()) all.arrive_and_wait();
    return std::this_thread::get_id();
  });
  co_return Result<void>{};
}
Task<Result<void>> meet_twice(BlockingPool& pool, std::latch& all, std::vector<std::thread::id>& in) {
  TaskGroup group(runtime().reactor(0));
  for (std::thread::id& each : in) group.spawn(meet(pool, all, each));
  co_return co_await group.join();
}

TEST(BlockingPool, HasAThreadForEachCallAndNoMore) {
  BlockingPool pool(8);
  std::thread::id first;
  std::thread::id second;
  std::latch alone(0);
  must(run(meet(pool, alone, first)));
  must(run(meet(pool, alone, second)));
  EXPECT_EQ(first, second) << "the one that there was";
  EXPECT_NE(first, std::this_thread::get_id());
  std::latch both(2);
  std::vector<std::thread::id> in(2);
  must(run(meet_twice(pool, both, in)));
  EXPECT_NE(in[0], in[1]);
}

Task<Result<void>> call_right_there(BlockingPool& pool, bool& was_there) {
  const auto here = std::this_thread::get_id();
  was_there = co_await pool.run([here] { return std::this_thread::get_id() == here; });
  co_return Result<void>{};
}

TEST(BlockingPool, WithoutThreadsCallsRightThere) {
  BlockingPool pool(0);
  bool was_there = false;
  must(run(call_right_there(pool, was_there)));
  EXPECT_TRUE(was_there);
  std::latch alone(0);
  std::optional<std::optional<std::shared_ptr<int>>> got;
  must(run(call_and_keep(pool, alone, std::make_shared<int>(7), got)));
  ASSERT_TRUE(got && *got);
  EXPECT_EQ(***got, 7);
}

Task<Result<void>> cancel_the_call(BlockingPool& pool, std::latch& may_end, std::shared_ptr<int> owned,
                                   std::optional<std::optional<std::shared_ptr<int>>>& into) {
  TaskGroup group(runtime().reactor(0));
  group.spawn(call_and_keep(pool, may_end, std::move(owned), into));
  DISKFERRY_CO_CHECK(co_await runtime().context().clock.sleep_for(std::chrono::milliseconds(20)));
  group.cancel();
  co_return co_await group.join();
}

TEST(BlockingPool, DoesNotLetACancelledTaskWait) {
  std::latch may_end(1);
  std::weak_ptr<int> seen;
  {
    BlockingPool pool(1);
    auto owned = std::make_shared<int>(7);
    seen = owned;
    std::optional<std::optional<std::shared_ptr<int>>> got;
    (void)run(cancel_the_call(pool, may_end, std::move(owned), got));
    ASSERT_TRUE(got) << "it ended while the call is still blocked";
    EXPECT_FALSE(*got);
    EXPECT_FALSE(seen.expired()) << "the call owns what it uses";
    may_end.count_down();
  }
  EXPECT_TRUE(seen.expired());
}

}  // namespace
}  // namespace diskferry::test
