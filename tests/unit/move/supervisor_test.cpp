// What is told to the one that moves the machine, and when it is given up; on a clock that the test moves.
#include "gateway/move/supervisor.hpp"

#include "gateway/move/persistence.hpp"
#include "tests/unit/move/move_scene.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry {
namespace {
using test::Calls;
using test::must;
using test::run;

class FakeMachine final : public LiveMachine {
 public:
  explicit FakeMachine(Calls& calls) : calls_(calls) {}
  Task<Result<LibvirtJob>> memory_job() override { co_return job; }
  Task<Result<void>> set_memory_rate(std::uint64_t bytes_per_s) override {
    return note("rate " + std::to_string(bytes_per_s));
  }
  Task<Result<void>> set_memory_pause_ms(std::uint64_t ms) override {
    return note("pause " + std::to_string(ms));
  }
  Task<Result<void>> abort() override { return note("abort"); }
  Task<Result<void>> suspend() override { return note("suspend"); }
  Task<Result<void>> start_post_copy() override { return note("post-copy"); }
  bool is_guest_stopped() const override { return false; }
  LibvirtJob job{.is_active = true};

 private:
  Task<Result<void>> note(std::string call) {
    calls_.push_back(std::move(call));
    co_return Result<void>{};
  }
  Calls& calls_;
};

class SupervisorTest : public test::MoveScene {
 protected:
  DriverContext& drivers() override { return fake_time; }

  /// Watches a move at `phase` for `seconds`; `meanwhile` is called after the first second.
  Result<void> watch(MoveRequest wanted, Phase phase, int seconds,
                     std::function<void(MoveContext&)> meanwhile = {}) {
    return run(watching(job_at(phase, wanted), seconds, std::move(meanwhile)));
  }
  std::size_t count(const std::string& call) const {
    return static_cast<std::size_t>(std::ranges::count(calls, call));
  }
  FakeClock clock;
  DriverContext fake_time{.reactors = test::runtime().context().reactors,
                          .blocking_pool = test::runtime().context().blocking_pool,
                          .buffers = test::runtime().context().buffers,
                          .clock = clock};
  FakeMachine machine{calls};
  Phase last_phase = Phase::planned;

 private:
  /// Both tasks of the supervisor sleep: everything until now has been done.
  Task<void> settle() {
    while (clock.sleepers() < 2)
      co_await boost::asio::post(co_await boost::asio::this_coro::executor,
                                 boost::asio::use_awaitable_t<Executor>{});
  }
  Task<Result<void>> watching(JobRecord job, int seconds, std::function<void(MoveContext&)> meanwhile) {
    MoveContext move(environment(), std::move(job));
    DISKFERRY_CO_CHECK(co_await move.load(std::chrono::hours(1)));
    move.disks = std::make_unique<SourceDisks>(fake_time, SourceDisksOptions{});
    Supervisor supervisor(move, machine);
    co_await supervisor.begin();
    for (int tenth = 0; tenth < 10 * seconds; ++tenth) {
      co_await settle();
      if (tenth == 10 && meanwhile) meanwhile(move);
      clock.advance(std::chrono::milliseconds(100));
    }
    co_await settle();
    co_await supervisor.end();
    has_timed_out = supervisor.has_timed_out();
    last_phase = move.state.phase;
    co_await move.stop_disks(false);
    co_return Result<void>{};
  }

 protected:
  bool has_timed_out = false;
};

TEST_F(SupervisorTest, ThePauseIsToldOnceAndAgainWhenItChanges) {
  must(watch(request(), Phase::bulk, 3, [](MoveContext& move) { move.max_pause_ms = 1000; }));
  EXPECT_EQ(calls, (Calls{"pause 180", "pause 600"}));
}

TEST_F(SupervisorTest, ARateIsToldUntilItIsLifted) {
  MoveRequest wanted = request();
  wanted.bytes_per_s = 1000;
  must(watch(wanted, Phase::bulk, 3, [](MoveContext& move) { move.bytes_per_s = 0; }));
  EXPECT_EQ(calls.front(), "rate 1000") << "with disks at rest the memory has it all";
  EXPECT_EQ(count("rate 0"), 1U);
}

TEST_F(SupervisorTest, LimitsAreNotToldBeforeThereIsAJob) {
  machine.job.is_active = false;
  must(watch(request(), Phase::bulk, 2));
  EXPECT_EQ(calls, Calls{});
}

TEST_F(SupervisorTest, MemoryThatGoesOverIsTheNextPhase) {
  machine.job.memory_processed_bytes = 1;
  must(watch(request(), Phase::bulk, 1));
  EXPECT_EQ(last_phase, Phase::delta);
}

struct TimeoutRow {
  const char* name;
  TimeoutAction action;
  Phase phase;
  const char* call;
  std::size_t times;
  bool gives_up;
};
class TimeoutTest : public SupervisorTest, public testing::WithParamInterface<TimeoutRow> {};
TEST_P(TimeoutTest, ActsOnce) {
  const TimeoutRow& row = GetParam();
  MoveRequest wanted = request();
  wanted.timeout_s = 2;
  wanted.timeout_action = row.action;
  wanted.post_copy = row.action == TimeoutAction::post_copy;
  must(watch(wanted, row.phase, 2));
  EXPECT_EQ(count(row.call), 0U) << "too early";
  calls.clear();
  wanted.domain = "vm2";
  must(watch(wanted, row.phase, 5));
  EXPECT_EQ(count(row.call), row.times);
  EXPECT_EQ(has_timed_out, row.gives_up);
}
INSTANTIATE_TEST_SUITE_P(
    Rows, TimeoutTest,
    testing::Values(TimeoutRow{"Abort", TimeoutAction::abort, Phase::bulk, "abort", 1, true},
                    TimeoutRow{"Suspend", TimeoutAction::suspend, Phase::bulk, "suspend", 1, false},
                    TimeoutRow{"PostCopy", TimeoutAction::post_copy, Phase::delta, "post-copy", 1, false},
                    TimeoutRow{"PostCopyNotBeforeTheMemory", TimeoutAction::post_copy, Phase::bulk,
                               "post-copy", 0, false}),
    [](const auto& row) { return row.param.name; });

TEST(MemoryPause, IsWhatTheWindowsLeaveAndNeverTooLittle) {
  EXPECT_EQ(memory_pause_ms(300), 180U);
  EXPECT_EQ(memory_pause_ms(10), 20U);
}

/// Fails `failures` times, and each time takes a second.
struct Flaky {
  FakeClock& clock;
  ErrorKind kind;
  int failures;
  int made = 0;

  Task<Result<void>> act() {
    clock.advance(std::chrono::seconds(1));
    if (++made <= failures) co_return unexpected(fail(kind, "try"));
    co_return Result<void>{};
  }
  Result<void> persisted() {
    return run(persist(clock, {.limit = std::chrono::seconds(3), .pause = {}}, [this] { return act(); }));
  }
};

TEST(Persist, TriesAgainWhileSomebodyMayComeBack) {
  FakeClock clock;
  Flaky flaky{.clock = clock, .kind = ErrorKind::gone, .failures = 2};
  must(flaky.persisted());
  EXPECT_EQ(flaky.made, 3);
}

TEST(Persist, EndsWithTheLimit) {
  FakeClock clock;
  Flaky flaky{.clock = clock, .kind = ErrorKind::timed_out, .failures = 100};
  test::expect_error(flaky.persisted(), ErrorKind::timed_out);
  EXPECT_EQ(flaky.made, 3);
}

TEST(Persist, DoesNotRepeatWhatWillFailAgain) {
  FakeClock clock;
  Flaky flaky{.clock = clock, .kind = ErrorKind::permission, .failures = 1};
  test::expect_error(flaky.persisted(), ErrorKind::permission);
  EXPECT_EQ(flaky.made, 1);
}

}  // namespace
}  // namespace diskferry
