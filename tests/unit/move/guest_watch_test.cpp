// Whether the guest is stopped: the event or the answer, whichever comes first.
#include "gateway/move/guest_watch.hpp"

#include "tests/support/test_runtime.hpp"

#include <atomic>

#include <boost/asio/this_coro.hpp>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;

const TimePoint noon{std::chrono::hours(12)};

/// A hypervisor that answers when it is let.
struct FakeHypervisor {
  AsyncEvent may_answer;
  AsyncEvent was_asked;
  std::atomic<int> questions = 0;
  bool says_stopped = false;
  bool fails = false;

  Task<Result<bool>> answer() {
    ++questions;
    was_asked.set();
    DISKFERRY_CO_CHECK(co_await may_answer.wait());
    if (fails) co_return unexpected(fail(ErrorKind::gone, "answer"));
    co_return says_stopped;
  }
};

struct Scene {
  explicit Scene(Executor executor)
      : watch(executor, [this] { return hypervisor.answer(); }), others(std::move(executor)) {}
  FakeHypervisor hypervisor;
  GuestWatch watch;
  TaskGroup others;
};

/// Runs `act` with a scene on this task's executor, and clears up.
Task<Result<bool>> in_scene(std::function<Task<Result<bool>>(Scene&)> act) {
  Scene scene(co_await boost::asio::this_coro::executor);
  auto result = co_await act(scene);
  scene.hypervisor.may_answer.set();
  co_await scene.watch.close();
  (void)co_await scene.others.join();
  co_return result;
}

Task<Result<bool>> asks(bool says, Scene& scene) {
  scene.hypervisor.says_stopped = says;
  scene.hypervisor.may_answer.set();
  co_return co_await scene.watch.is_stopped();
}
Task<Result<bool>> asks_and_learns_stopped(Scene& scene) {
  return asks(true, scene);
}
Task<Result<bool>> asks_and_learns_running(Scene& scene) {
  return asks(false, scene);
}

TEST(GuestWatch, TheHypervisorsAnswerCountsWhereNoEventCame) {
  EXPECT_TRUE(must(run(in_scene(asks_and_learns_stopped))));
  EXPECT_FALSE(must(run(in_scene(asks_and_learns_running))));
}

Task<Result<bool>> knows_already(Scene& scene) {
  scene.watch.stopped(noon);
  DISKFERRY_CO_TRY(const bool is_stopped, co_await scene.watch.is_stopped());
  EXPECT_EQ(scene.hypervisor.questions, 0);
  EXPECT_EQ(scene.watch.stopped_at(), noon);
  co_return is_stopped;
}

TEST(GuestWatch, NobodyIsAskedOnceAnEventCame) {
  EXPECT_TRUE(must(run(in_scene(knows_already))));
}

Task<Result<void>> tell_when_asked(Scene& scene) {
  DISKFERRY_CO_CHECK(co_await scene.hypervisor.was_asked.wait());
  scene.watch.stopped(noon);
  co_return Result<void>{};
}

Task<Result<bool>> event_overtakes_the_answer(Scene& scene) {
  scene.others.spawn(tell_when_asked(scene));
  co_return co_await scene.watch.is_stopped();  // would wait for ever for the answer
}

TEST(GuestWatch, AnEventOvertakesAHypervisorThatDoesNotAnswer) {
  EXPECT_TRUE(must(run(in_scene(event_overtakes_the_answer))));
}

Task<Result<bool>> runs_again(Scene& scene) {
  scene.watch.stopped(noon);
  scene.watch.resumed();
  EXPECT_FALSE(scene.watch.stopped_at());
  co_return co_await asks(false, scene);
}

TEST(GuestWatch, AGuestThatWasResumedIsAskedForAgain) {
  EXPECT_FALSE(must(run(in_scene(runs_again))));
}

Task<Result<bool>> question_fails(Scene& scene) {
  scene.hypervisor.fails = true;
  return asks(true, scene);
}

TEST(GuestWatch, AFailedQuestionIsTheCallersError) {
  const auto result = run(in_scene(question_fails));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind(), ErrorKind::gone);
}

}  // namespace
}  // namespace diskferry
