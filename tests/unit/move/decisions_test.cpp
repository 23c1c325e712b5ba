// The pure decisions of a move: what may follow what, and which host has the machine. The tables are walked
// whole, because a wrong cell means a machine that runs twice or nowhere.
#include "gateway/move/outcome.hpp"
#include "gateway/move/phase.hpp"

#include <array>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace diskferry {
namespace {

std::vector<Phase> all_phases() {
  std::vector<Phase> all;
  for (std::size_t i = 0; i < phase_count; ++i) all.push_back(static_cast<Phase>(i));
  return all;
}

TEST(MovePhase, NamesLeadBack) {
  for (const Phase phase : all_phases()) EXPECT_EQ(phase_named(to_string(phase)), phase) << to_string(phase);
  EXPECT_FALSE(phase_named("nowhere"));
}

TEST(MovePhase, EverythingBeforeTheCommitCanBeUndone) {
  for (const Phase phase : all_phases()) {
    if (phase < Phase::committed) {
      EXPECT_TRUE(may_follow(phase, Phase::aborting)) << to_string(phase);
      EXPECT_TRUE(can_undo(phase)) << to_string(phase);
    }
  }
  EXPECT_FALSE(may_follow(Phase::committed, Phase::aborting));
  EXPECT_FALSE(can_undo(Phase::committed));
  EXPECT_FALSE(can_undo(Phase::retained));
}

TEST(MovePhase, NothingFollowsAnEnd) {
  for (const Phase end : {Phase::released, Phase::aborted}) {
    EXPECT_TRUE(is_final(end));
    for (const Phase next : all_phases()) EXPECT_EQ(may_follow(end, next), next == end) << to_string(next);
  }
}

TEST(MovePhase, TheCommitComesOnlyFromSwitching) {
  for (const Phase phase : all_phases())
    EXPECT_EQ(may_follow(phase, Phase::committed), phase == Phase::switching || phase == Phase::committed)
        << to_string(phase);
}

constexpr std::array states{VmState::absent, VmState::shut_off, VmState::running, VmState::paused,
                            VmState::crashed};

std::vector<std::optional<VmState>> answers() {
  std::vector<std::optional<VmState>> all{std::nullopt};
  for (const VmState state : states) all.emplace_back(state);
  return all;
}

std::string words(const std::optional<VmState>& state) {
  return state ? std::string(to_string(*state)) : "no answer";
}

TEST(MoveOutcome, NeverTwiceAndNeverAgainstARunningMachine) {
  for (const auto& source : answers()) {
    for (const auto& target : answers()) {
      for (const bool was_paused : {false, true}) {
        const Outcome outcome = decide({.source = source, .target = target, .was_paused = was_paused});
        const std::string place = words(source) + " / " + words(target);
        if (source == VmState::running) EXPECT_NE(outcome, Outcome::committed) << place;
        if (source == VmState::running) EXPECT_NE(outcome, Outcome::resume_source) << place;
        if (target == VmState::running) {
          EXPECT_NE(outcome, Outcome::resume_source) << place;
          EXPECT_NE(outcome, Outcome::stop_target) << place;
          EXPECT_NE(outcome, Outcome::ended) << place;
        }
        if (target == VmState::running && source != VmState::running)
          EXPECT_EQ(outcome, Outcome::committed) << place;
        if (source == VmState::running && target == VmState::running)
          EXPECT_EQ(outcome, Outcome::split) << place;
        // The source is only resumed where the target has answered that it does not run.
        if (outcome == Outcome::resume_source) EXPECT_TRUE(target.has_value()) << place;
      }
    }
  }
}

TEST(MoveOutcome, WhileTheHypervisorMigratesNothingIsKnown) {
  for (const auto& source : answers())
    for (const auto& target : answers())
      EXPECT_EQ(decide({.source = source, .target = target, .source_job_active = true}), Outcome::undecided);
}

struct Row {
  const char* name;
  std::optional<VmState> source;
  std::optional<VmState> target;
  bool was_paused;
  Outcome outcome;
};

TEST(MoveOutcome, ByName) {
  const std::array rows{
      Row{"undone by libvirt", VmState::running, VmState::absent, false, Outcome::rolled_back},
      Row{"target half made", VmState::running, VmState::paused, false, Outcome::stop_target},
      Row{"source stopped, target gone", VmState::paused, VmState::absent, false, Outcome::resume_source},
      Row{"both stopped", VmState::paused, VmState::paused, false, Outcome::resume_source},
      Row{"paused by its operator", VmState::paused, VmState::absent, true, Outcome::rolled_back},
      Row{"moved", VmState::shut_off, VmState::running, false, Outcome::committed},
      Row{"moved while paused", VmState::absent, VmState::paused, true, Outcome::committed},
      Row{"shut down on the way", VmState::shut_off, VmState::absent, false, Outcome::ended},
      Row{"source away, target runs", std::nullopt, VmState::running, false, Outcome::committed},
      Row{"source away, target stopped", std::nullopt, VmState::paused, false, Outcome::undecided},
      Row{"target away, source runs", VmState::running, std::nullopt, false, Outcome::rolled_back},
      Row{"target away, source stopped", VmState::paused, std::nullopt, false, Outcome::undecided},
  };
  for (const Row& row : rows)
    EXPECT_EQ(decide({.source = row.source, .target = row.target, .was_paused = row.was_paused}), row.outcome)
        << row.name;
}

}  // namespace
}  // namespace diskferry
