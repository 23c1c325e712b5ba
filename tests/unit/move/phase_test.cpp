// Which phase may follow which, and which host has the machine: both decide over the guest's data, so both
// are gone through completely.
#include "gateway/move/phase.hpp"

#include "tests/unit/move/outcome_rows.hpp"

#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace diskferry::test {
namespace {

std::vector<Phase> all_phases() {
  std::vector<Phase> all;
  for (std::size_t i = 0; i < phase_count; ++i) all.push_back(static_cast<Phase>(i));
  return all;
}

TEST(Phase, HasExactlyTheseArrows) {
  using enum Phase;
  const std::set<std::pair<Phase, Phase>> arrows{
      {planned, prepared},       {prepared, bulk},         {bulk, delta},
      {bulk, synchronized},      {delta, synchronized},    {synchronized, delta},
      {synchronized, switching}, {switching, delta},       {switching, committed},
      {committed, retained},     {retained, released},     {retained, aborting},
      {planned, aborting},       {prepared, aborting},     {bulk, aborting},
      {delta, aborting},         {synchronized, aborting}, {switching, aborting},
      {aborting, aborted}};
  for (const Phase from : all_phases()) {
    for (const Phase to : all_phases())
      EXPECT_EQ(may_follow(from, to), from == to || arrows.contains({from, to}))
          << to_string(from) << " -> " << to_string(to);
  }
}

TEST(Phase, EverythingBeforeCommittedCanBeUndoneAndNothingAfter) {
  for (const Phase phase : all_phases()) {
    const bool is_before = phase != Phase::committed && phase != Phase::retained && phase != Phase::released;
    EXPECT_EQ(can_undo(phase), is_before && phase != Phase::aborted) << to_string(phase);
    // A cold move that is retained can be taken back, by an operator and never by itself.
    EXPECT_EQ(may_follow(phase, Phase::aborting), can_undo(phase) || phase == Phase::retained)
        << to_string(phase);
    EXPECT_EQ(is_final(phase), phase == Phase::released || phase == Phase::aborted) << to_string(phase);
  }
}

TEST(Phase, NothingLeadsBackOverTheCommitOrOutOfAnEnd) {
  for (const Phase from : all_phases()) {
    for (const Phase to : all_phases()) {
      if (!may_follow(from, to) || from == to) continue;
      EXPECT_FALSE(is_final(from)) << to_string(from) << " -> " << to_string(to);
      const bool is_taken_back = from == Phase::retained && to == Phase::aborting;
      EXPECT_EQ(!can_undo(from) && can_undo(to), is_taken_back) << to_string(from) << " -> " << to_string(to);
    }
  }
}

TEST(Phase, NamesAreReadBackAndWordsAreKnown) {
  std::set<std::string_view> names;
  for (const Phase phase : all_phases()) {
    names.insert(to_string(phase));
    EXPECT_EQ(phase_named(to_string(phase)), phase);
    EXPECT_FALSE(operators_word(phase).empty());
  }
  EXPECT_EQ(names.size(), phase_count);
  for (const char* wrong : {"", "Planned", "committed ", "pre-copy", "99"})
    EXPECT_EQ(phase_named(wrong), std::nullopt) << wrong;
}

class OutcomeTest : public testing::TestWithParam<OutcomeRow> {};

TEST_P(OutcomeTest, IsDecided) {
  EXPECT_EQ(to_string(decide(GetParam().said)), to_string(GetParam().expected));
}
INSTANTIATE_TEST_SUITE_P(
    Rows, OutcomeTest,
    testing::Values(
        OutcomeRow{"TheTargetRunsAndTheSourceIsGone", {absent, running}, Outcome::committed},
        OutcomeRow{"TheTargetRunsAndTheSourceKeptItsDefinition", {shut_off, running}, Outcome::committed},
        OutcomeRow{"TheTargetRunsBeforeTheSourceWasRemoved", {paused, running}, Outcome::committed},
        OutcomeRow{"TheTargetRunsAndTheSourceCrashed", {crashed, running}, Outcome::committed},
        OutcomeRow{"TheTargetRunsAndTheSourceIsAway", {unknown, running}, Outcome::committed},
        OutcomeRow{"APausedGuestArrivedPaused",
                   {.source = absent, .target = paused, .was_paused = true, .target_has_arrived = true},
                   Outcome::committed},
        OutcomeRow{"APausedGuestArrivedAndTheSourceWasNotEnded",
                   {.source = paused,
                    .target = paused,
                    .was_paused = true,
                    .source_waits = true,
                    .target_has_arrived = true},
                   Outcome::committed},
        OutcomeRow{"ItArrivedAndWasPausedThere",
                   {.source = absent, .target = paused, .target_has_arrived = true},
                   Outcome::committed},
        OutcomeRow{"ItArrivedAndTheSourceRuns",
                   {.source = running, .target = paused, .target_has_arrived = true},
                   Outcome::split},
        OutcomeRow{"TheSourceCrashedInPreCopy", {.source = shut_off, .target = paused}, Outcome::undecided},
        OutcomeRow{"TheSourceOfAPausedGuestCrashed",
                   {.source = shut_off, .target = paused, .was_paused = true},
                   Outcome::undecided},
        OutcomeRow{
            "TheSourceCrashedAndTheTargetWasEnded", {.source = crashed, .target = absent}, Outcome::ended},
        OutcomeRow{"TheSourceRunsAlone", {running, absent}, Outcome::rolled_back},
        OutcomeRow{"TheSourceRunsAndTheTargetIsDefinedOnly", {running, shut_off}, Outcome::rolled_back},
        OutcomeRow{"TheSourceRunsAndTheTargetIsAway", {running, unknown}, Outcome::rolled_back},
        OutcomeRow{"APausedGuestStaysPaused", {paused, absent, false, true}, Outcome::rolled_back},
        OutcomeRow{"AHalfMadeTargetIsLeft", {running, paused}, Outcome::stop_target},
        OutcomeRow{"AHalfMadeTargetOfAPausedGuest", {paused, paused, false, true}, Outcome::stop_target},
        OutcomeRow{"TheSourceWaitsForAResume",
                   {.source = paused, .target = absent, .source_waits = true},
                   Outcome::resume_source},
        OutcomeRow{"BothWaitAndTheTargetNeverRan",
                   {.source = paused, .target = paused, .source_waits = true},
                   Outcome::resume_source},
        OutcomeRow{"AnOperatorPausedItMeanwhile", {.source = paused, .target = absent}, Outcome::rolled_back},
        OutcomeRow{"AnOperatorPausedItAndTheTargetIsLeft",
                   {.source = paused, .target = paused},
                   Outcome::stop_target},
        OutcomeRow{"APausedGuestThatTheMigrationHolds",
                   {.source = paused, .target = absent, .was_paused = true, .source_waits = true},
                   Outcome::rolled_back},
        OutcomeRow{"TheTargetMayHaveBeenToldToRun",
                   {.source = running, .target = unknown, .may_have_gone_over = true},
                   Outcome::undecided},
        OutcomeRow{"TheTargetWasToldToRunAndDoes",
                   {.source = paused, .target = running, .source_waits = true, .may_have_gone_over = true},
                   Outcome::committed},
        OutcomeRow{"TheTargetWasNotToldToRun",
                   {.source = paused, .target = absent, .source_waits = true, .may_have_gone_over = true},
                   Outcome::resume_source},
        OutcomeRow{"TheGuestShutItselfDown", {shut_off, absent}, Outcome::ended},
        OutcomeRow{"TheGuestCrashed", {crashed, absent}, Outcome::ended},
        OutcomeRow{"ItIsNowhere", {absent, absent}, Outcome::ended},
        OutcomeRow{"BothRun", {running, running}, Outcome::split},
        OutcomeRow{"TheHypervisorStillMigrates", {paused, running, true}, Outcome::undecided},
        OutcomeRow{"NobodyCanBeAsked", {unknown, unknown}, Outcome::undecided},
        OutcomeRow{"ThePausedSourceSaysNothingOfTheTarget", {paused, unknown}, Outcome::undecided},
        OutcomeRow{
            "ThePausedGuestSaysNothingOfTheTarget", {paused, unknown, false, true}, Outcome::undecided},
        OutcomeRow{"TheSourceIsGoneAndTheTargetIsAway", {absent, unknown}, Outcome::undecided},
        OutcomeRow{"ThePausedTargetSaysNothingOfTheSource", {unknown, paused}, Outcome::undecided},
        OutcomeRow{"TheSourceIsAwayAndTheTargetIsGone", {unknown, absent}, Outcome::undecided}),
    [](const auto& row) { return row.param.name; });

/// What holds for every combination, whatever the table above says.
TEST(Outcome, NeverGivesTheGuestToTwoHosts) {
  const std::vector<std::optional<VmState>> states{unknown, absent, shut_off, running, paused, crashed};
  for (const auto source : states) {
    for (const auto target : states) {
      for (unsigned bits = 0; bits < 32; ++bits) {
        const WhoRuns said{.source = source,
                           .target = target,
                           .source_job_active = (bits & 1) != 0,
                           .was_paused = (bits & 2) != 0,
                           .source_waits = (bits & 4) != 0,
                           .target_has_arrived = (bits & 8) != 0,
                           .may_have_gone_over = (bits & 16) != 0};
        const Outcome outcome = decide(said);
        const auto where = testing::Message() << "source " << (source ? to_string(*source) : "unknown")
                                              << ", target " << (target ? to_string(*target) : "unknown")
                                              << ", bits " << bits << ": " << to_string(outcome);
        if (target == running) {
          EXPECT_NE(outcome, Outcome::resume_source) << where;
          EXPECT_NE(outcome, Outcome::stop_target) << where;
          EXPECT_NE(outcome, Outcome::ended) << where;
          if (source) EXPECT_NE(outcome, Outcome::rolled_back) << where;
        }
        if (source == running) {
          EXPECT_NE(outcome, Outcome::committed) << where;
          EXPECT_NE(outcome, Outcome::ended) << where;
        }
        if (!target) {
          EXPECT_NE(outcome, Outcome::resume_source) << where;
          EXPECT_NE(outcome, Outcome::stop_target) << where;
        }
        if (outcome == Outcome::resume_source) {
          EXPECT_TRUE(said.source_waits && !said.was_paused) << "what people paused stays paused: " << where;
        }
        if (outcome == Outcome::stop_target) EXPECT_FALSE(said.target_has_arrived) << where;
        if (outcome == Outcome::rolled_back && said.may_have_gone_over) EXPECT_TRUE(target) << where;
        if (said.source_job_active) EXPECT_EQ(outcome, Outcome::undecided) << where;
        const bool may_run_there = target == running || (target == paused && said.target_has_arrived);
        EXPECT_EQ(outcome == Outcome::split, !said.source_job_active && source == running && may_run_there)
            << where;
      }
    }
  }
}

}  // namespace
}  // namespace diskferry::test
