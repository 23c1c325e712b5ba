// The list of steps, the undo point, and what a process does that finds a move at any phase.
#include "gateway/move/coordinator.hpp"

#include "tests/unit/move/move_scene.hpp"

namespace diskferry {
namespace {
using test::Calls;
using test::must;
using test::run;

/// What a way is to do in one test.
struct Script {
  std::string fails_at{};           ///< the step that fails
  ErrorKind kind = ErrorKind::io;   ///< of its error
  bool is_known_to_be_here = true;  ///< after a failure
  bool is_there = false;            ///< what is found out after a crash
  bool is_revertible = false;
};

class FakeWay final : public MoveWay {
 public:
  FakeWay(MoveContext& move, const Script& script, Calls& calls)
      : move_(move), script_(script), calls_(calls) {}

  Task<Result<void>> connect() override {
    DISKFERRY_CO_CHECK(step("connect"));
    co_return co_await move_.connect_gateway();
  }
  Task<Result<void>> connect_here() override { co_return step("connect here"); }
  Task<Result<void>> prepare() override { co_return step("prepare"); }
  Task<Result<void>> migrate() override {
    DISKFERRY_CO_CHECK(co_await move_.enter(Phase::bulk));
    DISKFERRY_CO_CHECK(step("migrate"));
    DISKFERRY_CO_CHECK(co_await move_.enter(Phase::synchronized));
    co_return co_await move_.enter(Phase::switching);
  }
  Task<Result<void>> guest_first() override { co_return step("guest first"); }
  Task<Result<void>> settle() override {
    DISKFERRY_CO_CHECK(step("settle"));
    if (script_.is_there) co_return Result<void>{};
    co_return unexpected(fail(ErrorKind::gone, "migrate").why("it is here"));
  }
  bool may_undo() const override { return script_.is_known_to_be_here; }
  void refuse() override { (void)step("refuse"); }
  Task<void> undo() override {
    (void)step("undo");
    co_return;
  }
  Task<void> let_source_go() override {
    (void)step("let go");
    co_return;
  }
  bool is_revertible() const override { return script_.is_revertible; }
  Task<Result<void>> take_from_target() override {
    if (!script_.is_revertible) co_return co_await MoveWay::take_from_target();
    DISKFERRY_CO_CHECK(step("take back"));
    co_return co_await move_.enter(Phase::aborting);
  }
  Task<void> close() override { co_return; }

 private:
  Result<void> step(const std::string& name) {
    calls_.push_back(name);
    if (name == script_.fails_at) return unexpected(fail(script_.kind, name).why("as the script says"));
    return {};
  }
  MoveContext& move_;
  const Script& script_;
  Calls& calls_;
};

class CoordinatorTest : public test::MoveScene {
 protected:
  std::unique_ptr<Coordinator> coordinator(const JobRecord& job) {
    return std::make_unique<Coordinator>(environment(), job, [this](MoveContext& move) {
      return std::make_unique<FakeWay>(move, script, calls);
    });
  }
  /// Runs a move from `phase`, and returns its record.
  JobRecord act(Phase phase, const MoveRequest& wanted = request()) {
    const JobRecord job = job_at(phase, wanted);
    result = run(coordinator(job)->run());
    return load(job);
  }
  static void expect_at(const JobRecord& job, Phase phase, JobStatus status) {
    EXPECT_EQ(job.phase, to_string(phase));
    EXPECT_EQ(to_string(job.status), to_string(status));
  }
  Script script;
  Result<void> result;
};

TEST_F(CoordinatorTest, AMoveGoesThroughItsSteps) {
  const JobRecord job = act(Phase::planned);
  must(result);
  EXPECT_EQ(calls, (Calls{"connect", "prepare", "migrate", "finish keep", "let go"}));
  expect_at(job, Phase::released, JobStatus::done);
}

class FailingStepTest : public CoordinatorTest, public testing::WithParamInterface<const char*> {};
TEST_P(FailingStepTest, IsUndone) {
  script.fails_at = GetParam();
  const JobRecord job = act(Phase::planned);
  ASSERT_FALSE(result);
  EXPECT_EQ(job.error, result.error().message());
  expect_at(job, Phase::aborted, JobStatus::rolled_back);
  EXPECT_EQ((Calls{calls.end() - 4, calls.end()}),
            (Calls{script.fails_at, "refuse", "undo", "finish remove"}));
}
INSTANTIATE_TEST_SUITE_P(Each, FailingStepTest, testing::Values("connect", "prepare", "migrate"));

TEST_F(CoordinatorTest, NothingIsRemovedWhileNobodyKnowsWhoHasTheMachine) {
  script = {.fails_at = "migrate", .kind = ErrorKind::timed_out, .is_known_to_be_here = false};
  const JobRecord job = act(Phase::planned);
  ASSERT_FALSE(result);
  EXPECT_EQ(calls, (Calls{"connect", "prepare", "migrate"}));
  expect_at(job, Phase::bulk, JobStatus::failed);
}

TEST_F(CoordinatorTest, WhatWasSentStaysWhereItIsToBeKept) {
  script.fails_at = "migrate";
  MoveRequest wanted = request();
  wanted.keep_partial = true;
  act(Phase::planned, wanted);
  EXPECT_EQ(calls.back(), "finish leave");
}

TEST_F(CoordinatorTest, ACancelledMoveSaysWhereTheMachineIs) {
  script = {.fails_at = "migrate", .kind = ErrorKind::cancelled};
  const JobRecord job = act(Phase::planned);
  expect_at(job, Phase::aborted, JobStatus::cancelled);
  EXPECT_NE(job.error.find("the machine stays on host-a"), std::string::npos) << job.error;
}

struct CrashRow {
  Phase found;
  bool is_there;
  Phase ends;
  JobStatus status;
  Calls expected;  ///< after "guest first" and "connect"
};
class CrashTest : public CoordinatorTest, public testing::WithParamInterface<CrashRow> {};
TEST_P(CrashTest, EndsWhereTheMachineIs) {
  const CrashRow& row = GetParam();
  script.is_there = row.is_there;
  const JobRecord job = act(row.found);
  EXPECT_EQ(result.has_value(), row.status == JobStatus::done);
  expect_at(job, row.ends, row.status);
  Calls expected{"guest first", "connect"};
  expected.insert(expected.end(), row.expected.begin(), row.expected.end());
  EXPECT_EQ(calls, expected);
}
const Calls undone{"refuse", "undo", "finish remove"};
const Calls settled_here{"settle", "refuse", "undo", "finish remove"};
const Calls settled_there{"settle", "finish keep", "let go"};
INSTANTIATE_TEST_SUITE_P(
    Rows, CrashTest,
    testing::Values(
        CrashRow{Phase::prepared, false, Phase::aborted, JobStatus::rolled_back, undone},
        CrashRow{Phase::bulk, false, Phase::aborted, JobStatus::rolled_back, settled_here},
        CrashRow{Phase::bulk, true, Phase::released, JobStatus::done, settled_there},
        CrashRow{Phase::delta, false, Phase::aborted, JobStatus::rolled_back, settled_here},
        CrashRow{Phase::delta, true, Phase::released, JobStatus::done, settled_there},
        CrashRow{Phase::synchronized, false, Phase::aborted, JobStatus::rolled_back, settled_here},
        CrashRow{Phase::synchronized, true, Phase::released, JobStatus::done, settled_there},
        CrashRow{Phase::switching, false, Phase::aborted, JobStatus::rolled_back, settled_here},
        CrashRow{Phase::switching, true, Phase::released, JobStatus::done, settled_there},
        CrashRow{Phase::committed, true, Phase::released, JobStatus::done, {"finish keep", "let go"}},
        CrashRow{Phase::retained, true, Phase::released, JobStatus::done, {"let go"}},
        CrashRow{Phase::aborting, false, Phase::aborted, JobStatus::rolled_back, undone}),
    [](const auto& row) {
      return std::string(to_string(row.param.found)) + (row.param.is_there ? "There" : "Here");
    });

TEST_F(CoordinatorTest, AKeptSourceIsLetGoOnlyWhenToldTo) {
  MoveRequest wanted = request();
  wanted.keep_source = true;
  const JobRecord kept = act(Phase::planned, wanted);
  must(result);
  expect_at(kept, Phase::retained, JobStatus::paused);
  EXPECT_EQ(calls.back(), "finish keep");
  must(run(store->end_leases()));
  script.fails_at = "connect";  // the other host is gone by now
  must(run(coordinator(kept)->release()));
  EXPECT_EQ((Calls{calls.end() - 2, calls.end()}), (Calls{"connect here", "let go"}));
  expect_at(load(kept), Phase::released, JobStatus::done);
}

TEST_F(CoordinatorTest, AMoveThatCanBeTakenBackIsTakenBack) {
  script.is_revertible = true;
  MoveRequest wanted = request();
  wanted.keep_source = true;
  const JobRecord kept = act(Phase::planned, wanted);
  EXPECT_EQ(calls.back(), "migrate") << "the other gateway keeps its record, or nothing could be removed";
  must(run(store->end_leases()));
  must(run(coordinator(kept)->revert()));
  EXPECT_EQ((Calls{calls.end() - 2, calls.end()}), (Calls{"take back", "finish remove"}));
  expect_at(load(kept), Phase::aborted, JobStatus::rolled_back);
}

TEST_F(CoordinatorTest, AMachineThatMovedWhileItRanIsNotTakenBack) {
  MoveRequest wanted = request();
  wanted.keep_source = true;
  const JobRecord kept = act(Phase::planned, wanted);
  must(run(store->end_leases()));
  test::expect_error(run(coordinator(kept)->revert()), ErrorKind::in_use, "moved while it ran");
  expect_at(load(kept), Phase::retained, JobStatus::paused);
}

TEST_F(CoordinatorTest, OnlyARetainedSourceIsLetGo) {
  const JobRecord job = job_at(Phase::bulk, request());
  test::expect_error(run(coordinator(job)->release()), ErrorKind::in_use, "it is bulk");
  EXPECT_TRUE(calls.empty());
}

}  // namespace
}  // namespace diskferry
