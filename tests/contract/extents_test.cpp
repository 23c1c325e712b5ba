// Extents are a promise about content: whatever the copy engine skips was promised to be zero.
#include "tests/contract/contract_test.hpp"

namespace diskferry::test {
namespace {

/// Walks `range` with lists of at most `extents_max` and checks what every list owes.
void check_extents(BlockDevice& device, Range range, std::size_t extents_max) {
  std::uint64_t at = range.offset;
  while (at < range.end()) {
    const auto found = must(run(device.extents({at, range.end() - at}, extents_max)));
    ASSERT_FALSE(found.empty());
    ASSERT_LE(found.size(), extents_max);
    for (const Extent& extent : found) {
      ASSERT_EQ(extent.offset, at);
      ASSERT_GT(extent.length, 0u);
      ASSERT_LE(extent.end(), range.end());
      at = extent.end();
      if (!extent.reads_zero) continue;
      // Extents may end inside a block; what is read are the blocks that lie in it.
      const std::uint64_t block = device.info().block_bytes;
      const std::uint64_t from = align_up(extent.offset, block);
      const std::uint64_t to =
          extent.end() == device.size_bytes() ? extent.end() : align_down(extent.end(), block);
      if (from >= to) continue;
      std::vector<std::byte> bytes(to - from, std::byte{1});
      must(run(device.read(from, bytes)));
      EXPECT_TRUE(is_zero(bytes)) << "promised zeros at " << extent.offset << "+" << extent.length;
    }
  }
}

TEST_P(DeviceContract, WhatExtentsPromiseIsTrue) {
  BlockDevice& device = open(2 * mib + 4096);
  const std::uint64_t size = device.size_bytes();
  check_extents(device, {0, size}, 100);
  for (const Range wanted :
       {Range{0, 1}, Range{65536, 65536}, Range{300001, 70001}, Range{1 * mib, 4096}, Range{size - 1, 1}}) {
    const Range range = whole(wanted);
    must(run(device.write(range.offset, pattern(range.offset, range.length), {})));
  }
  must(run(device.write_zeroes(whole({330001, 65536}), {})));
  must(run(device.write_zeroes(whole({1 * mib, 4096}), {.may_unmap = false})));
  must(run(device.discard(whole({65536, 65536}))));
  for (const std::size_t extents_max : {1u, 2u, 3u, 1000u}) {
    SCOPED_TRACE(extents_max);
    check_extents(device, {0, size}, extents_max);
    check_extents(device, whole({65537, 300000}), extents_max);
    check_extents(device, whole({size - 1, 1}), extents_max);
  }
}

TEST_P(DeviceContract, DataIsNeverReportedAsZeros) {
  BlockDevice& device = open(1 * mib);
  const auto block = whole({500000, 1});
  must(run(device.write(block.offset, pattern(block.offset, block.length), {})));
  std::uint64_t at = 0;
  while (at < device.size_bytes()) {
    for (const Extent& extent : must(run(device.extents({at, device.size_bytes() - at}, 10)))) {
      EXPECT_FALSE(extent.reads_zero && extent.range().overlaps(block));
      at = extent.end();
    }
  }
}

}  // namespace
}  // namespace diskferry::test
