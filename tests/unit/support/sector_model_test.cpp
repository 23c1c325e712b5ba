// The model that disks are held against in tests: what it lets pass, and what not.
#include "tests/support/sector_model.hpp"

#include <algorithm>
#include <array>

#include <gtest/gtest.h>

namespace diskferry::test {
namespace {
using InFlight = SectorModel::InFlight;

std::array<std::byte, sector_bytes> sector_of(std::uint64_t first, std::uint64_t then) {
  std::array<std::byte, sector_bytes> bytes;
  std::array<std::byte, sector_bytes> other;
  fill_sector(bytes, first, 0);
  fill_sector(other, then, 0);
  std::ranges::copy(std::span(other).subspan(128), bytes.begin() + 128);
  return bytes;
}

TEST(SectorModel, ASectorHoldsOneOfTheWritesThatMayBeThere) {
  SectorModel model(sector_bytes, 0);
  const auto old = model.begin({0, sector_bytes}, 101);
  model.end(old);
  const auto next = model.begin({0, sector_bytes}, 102);
  const auto since = model.now();
  EXPECT_EQ(model.check(sector_of(101, 101), 0, since), "");
  EXPECT_EQ(model.check(sector_of(102, 102), 0, since), "");
  EXPECT_NE(model.check(sector_of(0, 0), 0, since), "");
  model.end(next);
  EXPECT_EQ(model.check(sector_of(101, 101), 0, since), "");
  EXPECT_NE(model.check(sector_of(101, 101), 0, model.now()), "");
}

TEST(SectorModel, OnlyWhileItIsWrittenMayASectorBeTornAndOnlyWhereThatIsSaid) {
  for (const InFlight mode : {InFlight::is_whole, InFlight::may_be_torn}) {
    SectorModel model(sector_bytes, 0, mode);
    model.end(model.begin({0, sector_bytes}, 101));
    const auto next = model.begin({0, sector_bytes}, 102);
    const auto since = model.now();
    EXPECT_EQ(model.check(sector_of(102, 101), 0, since).empty(), mode == InFlight::may_be_torn);
    EXPECT_NE(model.check(sector_of(102, 0), 0, since), "");
    model.end(next);
    EXPECT_NE(model.check(sector_of(102, 101), 0, model.now()), "");
  }
}

TEST(SectorModel, ATornSectorIsJudgedByteByByte) {
  SectorModel model(sector_bytes, 0, SectorModel::InFlight::may_be_torn);
  model.end(model.begin({0, sector_bytes}, 101));
  (void)model.begin({0, sector_bytes}, 102);
  const auto since = model.now();
  auto bytes = sector_of(102, 102);
  const auto old = sector_of(101, 101);
  const auto older = sector_of(0, 0);
  std::ranges::copy(std::span(old).subspan(3), bytes.begin() + 3);  // in the middle of a word
  EXPECT_EQ(model.check(bytes, 0, since), "");
  bytes[200] = older[200];
  EXPECT_NE(model.check(bytes, 0, since), "") << "one byte of what is not there any more";
}

}  // namespace
}  // namespace diskferry::test
