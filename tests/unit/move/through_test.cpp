// Machines that go by way of storage of both hosts: which do, what speaks against it, and who has the
// machine.
#include "gateway/move/through_choice.hpp"
#include "tests/unit/move/move_scene.hpp"
#include "tests/unit/move/outcome_rows.hpp"
#include "tests/unit/move/preflight_facts.hpp"

#include <algorithm>

namespace diskferry::test {
namespace {

class FakeExports final : public DiskExports {
 public:
  bool has_export(const std::string& name) const override { return std::ranges::count(names, name) != 0; }
  std::string export_at(const ImageUri& storage) const override {
    if (storage.query("socket") != disk_socket()) return {};
    return storage.path().substr(1);
  }
  std::vector<std::string> disk_names() const override { return names; }
  std::optional<ExportStorage> storage_of(const std::string&) const override { return std::nullopt; }
  const std::string& disk_socket() const noexcept override { return socket_; }
  Task<Result<void>> offer_disk(EndpointRecord) override { co_return Result<void>{}; }
  Task<Result<void>> write_through(std::string, bool) override { co_return Result<void>{}; }
  Task<Result<void>> withdraw_disk(std::string) override { co_return Result<void>{}; }

  std::vector<std::string> names{"web:vda", "web:vdb"};

 private:
  std::string socket_ = "/run/disks/nbd.sock";
};

VmDisk on_export(std::string target, std::string name) {
  VmDisk disk{.target = std::move(target), .device = "disk", .source_type = "network"};
  disk.source = "nbd+unix:///" + name + "?socket=/run/disks/nbd.sock";
  return disk;
}

// --- which ------------------------------------------------------------------------------------------------

struct Choice {
  MoveRequest request{};
  VmDescription machine{};
  FakeExports exports{};
};
Choice good_choice() {
  Choice choice;
  choice.request.domain = choice.machine.name = "web";
  choice.request.disks = {{.target = "vda", .uri = "nfs://store/vm/web.raw"}};
  choice.machine.state = VmState::running;
  choice.machine.disks = {on_export("vda", "web:vda"), on_export("vdb", "web:vdb")};
  return choice;
}
struct ChoiceRow {
  std::string name;
  void (*change)(Choice&);
  bool goes_through;
};
void PrintTo(const ChoiceRow& row, std::ostream* out) {
  *out << row.name;
}
class ThroughChoice : public testing::TestWithParam<ChoiceRow> {};
TEST_P(ThroughChoice, IsThis) {
  Choice choice = good_choice();
  GetParam().change(choice);
  EXPECT_EQ(goes_through(choice.request, choice.machine, &choice.exports), GetParam().goes_through);
}
INSTANTIATE_TEST_SUITE_P(
    All, ThroughChoice,
    testing::Values(
        ChoiceRow{"an_export_to_nfs", [](Choice&) {}, true},
        ChoiceRow{"to_rbd", [](Choice& c) { c.request.disks[0].uri = "rbd:///pool/web"; }, true},
        ChoiceRow{"paused", [](Choice& c) { c.machine.state = VmState::paused; }, true},
        ChoiceRow{
            "two",
            [](Choice& c) { c.request.disks.push_back({.target = "vdb", .uri = "nfs://store/vm/b.raw"}); },
            true},
        ChoiceRow{"to_a_file", [](Choice& c) { c.request.disks[0].uri = "/new/web.raw"; }, false},
        ChoiceRow{"to_qcow2", [](Choice& c) { c.request.disks[0].format = "qcow2"; }, false},
        ChoiceRow{"no_disk_named", [](Choice& c) { c.request.disks.clear(); }, false},
        ChoiceRow{"no_such_disk", [](Choice& c) { c.request.disks[0].target = "vdz"; }, false},
        ChoiceRow{"a_file_here", [](Choice& c) { c.machine.disks[0].source = "/images/web.raw"; }, false},
        ChoiceRow{"one_of_two_is_a_file",
                  [](Choice& c) {
                    c.request.disks.push_back({.target = "vdb", .uri = "nfs://store/vm/b.raw"});
                    c.machine.disks[1].source = "/images/b.raw";
                  },
                  false},
        ChoiceRow{"an_export_of_another_gateway",
                  [](Choice& c) { c.machine.disks[0].source = "nbd+unix:///web:vda?socket=/run/other.sock"; },
                  false},
        ChoiceRow{"an_export_of_the_configuration", [](Choice& c) { c.exports.names = {"web:vdb"}; }, false},
        ChoiceRow{"cold", [](Choice& c) { c.request.cold = true; }, false},
        ChoiceRow{"shut_off", [](Choice& c) { c.machine.state = VmState::shut_off; }, false}),
    [](const auto& row) { return row.param.name; });

TEST(ThroughChoice, NeedsExports) {
  const Choice choice = good_choice();
  EXPECT_FALSE(goes_through(choice.request, choice.machine, nullptr));
}

// --- what speaks against it -------------------------------------------------------------------------------

void make_through(PreflightFacts& facts) {
  facts.goes_through = true;
  DiskFacts& disk = vda(facts);
  disk.disk = on_export("vda", "web:vda");
  disk.disk.format = "raw";
  disk.disk.cache = "none";
  disk.identity = "nbd:unix";
  disk.move = MoveDisk{.target = "vda", .uri = "nfs://store/vm/web.raw", .format = "raw"};
  facts.request.disks = {*disk.move};
  disk.own_export = "web:vda";
  disk.export_storage = "/old/web.raw";
  at_target(facts).can_create = true;
}
class PreflightThrough : public testing::TestWithParam<PreflightRow> {};
TEST_P(PreflightThrough, FindsExactlyThis) {
  check_row(GetParam());
}
using Facts = PreflightFacts;
INSTANTIATE_TEST_SUITE_P(
    All, PreflightThrough,
    testing::Values(
        PreflightRow{"good", make_through, {"note target-created vda", "note export-replaced vda"}},
        PreflightRow{"encrypted_memory",
                     [](Facts& f) {
                       make_through(f);
                       f.request.memory_tls = true;
                     },
                     {"note target-created vda", "note export-replaced vda"}},
        PreflightRow{"in_place",
                     [](Facts& f) {
                       make_through(f);
                       vda(f).is_in_place = true;
                       at_target(f) = {
                           .exists = true, .size_bytes = vda(f).size_bytes, .problem = "it is in use"};
                     },
                     {"note export-in-place vda"}},
        PreflightRow{"another_job",
                     [](Facts& f) {
                       make_through(f);
                       vda(f).export_storage.clear();
                     },
                     {"blocker export-busy vda", "note target-created vda"}},
        PreflightRow{
            "not_reached",
            [](Facts& f) {
              make_through(f);
              vda(f).not_reached_there = "no route";
            },
            {"blocker target-not-reached vda", "note target-created vda", "note export-replaced vda"}},
        PreflightRow{"post_copy",
                     [](Facts& f) {
                       make_through(f);
                       f.request.post_copy = true;
                     },
                     {"blocker post-copy-paused memory", "warning post-copy memory",
                      "note target-created vda", "note export-replaced vda"}},
        PreflightRow{
            "verify",
            [](Facts& f) {
              make_through(f);
              f.request.verify_running = true;
            },
            {"blocker verify-through machine", "note target-created vda", "note export-replaced vda"}},
        PreflightRow{
            "keep_source",
            [](Facts& f) {
              make_through(f);
              f.request.keep_source = true;
            },
            {"warning kept-source-through machine", "note target-created vda", "note export-replaced vda"}},
        PreflightRow{
            "keep_partial",
            [](Facts& f) {
              make_through(f);
              f.request.keep_partial = true;
            },
            {"warning keep-partial-through machine", "note target-created vda", "note export-replaced vda"}},
        PreflightRow{"in_place_and_mirrored",
                     [](Facts& f) {
                       make_through(f);
                       f.goes_through = false;
                       vda(f).is_in_place = true;
                     },
                     {"blocker same-storage vda", "note target-created vda"}}),
    [](const auto& row) { return row.param.name; });

TEST(Rehome, TellsWhereTheDiskComesFromAndGoes) {
  PreflightFacts facts = good_facts();
  make_through(facts);
  std::vector<MoveDiskState> disks{
      {.target = "vda", .source = "nbd+unix:...", .uri = "nfs://store/vm/web.raw"},
      {.target = "vdb", .source = "/both/b.raw", .route = DiskRoute::shared}};
  rehome(disks, facts);
  EXPECT_EQ(to_string(disks[0].route), "rehomed");
  EXPECT_EQ(disks[0].own_export, "web:vda");
  EXPECT_EQ(disks[0].source, "/old/web.raw");
  EXPECT_EQ(disks[0].own_storage, "nfs://store/vm/web.raw");
  EXPECT_EQ(to_string(disks[1].route), "shared");
  vda(facts).is_in_place = true;
  vda(facts).export_storage = "nfs://10.0.0.1/vm/web.raw";  // the same by another name
  rehome(disks, facts);
  EXPECT_EQ(disks[0].own_storage, disks[0].source);
}

TEST(TakesOver, UntilTheStorageIsHandedOver) {
  MoveState state{.way = MoveWayKind::through};
  state.disks = {{.target = "vda", .route = DiskRoute::rehomed, .own_export = "web:vda"}};
  JobRecord job{.kind = "migrate"};
  const auto takes = [&](Phase phase, const std::string& name) {
    state.phase = phase;
    job.state = to_json(state);
    return takes_over(job, name);
  };
  for (const Phase phase : {Phase::planned, Phase::bulk, Phase::delta, Phase::synchronized, Phase::switching})
    EXPECT_TRUE(takes(phase, "web:vda")) << to_string(phase);
  for (const Phase phase :
       {Phase::committed, Phase::retained, Phase::released, Phase::aborting, Phase::aborted})
    EXPECT_FALSE(takes(phase, "web:vda")) << to_string(phase);
  EXPECT_FALSE(takes(Phase::delta, "web:vdb"));
  job.kind = "replace";
  EXPECT_FALSE(takes(Phase::delta, "web:vda"));
}

class JobTakingOver : public MoveScene {
 protected:
  JobRecord move_of(const std::string& machine, Phase phase, JobStatus status) {
    JobRecord job = create({.kind = "migrate", .subject = machine, .request = "{}"});
    MoveState state{.phase = phase, .way = MoveWayKind::through};
    state.disks = {{.target = "vda", .route = DiskRoute::rehomed, .own_export = machine + ":vda"}};
    must(run(store->update(job.id, job.generation, {.status = status, .state = to_json(state)})));
    return job;
  }
  std::string found(const std::string& name, const std::string& but = {}) {
    return must(run(job_taking_over(*store, name, but)));
  }
};

TEST_F(JobTakingOver, IsFoundWhileItRunsAndWhenItHasFailed) {
  EXPECT_EQ(found("web:vda"), "");
  (void)move_of("web", Phase::released, JobStatus::done);
  (void)move_of("web", Phase::aborted, JobStatus::rolled_back);
  EXPECT_EQ(found("web:vda"), "");
  const JobRecord runs = move_of("web", Phase::delta, JobStatus::running);
  EXPECT_EQ(found("web:vda"), runs.id);
  EXPECT_EQ(found("web:vda", runs.id), "");
  EXPECT_EQ(found("web:vdb"), "");
  EXPECT_EQ(found("mail:vda"), "");
  const JobRecord failed = move_of("mail", Phase::synchronized, JobStatus::failed);
  EXPECT_EQ(found("mail:vda"), failed.id);
}

// --- who has it -------------------------------------------------------------------------------------------

class ThroughOutcome : public testing::TestWithParam<OutcomeRow> {};
TEST_P(ThroughOutcome, IsDecided) {
  EXPECT_EQ(to_string(decide_through(GetParam().said)), to_string(GetParam().expected));
}
INSTANTIATE_TEST_SUITE_P(
    Rows, ThroughOutcome,
    testing::Values(
        OutcomeRow{"ItWaitsThereAndIsGoneHere",
                   {.source = absent, .target = paused, .target_has_arrived = true},
                   Outcome::committed},
        OutcomeRow{"ItWaitsThereAndIsDefinedHere",
                   {.source = shut_off, .target = paused, .target_has_arrived = true},
                   Outcome::committed},
        OutcomeRow{"ItWaitsThereAndIsStoppedHere",
                   {.source = paused, .target = paused, .source_waits = true, .target_has_arrived = true},
                   Outcome::committed},
        OutcomeRow{"ItWaitsThereAndRunsHere",
                   {.source = running, .target = paused, .target_has_arrived = true},
                   Outcome::stop_target},
        OutcomeRow{"ItHasNotArrivedAndRunsHere", {.source = running, .target = paused}, Outcome::stop_target},
        OutcomeRow{"ItHasNotArrivedAndIsStoppedHere",
                   {.source = paused, .target = paused, .source_waits = true},
                   Outcome::resume_source},
        OutcomeRow{"ItHasNotArrivedAndIsGoneHere", {.source = absent, .target = paused}, Outcome::undecided},
        OutcomeRow{"ItRunsHereAlone", {.source = running, .target = absent}, Outcome::rolled_back},
        OutcomeRow{"ItIsStoppedHereAlone",
                   {.source = paused, .target = absent, .source_waits = true},
                   Outcome::resume_source},
        OutcomeRow{"AnOperatorLetItGoOnThere", {.source = shut_off, .target = running}, Outcome::committed},
        OutcomeRow{"AnOperatorLetItGoOnThereToo", {.source = running, .target = running}, Outcome::split},
        OutcomeRow{"TheMemoryGoesOver",
                   {.source = running, .target = paused, .source_job_active = true},
                   Outcome::undecided},
        OutcomeRow{
            "ItRunsHereAndTheOtherIsSilent", {.source = running, .target = unknown}, Outcome::undecided},
        OutcomeRow{"ItRunsThereAndThisIsSilent", {.source = unknown, .target = running}, Outcome::undecided},
        OutcomeRow{"ItShutItselfDown", {.source = shut_off, .target = absent}, Outcome::ended}),
    [](const auto& row) { return row.param.name; });

/// What holds for every combination, whatever the table says.
TEST(ThroughOutcome, HandsOverOnlyWhatIsGoneOrStoppedHere) {
  const std::vector<std::optional<VmState>> states{unknown, absent, shut_off, running, paused, crashed};
  for (const auto source : states) {
    for (const auto target : states) {
      for (unsigned bits = 0; bits < 16; ++bits) {
        const WhoRuns said{.source = source,
                           .target = target,
                           .source_job_active = (bits & 1) != 0,
                           .was_paused = (bits & 2) != 0,
                           .source_waits = (bits & 4) != 0,
                           .target_has_arrived = (bits & 8) != 0};
        const Outcome outcome = decide_through(said);
        const auto where = testing::Message() << "source " << (source ? to_string(*source) : "unknown")
                                              << ", target " << (target ? to_string(*target) : "unknown")
                                              << ", bits " << bits << ": " << to_string(outcome);
        if (!source || !target || said.source_job_active) EXPECT_EQ(outcome, Outcome::undecided) << where;
        if (outcome == Outcome::committed) {
          EXPECT_NE(source, running) << where;
          EXPECT_TRUE(target == running || (target == paused && said.target_has_arrived)) << where;
        }
        // The storage stays open here, so that nobody may be left there who could open it.
        if (outcome == Outcome::rolled_back) EXPECT_FALSE(target == running || target == paused) << where;
        if (outcome == Outcome::stop_target || outcome == Outcome::resume_source)
          EXPECT_NE(target, running) << where;
        EXPECT_EQ(outcome == Outcome::split,
                  !said.source_job_active && source == running && target == running)
            << where;
      }
    }
  }
}

}  // namespace
}  // namespace diskferry::test
