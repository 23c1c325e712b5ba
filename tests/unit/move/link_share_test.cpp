// When the disks step back for the memory, how far, and when no longer.
#include "gateway/move/link_share.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {

constexpr std::uint64_t mb = 1'000'000;

TEST(LinkShare, DisksHaveNoBoundWhileNobodyWaits) {
  LinkShare share;
  for (int i = 0; i < 100; ++i) EXPECT_EQ(share.next(false, 9 * mb, 2 * mb), 0U);
}

TEST(LinkShare, DisksKeepAQuarterOfWhatBothGot) {
  LinkShare share;
  EXPECT_EQ(share.next(true, 10 * mb, 2 * mb), 3 * mb);
  EXPECT_EQ(share.next(true, 3 * mb, 9 * mb), 3 * mb) << "what both get together stays the same";
}

TEST(LinkShare, AMomentOfFullBuffersIsForgotten) {
  LinkShare share;
  (void)share.next(true, 10 * mb, 90 * mb);
  std::uint64_t bound = 0;
  for (int i = 0; i < 200; ++i) bound = share.next(true, 3 * mb, 9 * mb);
  EXPECT_EQ(bound, 3 * mb);
}

TEST(LinkShare, AGuestThatWritesGoesOn) {
  LinkShare share;
  EXPECT_GT(share.next(true, 1000, 0), 100'000U);
}

TEST(LinkShare, TheBoundIsLiftedWhenNobodyHasWaitedForAWhile) {
  LinkShare share;
  (void)share.next(true, 10 * mb, 2 * mb);
  for (int i = 0; i < 9; ++i) EXPECT_EQ(share.next(false, mb, 11 * mb), 3 * mb);
  EXPECT_EQ(share.next(false, mb, 11 * mb), 0U);
  EXPECT_EQ(share.next(true, 2 * mb, 2 * mb), mb) << "the past is forgotten with it";
}

struct RatesRow {
  const char* name;
  std::uint64_t budget;
  std::uint64_t share;
  std::uint64_t disk_rate;
  std::uint64_t disks;
  std::uint64_t memory;
};
class RatesWithin : public testing::TestWithParam<RatesRow> {};
TEST_P(RatesWithin, AreTheOperatorsAndTheShares) {
  const RatesRow& row = GetParam();
  const LinkRates rates = rates_within(row.budget, row.share, row.disk_rate);
  EXPECT_EQ(rates.disks, row.disks);
  EXPECT_EQ(rates.memory, row.memory);
}
INSTANTIATE_TEST_SUITE_P(Rows, RatesWithin,
                         testing::Values(RatesRow{"NoBudget", 0, 0, 9 * mb, 0, 0},
                                         RatesRow{"ShareWithoutBudget", 0, 3 * mb, 9 * mb, 3 * mb, 0},
                                         RatesRow{"DisksAtRest", 8 * mb, 0, 0, 8 * mb, 8 * mb},
                                         RatesRow{"DisksUseSome", 8 * mb, 0, 3 * mb, 8 * mb, 5 * mb},
                                         RatesRow{"DisksUseAll", 8 * mb, 0, 8 * mb, 8 * mb, 2 * mb},
                                         RatesRow{"GuestWaits", 8 * mb, 2 * mb, 8 * mb, 2 * mb, 6 * mb},
                                         RatesRow{"ShareOverBudget", mb, 2 * mb, 2 * mb, mb, mb / 4},
                                         RatesRow{"NeverNoBoundByChance", 1, 0, 1, 1, 1}),
                         [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace diskferry
