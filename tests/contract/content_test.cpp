// What was written is what is read: every verb, sizes and offsets at the edges of what is allowed.
#include "tests/contract/contract_test.hpp"

#include <array>

namespace diskferry::test {
namespace {

constexpr std::array<std::uint64_t, 8> odd_sizes{1, 511, 513, 4095, 65537, 540672, 1 * mib + 1, 3 * mib};

TEST_P(DeviceContract, OddSizesAreWrittenAndReadToTheLastByte) {
  for (const std::uint64_t wanted : odd_sizes) {
    SCOPED_TRACE(wanted);
    BlockDevice& device = open(wanted);
    const std::uint64_t size = device.size_bytes();
    const auto data = pattern(0, size, 1);
    must(run(device.write(0, data, {})));
    EXPECT_EQ(first_difference(read({0, size}), 0, 1), SIZE_MAX);
    // The last block on its own: it may be shorter than a block.
    const Range last = whole({size - 1, 1});
    must(run(device.write(last.offset, pattern(last.offset, last.length, 2), {})));
    EXPECT_EQ(first_difference(read(last), last.offset, 2), SIZE_MAX);
    EXPECT_EQ(first_difference(read({0, last.offset}), 0, 1), SIZE_MAX);
    must(run(device.flush()));
    if (opened().storage) {
      const auto stored = opened().storage();
      ASSERT_EQ(stored.size(), size);
      EXPECT_EQ(first_difference(std::span(stored).first(last.offset), 0, 1), SIZE_MAX);
      EXPECT_EQ(first_difference(std::span(stored).subspan(last.offset), last.offset, 2), SIZE_MAX);
    }
  }
}

TEST_P(DeviceContract, AnEmptyDiskTakesEveryEmptyCall) {
  BlockDevice& device = open(0);
  must(run(device.read(0, {})));
  must(run(device.write(0, {}, {.fua = true})));
  must(run(device.write_zeroes({0, 0}, {})));
  must(run(device.discard({0, 0})));
  must(run(device.flush()));
  EXPECT_TRUE(must(run(device.extents({0, 0}, 1))).empty());
}

TEST_P(DeviceContract, EmptyRequestsChangeNothing) {
  BlockDevice& device = open(128 * kib);
  must(run(device.write(0, pattern(0, 128 * kib), {})));
  for (const std::uint64_t at : {std::uint64_t{0}, std::uint64_t{64 * kib}, std::uint64_t{128 * kib}}) {
    must(run(device.read(at, {})));
    must(run(device.write(at, {}, {})));
    must(run(device.write_zeroes({at, 0}, {.fast_only = true})));
    must(run(device.discard({at, 0})));
    must(run(device.prefetch({at, 0})));
    EXPECT_TRUE(device.try_read(at, {}).has_value());
  }
  EXPECT_EQ(first_difference(read({0, 128 * kib}), 0), SIZE_MAX);
}

TEST_P(DeviceContract, ANewDeviceReadsAsZerosWhereItSaysSo) {
  BlockDevice& device = open(1 * mib);
  if (!device.info().starts_zeroed) return;  // claims nothing, so there is nothing to hold it to
  EXPECT_TRUE(is_zero(read({0, 1 * mib})));
}

TEST_P(DeviceContract, HeadsAndTailsKeepTheirNeighbours) {
  BlockDevice& device = open(512 * kib);
  const std::uint64_t block = device.info().block_bytes;
  Model model(device.size_bytes());
  const auto background = pattern(0, 512 * kib, 9);
  must(run(device.write(0, background, {})));
  model.write(0, background);
  for (const Range wanted : {Range{1, 1}, Range{511, 2}, Range{4095, 4098}, Range{65535, 2}, Range{65536, 1},
                             Range{100001, 200003}, Range{512 * kib - 1, 1}}) {
    const Range range = whole(wanted);
    SCOPED_TRACE(fmt::format("{}+{}", range.offset, range.length));
    const auto data = pattern(range.offset, range.length, wanted.offset);
    must(run(device.write(range.offset, data, {.fua = true})));
    model.write(range.offset, data);
    const Range around = whole({range.offset < block ? 0 : range.offset - block, range.length + 2 * block});
    EXPECT_EQ(model.difference(around.offset, read(around)), "");
  }
  EXPECT_EQ(model.difference(0, read({0, 512 * kib})), "");
}

TEST_P(DeviceContract, ZerosAreZerosWithEveryFlag) {
  BlockDevice& device = open(256 * kib + 4096);
  const std::uint64_t size = device.size_bytes();
  for (unsigned bits = 0; bits < 8; ++bits) {
    const ZeroFlags flags{.may_unmap = (bits & 1) != 0, .fast_only = (bits & 2) != 0, .fua = (bits & 4) != 0};
    for (const Range wanted :
         {Range{0, size}, Range{65536, 65536}, Range{70001, 200001}, Range{size - 1, 1}}) {
      const Range range = whole(wanted);
      SCOPED_TRACE(fmt::format("flags {} {}+{}", bits, range.offset, range.length));
      Model model(size);
      must(run(device.write(0, pattern(0, size, bits), {})));
      model.write(0, pattern(0, size, bits));
      const auto zeroed = run(device.write_zeroes(range, flags));
      if (zeroed) {
        model.zero(range);
      } else {
        EXPECT_TRUE(flags.fast_only) << zeroed.error().message();
        EXPECT_EQ(zeroed.error().kind(), ErrorKind::unsupported) << zeroed.error().message();
      }
      EXPECT_EQ(model.difference(0, read({0, size})), "");
    }
  }
}

TEST_P(DeviceContract, DiscardLosesNothingOutsideItsRangeAndWritesWork) {
  BlockDevice& device = open(1 * mib);
  Model model(1 * mib);
  const auto background = pattern(0, 1 * mib, 3);
  must(run(device.write(0, background, {})));
  model.write(0, background);
  const Range range = whole({100001, 300001});
  must(run(device.discard(range)));
  model.forget(range);
  EXPECT_EQ(model.difference(0, read({0, 1 * mib})), "");
  const Range inside = whole({200001, 70001});
  const auto data = pattern(inside.offset, inside.length, 4);
  must(run(device.write(inside.offset, data, {})));
  model.write(inside.offset, data);
  const Range zeroed = whole({310001, 5001});
  must(run(device.write_zeroes(zeroed, {})));
  model.zero(zeroed);
  EXPECT_EQ(model.difference(0, read({0, 1 * mib})), "");
}

TEST_P(DeviceContract, TryVerbsAgreeWithTheOthersOrSayNotNow) {
  BlockDevice& device = open(256 * kib);
  const auto data = pattern(0, 256 * kib, 5);
  const Range range = whole({65536, 65536});
  must(run(device.write(0, data, {})));
  std::vector<std::byte> back(range.length);
  if (const auto at_once = device.try_read(range.offset, back)) {
    must(*at_once);
    EXPECT_EQ(first_difference(back, range.offset, 5), SIZE_MAX);
  }
  const auto other = pattern(range.offset, range.length, 6);
  if (const auto at_once = device.try_write(range.offset, other)) {
    must(*at_once);
    EXPECT_EQ(first_difference(read(range), range.offset, 6), SIZE_MAX);
  } else {
    EXPECT_EQ(first_difference(read(range), range.offset, 5), SIZE_MAX) << "refused, yet something changed";
  }
}

TEST_P(DeviceContract, RequestsLargerThanTheDeviceTakesAreSplit) {
  BlockDevice& device = open(40 * mib);
  std::vector<std::byte> data(40 * mib);
  for (std::size_t at = 0; at < data.size(); at += 4096) store_big<std::uint64_t>(data.data() + at, at + 1);
  must(run(device.write(0, data, {})));
  EXPECT_TRUE(read({0, 40 * mib}) == data);
}

TEST_P(DeviceContract, HintsAreAnswered) {
  BlockDevice& device = open(1 * mib);
  must(run(device.write(0, pattern(0, 1 * mib), {})));
  must(run(device.prefetch({0, 1 * mib})));
  must(run(device.start_writeback({0, 1 * mib})));
  must(run(device.flush()));
  EXPECT_EQ(first_difference(read({0, 1 * mib}), 0), SIZE_MAX);
}

TEST_P(DeviceContract, AHugeSparseDiskCostsNothing) {
  if (!GetParam().is_sparse) return;  // zeroing by writing 8 TiB is not this case's question
  constexpr std::uint64_t size = 8 * tib;
  BlockDevice& device = open(size);
  const Range last = whole({size - 65536, 65536});
  must(run(device.write(last.offset, pattern(last.offset, last.length), {})));
  EXPECT_EQ(first_difference(read(last), last.offset), SIZE_MAX);
  EXPECT_TRUE(is_zero(read(whole({size / 2 + 12345, 65536}))));
  if (!device.info().can_report_extents) return;
  std::uint64_t at = 0;
  std::size_t calls = 0;
  while (at < size) {
    ASSERT_LT(++calls, 5000u) << "mapping an empty disk must not cost a call for every few blocks";
    const auto found = must(run(device.extents({at, size - at}, 1000)));
    at = found.back().end();
  }
}

}  // namespace

INSTANTIATE_TEST_SUITE_P(Devices, DeviceContract, testing::ValuesIn(all_subjects()), name_of);

}  // namespace diskferry::test
