// What the table claims of the target: it may forget and must never be wrong.
#include "gateway/mirror/block_table.hpp"

#include "diskferry/units.hpp"

#include <map>
#include <random>

#include <gtest/gtest.h>

namespace diskferry {
namespace {

constexpr BlockHash a{5, 1};
constexpr BlockHash b{5, 2};

TableShape shape(std::uint64_t size_bytes, std::uint64_t bytes_max = 64 * mib) {
  return {.size_bytes = size_bytes, .block_bytes = 4096, .bytes_max = bytes_max};
}

TEST(BlockHash, TellsZerosContentAndSeedsApart) {
  std::vector<std::byte> bytes(4096);
  EXPECT_TRUE(hash_block(bytes, 1).is_zero());
  EXPECT_EQ(hash_block(bytes, 1), hash_block(std::span(bytes).first(100), 2))
      << "zeros of any length and seed";
  bytes[4095] = std::byte{1};
  EXPECT_FALSE(hash_block(bytes, 1).is_zero());
  EXPECT_TRUE(hash_block(bytes, 1).is_known());
  EXPECT_EQ(hash_block(bytes, 1), hash_block(bytes, 1));
  EXPECT_NE(hash_block(bytes, 1), hash_block(bytes, 2));
}

TEST(BlockTable, KnowsWhatItWasTold) {
  BlockTable table(shape(mib), 7, false);
  EXPECT_FALSE(table.known(3).is_known());
  table.set(3, a);
  EXPECT_EQ(table.known(3), a);
  table.set(3, b);
  EXPECT_EQ(table.known(3), b);
  EXPECT_FALSE(table.known(4).is_known());
  table.forget(3, 1);
  EXPECT_FALSE(table.known(3).is_known());
}

TEST(BlockTable, AForgottenBlockIsNotZeroWhereTheRestIs) {
  BlockTable table(shape(mib), 7, true);
  EXPECT_TRUE(table.known(200).is_zero());
  EXPECT_TRUE(table.is_plain_zero(0, 256));
  table.forget(200, 1);
  EXPECT_FALSE(table.known(200).is_known());
  EXPECT_TRUE(table.known(201).is_zero());
  EXPECT_FALSE(table.is_plain_zero(0, 256));
  EXPECT_EQ(table.known_zero(192, 64), ~(std::uint64_t{1} << 8));
  table.set_zero(0, 256);
  EXPECT_TRUE(table.is_plain_zero(0, 256));
}

TEST(BlockTable, ZeroBlockByBlockBecomesAZeroRegion) {
  BlockTable table(shape(mib), 7, false);
  table.set(17, a);
  for (std::uint64_t block = 0; block < 256; ++block) {
    EXPECT_FALSE(table.is_plain_zero(0, 256));
    table.set(block, BlockHash::zero());
  }
  EXPECT_TRUE(table.is_plain_zero(0, 256));
}

TEST(BlockTable, AHugeEmptyDiskTakesNoTime) {
  BlockTable table(shape(8 * 1024 * gib), 7, true);
  EXPECT_TRUE(table.is_plain_zero(0, table.blocks()));
  table.set_zero(0, table.blocks());
  EXPECT_TRUE(table.is_plain_zero(0, table.blocks()));
}

TEST(BlockTable, ADiskThatFitsLosesNothing) {
  BlockTable table(shape(64 * mib), 7, true);
  for (std::uint64_t block = 0; block < table.blocks(); ++block) table.set(block, {9, block});
  for (std::uint64_t block = 0; block < table.blocks(); ++block)
    ASSERT_EQ(table.known(block), (BlockHash{9, block}));
}

TEST(BlockTable, BlocksThatAreUsedOutlastAStream) {
  BlockTable table(shape(gib, mib), 7, true);
  for (std::uint64_t block = 0; block < 100; ++block) table.set(block, {9, block});
  std::uint64_t kept = 0;
  for (std::uint64_t block = 1000; block < table.blocks(); ++block) {
    table.set(block, {8, block});
    if (block % 4096 == 0) {
      for (std::uint64_t hot = 0; hot < 100; ++hot) {
        if (!table.known(hot).is_known()) table.set(hot, {9, hot});
      }
    }
  }
  for (std::uint64_t block = 0; block < 100; ++block) kept += table.known(block).is_known() ? 1 : 0;
  EXPECT_GT(kept, 90u);
}

/// Any order of calls, in little memory: what is claimed must be what was told last, and what is claimed to
/// be durable must have been so at the last flush.
class RandomTable : public testing::TestWithParam<std::uint64_t> {};
TEST_P(RandomTable, IsNeverWrong) {
  const std::uint64_t memory = GetParam();
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    BlockTable table(shape(40 * mib + 5, memory), seed, seed % 2 == 0);
    std::vector<BlockHash> told(table.blocks(), seed % 2 == 0 ? BlockHash::zero() : BlockHash::unknown());
    std::vector<bool> is_durable(told.size(), true);
    for (int step = 0; step < 3000; ++step) {
      const std::uint64_t block = random() % table.blocks();
      const std::uint64_t most = random() % 8 == 0 ? 3000 : 3;
      const std::uint64_t count = std::min(1 + random() % most, table.blocks() - block);
      switch (random() % 8) {
        case 0:
          table.set_zero(block, count);
          std::fill_n(told.begin() + static_cast<std::ptrdiff_t>(block), count, BlockHash::zero());
          std::fill_n(is_durable.begin() + static_cast<std::ptrdiff_t>(block), count, false);
          break;
        case 1:
          table.forget(block, count);
          std::fill_n(told.begin() + static_cast<std::ptrdiff_t>(block), count, BlockHash::unknown());
          break;
        case 2:
          if (random() % 20 == 0) {
            table.flush_done(table.flush_begins());
            is_durable.assign(is_durable.size(), true);
          }
          break;
        default: {
          const BlockHash hash = random() % 3 == 0 ? BlockHash::zero() : BlockHash{7, random() % 3};
          table.set(block, hash);
          told[block] = hash;
          is_durable[block] = false;
        }
      }
      const BlockHash known = table.known(block);
      ASSERT_TRUE(!known.is_known() || known == told[block]) << step;
    }
    std::vector<BlockHash> saved(told.size(), BlockHash::unknown());
    for (const Range& zero : table.durable_zero_blocks())
      std::fill_n(saved.begin() + static_cast<std::ptrdiff_t>(zero.offset), zero.length, BlockHash::zero());
    std::vector<BlockTable::Entry> entries;
    for (std::uint64_t cursor = 0; table.durable_entries(cursor, 100, entries);) {
    }
    for (const BlockTable::Entry& entry : entries) saved[entry.block] = entry.hash;
    for (std::uint64_t block = 0; block < saved.size(); ++block) {
      ASSERT_TRUE(!table.known(block).is_known() || table.known(block) == told[block]) << block;
      ASSERT_TRUE(!saved[block].is_known() || (saved[block] == told[block] && is_durable[block])) << block;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Memory, RandomTable, testing::Values(0, 16 * kib, 64 * kib, mib),
                         [](const auto& info) { return std::to_string(info.param); });

TEST(BlockTable, OnlyWhatWasToldBeforeAFlushIsDurable) {
  BlockTable table(shape(mib), 7, false);
  table.set(1, a);
  const std::uint32_t ticket = table.flush_begins();
  table.set(2, a);
  table.set(1, b);
  table.set(3, a);
  table.flush_done(ticket);
  std::uint64_t cursor = 0;
  std::vector<BlockTable::Entry> entries;
  table.durable_entries(cursor, 100, entries);
  EXPECT_TRUE(entries.empty()) << "1 was written again, 2 and 3 came later";
  table.flush_done(table.flush_begins());
  cursor = 0;
  table.durable_entries(cursor, 100, entries);
  EXPECT_EQ(entries.size(), 3u);
}

}  // namespace
}  // namespace diskferry
