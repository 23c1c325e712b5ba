// Calls on threads of their own: what they return, and what happens to those that do not.
#include "gateway/hypervisor/call_threads.hpp"

#include "diskferry/task_group.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/test_runtime.hpp"

#include <future>
#include <thread>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;

/// Calls that hang until the test lets them go.
class Gate {
 public:
  ~Gate() { open(); }
  void open() {
    if (!std::exchange(is_open_, true)) promise_.set_value();
  }
  std::function<Result<void>()> hanging_call() {
    return [opened = opened_]() -> Result<void> {
      opened.wait();
      return {};
    };
  }

 private:
  bool is_open_ = false;
  std::promise<void> promise_;
  std::shared_future<void> opened_ = promise_.get_future().share();
};

CallTerms terms(Duration limit = std::chrono::seconds(60)) {
  return {.operation = "ask", .object = "host", .limit = limit};
}

TEST(CallThreads, ReturnsWhatTheCallReturned) {
  CallThreads threads(test::runtime().context().clock);
  EXPECT_EQ(must(run(threads.run_for<int>(terms(), []() -> Result<int> { return 7; }))), 7);
  const auto failed = run(threads.run_for<int>(
      terms(), []() -> Result<int> { return unexpected(fail(ErrorKind::in_use, "lock", "it")); }));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().kind(), ErrorKind::in_use);
  EXPECT_EQ(threads.stuck(), 0U);
}

TEST(CallThreads, RunsOutOfMemoryAsAnError) {
  CallThreads threads(test::runtime().context().clock);
  const auto failed = run(threads.run(terms(), []() -> Result<void> { throw std::bad_alloc(); }));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().kind(), ErrorKind::too_large);
}

TEST(CallThreads, LeavesBehindWhatHangsAndTakesItBack) {
  CallThreads threads(test::runtime().context().clock);
  Gate gate;
  const auto hung = run(threads.run(terms(std::chrono::milliseconds(1)), gate.hanging_call()));
  ASSERT_FALSE(hung);
  EXPECT_EQ(hung.error().kind(), ErrorKind::timed_out);
  EXPECT_EQ(threads.stuck(), 1U);
  must(run(threads.run(terms(), []() -> Result<void> { return {}; })));
  gate.open();
  EXPECT_TRUE(test::wait_until([&threads] { return threads.stuck() == 0; }));
}

TEST(CallThreads, RefusesMoreWhenTooManyHang) {
  CallThreads threads(test::runtime().context().clock);
  Gate gate;
  for (unsigned i = 0; i < CallThreads::stuck_max; ++i)
    EXPECT_FALSE(run(threads.run(terms(std::chrono::milliseconds(1)), gate.hanging_call())));
  bool was_called = false;
  const auto refused = run(threads.run(terms(), [&was_called]() -> Result<void> {
    was_called = true;
    return {};
  }));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::gone);
  EXPECT_FALSE(was_called);
  gate.open();
  EXPECT_TRUE(test::wait_until([&threads] { return threads.stuck() == 0; }));
  must(run(threads.run(terms(), []() -> Result<void> { return {}; })));
}

TEST(CallThreads, LeavesBehindWhatHangsOnALostConnection) {
  CallThreads threads(test::runtime().context().clock);
  Gate gate;
  auto lost = terms(Duration::max());
  lost.is_lost = [] { return true; };
  const auto hung = run(threads.run(std::move(lost), gate.hanging_call()));
  ASSERT_FALSE(hung);
  EXPECT_EQ(hung.error().kind(), ErrorKind::gone);
  EXPECT_EQ(threads.stuck(), 1U);
  must(run(threads.run(terms(), []() -> Result<void> { return {}; })));
  gate.open();
  EXPECT_TRUE(test::wait_until([&threads] { return threads.stuck() == 0; }));
}

Task<Result<void>> call_and_note(CallThreads& threads, std::function<Result<void>()> work,
                                 Result<void>& into) {
  into = co_await threads.run(terms(), std::move(work));
  co_return Result<void>{};
}
Task<Result<void>> cancel_while_it_runs(CallThreads& threads, Gate& gate, Result<void>& into) {
  TaskGroup group(co_await boost::asio::this_coro::executor);
  group.spawn(call_and_note(threads, gate.hanging_call(), into));
  group.cancel();
  gate.open();
  co_return co_await group.join();
}

TEST(CallThreads, WaitsForACallThoughCancelled) {
  CallThreads threads(test::runtime().context().clock);
  Gate gate;
  Result<void> result = unexpected(fail(ErrorKind::internal, "not called"));
  must(run(cancel_while_it_runs(threads, gate, result)));
  must(std::move(result));
}
}  // namespace
}  // namespace diskferry
