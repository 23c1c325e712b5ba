// Copies beside a guest: when they may begin, and how that follows from how late they wake.
#include "gateway/mirror/copy_pace.hpp"

#include <vector>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr std::uint64_t unit = 128 << 10;
constexpr TimePoint begin{std::chrono::hours(1)};
const std::uint64_t bytes_per_s_first = CopyPace().bytes_per_s();
const Duration of_a_unit{std::chrono::nanoseconds(1'000'000'000 * unit / bytes_per_s_first)};

struct CopiesBesideAGuest : testing::Test {
  CopyPace pace;
  CopiesBesideAGuest() { pace.guest_asks(begin); }
  /// One after the other, each woken so much after it was to be.
  void wake(unsigned times, Duration after) {
    TimePoint now = begin;
    for (unsigned i = 0; i < times; ++i) {
      pace.guest_asks(now);
      const auto booked = pace.book(unit, now);
      ASSERT_TRUE(booked);
      now = *booked + after;
      pace.woke(*booked, now);
    }
  }
};

TEST(CopyPace, WithoutAGuestGoesAtOnce) {
  CopyPace pace;
  EXPECT_FALSE(pace.book(unit, begin));
  pace.guest_asks(begin);
  EXPECT_TRUE(pace.book(unit, begin + CopyPace::guest_rests_after));
  EXPECT_FALSE(pace.book(unit, begin + CopyPace::guest_rests_after + Duration(1)));
}

TEST_F(CopiesBesideAGuest, AreSpacedOut) {
  EXPECT_EQ(pace.book(unit, begin), begin);
  EXPECT_NEAR(static_cast<double>((*pace.book(unit, begin) - begin).count()),
              static_cast<double>(of_a_unit.count()), 2);
  EXPECT_NEAR(static_cast<double>((*pace.book(unit, begin) - begin).count()),
              static_cast<double>(2 * of_a_unit.count()), 4);
  // A pause is not made up for.
  const TimePoint later = begin + milliseconds(100);
  EXPECT_EQ(pace.book(unit, later), later);
  EXPECT_GT(pace.book(unit, later), later);
}

TEST_F(CopiesBesideAGuest, PayOnlyForWhatTheyCopy) {
  EXPECT_EQ(pace.book(unit, begin), begin);
  pace.give_back(unit);
  EXPECT_EQ(pace.book(unit, begin), begin);
}

TEST_F(CopiesBesideAGuest, AreSlowerOnABusyMachineAndFasterOnAQuietOne) {
  wake(100, CopyPace::late + microseconds(1));
  EXPECT_EQ(pace.bytes_per_s(), pace.bytes_per_s_min());
  wake(5000, CopyPace::late);
  EXPECT_EQ(pace.bytes_per_s(), CopyPace::bytes_per_s_max);
}

TEST(CopyPace, GrowsWithTheProcessors) {
  const CopyPace many(64);
  EXPECT_EQ(many.bytes_per_s_min(), 32 * CopyPace(2).bytes_per_s_min());
  EXPECT_EQ(many.bytes_per_s(), 32 * CopyPace(2).bytes_per_s());
  EXPECT_EQ(CopyPace(0).bytes_per_s_min(), CopyPace(2).bytes_per_s_min()) << "not known";
}

TEST_F(CopiesBesideAGuest, TakeOneStallForOne) {
  std::vector<TimePoint> booked;
  for (int i = 0; i < 16; ++i) booked.push_back(pace.book(unit, begin).value());
  const TimePoint woken = booked.back() + milliseconds(4);
  pace.woke(booked[0], woken);
  const std::uint64_t once = pace.bytes_per_s();
  EXPECT_LT(once, bytes_per_s_first);
  for (int i = 1; i < 16; ++i) pace.woke(booked[static_cast<std::size_t>(i)], woken);
  EXPECT_EQ(pace.bytes_per_s(), once);
  pace.woke(woken, woken + milliseconds(4));
  EXPECT_LT(pace.bytes_per_s(), once);
}

}  // namespace
}  // namespace diskferry
