#include "diskferry/units.hpp"

#include "diskferry/extent.hpp"
#include "diskferry/zeros.hpp"

#include <vector>

#include <gtest/gtest.h>

namespace diskferry {
namespace {

TEST(Zeros, PiecesCoverTheRangeInOrder) {
  for (const std::uint64_t bytes_max : {std::uint64_t{512}, 64 * kib, UINT64_MAX}) {
    SCOPED_TRACE(bytes_max);
    Range left{4096, mib + 777};
    std::uint64_t at = 4096;
    while (!left.empty()) {
      const ZeroPiece piece = take_zeros(left, bytes_max);
      ASSERT_EQ(piece.offset, at);
      ASSERT_TRUE(!piece.bytes.empty() && piece.bytes.size() <= bytes_max);
      ASSERT_TRUE(is_zero(piece.bytes));
      at += piece.bytes.size();
      ASSERT_EQ(left.offset, at);
    }
    EXPECT_EQ(at, 4096 + mib + 777);
  }
}

TEST(Units, ParsesWhatPeopleWrite) {
  struct Row {
    const char* text;
    std::uint64_t bytes;
  };
  for (const Row& row : {Row{"0", 0},
                         {"4096", 4096},
                         {"64K", 65536},
                         {"64k", 65536},
                         {"1.5M", 1572864},
                         {"2GiB", 2 * gib},
                         {"8T", 8 * tib},
                         {"10B", 10},
                         {"15E", 15ull << 60}}) {
    const auto parsed = parse_bytes(row.text);
    ASSERT_TRUE(parsed) << row.text;
    EXPECT_EQ(*parsed, row.bytes) << row.text;
  }
  for (const char* text : {"", "-1", "x", "1Q", "16E", "1 M", "18446744073709551616", "nan", "inf", "1e3K"})
    EXPECT_FALSE(parse_bytes(text)) << text;
}

TEST(Units, IsZeroSeesEveryByte) {
  std::vector<std::byte> bytes(1000);
  EXPECT_TRUE(is_zero(bytes));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = std::byte{0x10};
    EXPECT_FALSE(is_zero(bytes)) << i;
    bytes[i] = std::byte{0};
  }
}

TEST(Extent, MergesOnlyWhatContinues) {
  std::vector<Extent> extents;
  append_merged(extents, {.offset = 0, .length = 10, .host_offset = 100});
  append_merged(extents, {.offset = 10, .length = 10, .host_offset = 110});
  append_merged(extents, {.offset = 20, .length = 10, .host_offset = 130});
  append_merged(extents, {.offset = 30, .length = 0});
  append_merged(extents, {.offset = 30, .length = 5, .reads_zero = true});
  ASSERT_EQ(extents.size(), 3u);
  EXPECT_EQ(extents[0].length, 20u);
  const auto cut = clip(extents, {5, 20});
  ASSERT_EQ(cut.size(), 2u);
  EXPECT_EQ(cut[0].host_offset, 105u);
  EXPECT_EQ(cut[1].end(), 25u);
}

}  // namespace
}  // namespace diskferry
