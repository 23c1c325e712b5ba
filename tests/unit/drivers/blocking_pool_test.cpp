// Calls that block: their value comes back, and one that nobody waits for any more is given up, not leaked.
#include "drivers/support/blocking_pool.hpp"

#include "diskferry/task_group.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>
#include <latch>

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
