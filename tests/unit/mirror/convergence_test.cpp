// What the controller makes of rates: each row is some seconds of one kind, and what it has decided then.
#include "gateway/mirror/convergence.hpp"

#include "diskferry/units.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using std::chrono::milliseconds;
using std::chrono::seconds;

struct Row {
  std::string name;
  MirrorMode begins;
  ConvergenceLimits limits;
  ConvergenceSample sample;
  unsigned for_seconds;
  MirrorMode ends;
  bool is_slowed;
};
class Convergences : public testing::TestWithParam<Row> {};

ConvergenceStep after(ConvergenceController& control, const ConvergenceSample& sample, unsigned for_seconds) {
  ConvergenceStep step;
  for (unsigned i = 0; i < for_seconds; ++i) step = control.observe(sample);
  return step;
}

TEST_P(Convergences, Decides) {
  ConvergenceController control(GetParam().limits, GetParam().begins);
  const ConvergenceStep step = after(control, GetParam().sample, GetParam().for_seconds);
  EXPECT_EQ(step.mode, GetParam().ends);
  EXPECT_EQ(step.guest_bytes_per_s != 0, GetParam().is_slowed);
}

constexpr ConvergenceSample advancing{.left_bytes = 10 * gib,
                                      .copied_bytes = 200 * mib,
                                      .dirtied_bytes = 10 * mib,
                                      .guest_bytes = 20 * mib,
                                      .sent_bytes = 210 * mib};
constexpr ConvergenceSample losing{.left_bytes = 10 * gib,
                                   .copied_bytes = 50 * mib,
                                   .dirtied_bytes = 80 * mib,
                                   .guest_bytes = 90 * mib,
                                   .sent_bytes = 60 * mib};
/// What guests write is copied at once; how fast more would be is known from before.
constexpr ConvergenceSample in_step{.left_bytes = 1 * mib,
                                    .copied_bytes = 2 * mib,
                                    .dirtied_bytes = 2 * mib,
                                    .guest_bytes = 4 * mib,
                                    .sent_bytes = 6 * mib,
                                    .rounds = 10};
/// A slow target, and guests that do not write.
constexpr ConvergenceSample slow_and_idle{
    .left_bytes = 10 * gib, .copied_bytes = 1 * mib, .sent_bytes = 1 * mib};
constexpr ConvergenceSample stuck_and_idle{.left_bytes = 10 * gib};
ConvergenceSample with_latency(ConvergenceSample sample, std::uint64_t us) {
  sample.added_p99_us = us;
  return sample;
}
using enum MirrorMode;

INSTANTIATE_TEST_SUITE_P(
    Rows, Convergences,
    testing::Values(
        Row{"stays_while_it_advances", bounded, {}, advancing, 60, bounded, false},
        Row{"stays_in_background", background, {}, advancing, 60, background, false},
        Row{"waits_before_it_steps_up", background, {}, losing, 2, background, false},
        Row{"steps_up", background, {}, losing, 3, bounded, false},
        Row{"steps_up_again", background, {}, losing, 6, synchronous, false},
        Row{"a_deadline_is_nothing_to_guests_who_write_nothing",
            bounded,
            {.deadline = seconds(10)},
            slow_and_idle,
            60,
            bounded,
            false},
        Row{"a_target_that_takes_nothing_is_nothing_to_them",
            bounded,
            {},
            stuck_and_idle,
            60,
            bounded,
            false},
        Row{"slows_guests_last", background, {}, losing, 9, synchronous, true},
        Row{"does_not_slow_who_may_not_be",
            background,
            {.may_slow_guests = false},
            losing,
            60,
            synchronous,
            false},
        Row{"a_deadline_asks_for_more", background, {.deadline = seconds(10)}, advancing, 3, bounded, false},
        Row{"a_deadline_in_reach_does_not",
            background,
            {.deadline = seconds(100)},
            advancing,
            9,
            background,
            false},
        Row{"steps_down_when_guests_pay",
            synchronous,
            {},
            with_latency(advancing, 15'000),
            5,
            bounded,
            false},
        Row{"steps_down_again", synchronous, {}, with_latency(advancing, 15'000), 10, background, false},
        Row{"a_short_wait_is_allowed",
            synchronous,
            {},
            with_latency(advancing, 9'000),
            60,
            synchronous,
            false},
        Row{"slows_guests_rather_than_have_them_wait_longer",
            bounded,
            {},
            with_latency(losing, 15'000),
            3,
            bounded,
            true}),
    [](const auto& info) { return info.param.name; });

TEST(Convergence, ForeseesTheEndAndThePause) {
  ConvergenceController control({.pause_max = milliseconds(100)});
  ConvergenceSample sample = advancing;
  sample.left_bytes = 190 * mib;
  sample.pending_bytes = 20 * mib;
  const ConvergenceStep step = after(control, sample, 1);
  ASSERT_TRUE(step.eta);
  // A second of copies, and then what waits in the window.
  EXPECT_NEAR(std::chrono::duration<double>(*step.eta).count(), 1.0 + 20.0 / 210.0, 1e-6);
  EXPECT_EQ(step.pause, seconds(1));
  EXPECT_EQ(step.window_bytes_max, 210 * mib / 20);
  EXPECT_FALSE(after(control, losing, 30).eta);
}

TEST(Convergence, MakesRoomForGuestsAsLongAsTheEndIsInReach) {
  ConvergenceController control({}, background);
  EXPECT_TRUE(after(control, advancing, 60).makes_room);
  EXPECT_TRUE(after(control, losing, 1).makes_room) << "a second is not much";
  const ConvergenceStep first = after(control, losing, 10);
  EXPECT_FALSE(first.makes_room);
  EXPECT_FALSE(after(control, advancing, 19).makes_room);
  const ConvergenceStep later = after(control, advancing, 10);
  EXPECT_TRUE(later.makes_room);
}

TEST(Convergence, MakesNoRoomBeforeItSlowsGuestsOrHasThemWait) {
  ConvergenceController control({}, background);
  const ConvergenceStep step = after(control, losing, 2);
  EXPECT_FALSE(step.makes_room);
  EXPECT_EQ(step.mode, background);
  EXPECT_EQ(step.guest_bytes_per_s, 0u);
  EXPECT_NE(step.reason, "");
}

TEST(Convergence, MakesNoRoomWhereCopiesMissTheDeadline) {
  ConvergenceController late({.deadline = seconds(10)});
  const ConvergenceStep step = after(late, slow_and_idle, 1);
  EXPECT_FALSE(step.makes_room);
  EXPECT_EQ(step.mode, bounded);
  ConvergenceController in_time({.deadline = seconds(100)});
  EXPECT_TRUE(after(in_time, advancing, 60).makes_room);
}

TEST(Convergence, LetsGuestsGoWhenTheEndIsInReach) {
  ConvergenceController control({}, synchronous);
  ASSERT_NE(after(control, losing, 9).guest_bytes_per_s, 0u);
  const std::uint64_t slow = after(control, losing, 30).guest_bytes_per_s;
  EXPECT_GE(slow, ConvergenceLimits{}.guest_bytes_per_s_min);
  ConvergenceStep step = after(control, advancing, 12);
  EXPECT_GT(step.guest_bytes_per_s, slow);
  step = after(control, advancing, 40);
  EXPECT_EQ(step.guest_bytes_per_s, 0u);
}

TEST(Convergence, LetsGuestsGoAtOnceWhenTheyMayNotBeSlowedAnyMore) {
  ConvergenceController control({}, synchronous);
  ASSERT_NE(after(control, losing, 9).guest_bytes_per_s, 0u);
  control.set_limits({.may_slow_guests = false});
  const ConvergenceStep step = after(control, losing, 1);
  EXPECT_EQ(step.guest_bytes_per_s, 0u);
  EXPECT_EQ(step.reason, "guests are slowed down no more");
}

TEST(Convergence, LeavesGuestsAloneWhoseDiskIsInStep) {
  ConvergenceController control({}, background);
  after(control, advancing, 10);
  const ConvergenceStep step = after(control, in_step, 60);
  EXPECT_EQ(step.mode, background);
  EXPECT_EQ(step.guest_bytes_per_s, 0u);
  // 1 MiB at the 210 MiB/s that the target has taken.
  EXPECT_LT(step.pause, milliseconds(6));
  EXPECT_GT(step.window_bytes_max, 8 * mib);
}

TEST(Convergence, IsBehindWhenWhatIsLeftDoesNotFitThePause) {
  ConvergenceController control({.pause_max = milliseconds(1)}, background);
  after(control, advancing, 10);
  ConvergenceSample sample = in_step;
  sample.dirtied_bytes += mib;
  EXPECT_NE(after(control, sample, 60).mode, background);
  ConvergenceController patient({}, background);
  after(patient, advancing, 10);
  EXPECT_EQ(after(patient, sample, 60).mode, background);
}

TEST(Convergence, HasNothingToChangeWhenNobodyWrites) {
  ConvergenceController control({.deadline = seconds(10)}, background);
  ConvergenceSample sample = advancing;
  sample.dirtied_bytes = sample.guest_bytes = 0;
  EXPECT_EQ(after(control, sample, 60).mode, background);
}

TEST(Convergence, SaysWhyOnce) {
  ConvergenceController control({}, background);
  EXPECT_EQ(after(control, losing, 1).reason, "");
  EXPECT_NE(control.observe(losing).reason.find("as fast as they can"), std::string::npos);
  EXPECT_NE(control.observe(losing).reason.find("/s dirty and"), std::string::npos);
  EXPECT_EQ(control.observe(losing).reason, "");
}

}  // namespace
}  // namespace diskferry
