// Images that were made to do harm when they are written, or to make reading them expensive; and bitmaps in
// images that have no room for them.
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/image/qcow2/create.hpp"
#include "drivers/image/qcow2/device.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/drivers/recording_device.hpp"
#include "tests/unit/drivers/tiny_qcow2.hpp"

#include <algorithm>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::TinyQcow2;

struct Opened {
  std::shared_ptr<test::RecordingDevice> recorder;
  Result<std::unique_ptr<qcow2::Qcow2Device>> device;
};

struct Opening {
  bool writable = true;
  bool compress = false;
  bool can_grow = true;
};

Opened open_image(std::vector<std::byte> content, Opening opening = {}) {
  auto recorder = std::make_shared<test::RecordingDevice>(std::move(content), opening.can_grow);
  const std::size_t area = std::min<std::size_t>(2 * mib, recorder->content().size());
  auto header = must(qcow2::parse_header(std::span(recorder->content()).first(area), "hostile"));
  auto device =
      run(qcow2::Qcow2Device::open(test::runtime().context(), {.name = "hostile",
                                                               .header = std::move(header),
                                                               .storage = recorder,
                                                               .writable = opening.writable,
                                                               .compress_writes = opening.compress}));
  return {std::move(recorder), std::move(device)};
}

/// Clusters of 4 KiB: the directory in cluster 6, a bitmap "b" that records writes, its table in cluster 7.
TinyQcow2 with_bitmap(std::uint64_t table_entry) {
  TinyQcow2 tiny(3, 12);
  tiny.bytes.resize(tiny.at(8));
  for (std::size_t i = 6; i < 8; ++i) tiny.bytes[tiny.at(2) + i * 2 + 1] = std::byte{1};
  std::string data(24, '\0');
  auto* raw = reinterpret_cast<std::byte*>(data.data());
  store_big<std::uint32_t>(raw, 1);
  store_big<std::uint64_t>(raw + 8, 32);
  store_big<std::uint64_t>(raw + 16, tiny.at(6));
  tiny.put_extension(112, 0x23852875, data);
  tiny.put64(88, 1);
  tiny.put64(tiny.at(6), tiny.at(7));
  tiny.put32(tiny.at(6) + 8, 1);
  tiny.put32(tiny.at(6) + 12, 2);  // auto
  tiny.bytes[tiny.at(6) + 16] = std::byte{1};
  tiny.bytes[tiny.at(6) + 17] = std::byte{16};
  tiny.bytes[tiny.at(6) + 19] = std::byte{1};
  tiny.bytes[tiny.at(6) + 24] = std::byte{'b'};
  tiny.put64(tiny.at(7), table_entry);
  return tiny;
}
std::uint32_t bitmap_flags(const test::RecordingDevice& storage, const TinyQcow2& tiny) {
  return load_big<std::uint32_t>(storage.content().data() + tiny.at(6) + 12);
}

TEST(Qcow2Bitmaps, ABitmapWithoutRoomLosesNoneOfTheGuestsData) {
  const TinyQcow2 tiny = with_bitmap(0);
  auto [storage, opened] = open_image(tiny.bytes, {.can_grow = false});
  auto device = must(std::move(opened));
  // Changes a table and needs no space; the bitmap does, and there is none.
  must(run(device->write_zeroes({0, tiny.cluster}, {.may_unmap = false})));
  const auto closed = run(device->close());
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().kind(), ErrorKind::no_space) << closed.error().message();
  EXPECT_EQ(bitmap_flags(*storage, tiny), 3u) << "still in use, so that nobody believes it";

  auto again = must(std::move(open_image(storage->content(), {.writable = false}).device));
  std::vector<std::byte> data(tiny.cluster);
  must(run(again->read(0, data)));
  EXPECT_TRUE(is_zero(data));
}

TEST(Qcow2Full, WhatWasDiscardedIsUsedAgainWithoutAFlush) {
  const TinyQcow2 tiny(3, 12);
  auto [storage, opened] = open_image(tiny.bytes);
  auto device = must(std::move(opened));
  storage->limit_bytes = tiny.at(6);
  std::vector<std::byte> data(tiny.cluster, std::byte{0x55});
  const auto full = run(device->write(tiny.cluster * 3, data, {}));
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().kind(), ErrorKind::no_space);
  must(run(device->discard({0, tiny.cluster})));
  must(run(device->write(tiny.cluster * 3, data, {})));
  must(run(device->close()));
  auto again = must(std::move(open_image(storage->content(), {.writable = false}).device));
  std::vector<std::byte> read(tiny.cluster);
  must(run(again->read(tiny.cluster * 3, read)));
  EXPECT_EQ(read, data);
  must(run(again->read(0, read)));
  EXPECT_TRUE(is_zero(read));
}

TEST(Qcow2Bitmaps, OneThatNamesOtherTablesOrNothingIsGivenUpAndNothingIsWrittenThere) {
  const TinyQcow2 shape(3, 12);
  for (const std::uint64_t hostile :
       {std::uint64_t{shape.at(3)}, std::uint64_t{shape.at(7)}, std::uint64_t{shape.at(1) + 512},
        std::uint64_t{1} << 55, std::uint64_t{shape.at(100)}}) {
    const TinyQcow2 tiny = with_bitmap(hostile);
    auto [storage, opened] = open_image(tiny.bytes);
    auto device = must(std::move(opened));
    EXPECT_EQ(bitmap_flags(*storage, tiny), 3u);
    std::vector<std::byte> data(tiny.cluster, std::byte{0x77});
    must(run(device->write(tiny.cluster * 3, data, {})));
    must(run(device->close()));
    EXPECT_EQ(bitmap_flags(*storage, tiny), 3u) << hostile;
    EXPECT_LT(storage->content().size(), tiny.at(12)) << hostile;
    auto again = must(std::move(open_image(storage->content(), {.writable = false}).device));
    must(run(again->read(0, data)));
    EXPECT_TRUE(std::ranges::all_of(data, [](std::byte one) { return one == std::byte{0x11}; })) << hostile;
  }
}

TEST(Qcow2Damaged, SnapshotsWithImpossibleTablesAreNotOpenedForWriting) {
  struct Row {
    std::uint64_t l1_offset;
    std::uint32_t l1_entries;
  };
  const TinyQcow2 shape(3, 9);
  for (const Row& row : {Row{shape.at(5), 0xffffffff}, Row{shape.at(100), 1}, Row{UINT64_MAX - 511, 0x100},
                         Row{shape.at(4), 1}}) {
    TinyQcow2 tiny(3, 9);
    tiny.put32(60, 1);
    tiny.put64(64, tiny.at(6));
    tiny.put64(tiny.at(6), row.l1_offset);
    tiny.put32(tiny.at(6) + 8, row.l1_entries);
    tiny.put32(tiny.at(6) + 36, 16);
    const auto opened = open_image(tiny.bytes);
    ASSERT_FALSE(opened.device) << row.l1_offset;
    EXPECT_EQ(opened.device.error().kind(), ErrorKind::corrupt) << opened.device.error().message();
    EXPECT_EQ(opened.recorder->change_count(), 0u);
  }
}

/// 2^57 bytes of zeros: a quarter of a million references to one table.
TEST(Qcow2Hostile, ExtentsOfAnImageThatRepeatsATableAreAnsweredSoon) {
  TinyQcow2 tiny(3, 21);
  const std::uint64_t entries = tiny.cluster / 8;
  tiny.put64(24, entries * entries * tiny.cluster);
  tiny.put32(36, static_cast<std::uint32_t>(entries));
  for (std::size_t i = 0; i < entries; ++i) {
    tiny.put64(tiny.at(3) + i * 8, tiny.at(4));
    tiny.put64(tiny.at(4) + i * 8, 1);
  }
  auto device = must(std::move(open_image(tiny.bytes, {.writable = false}).device));
  const auto extents = must(run(device->extents({0, device->size_bytes()}, 10)));
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_TRUE(extents[0].reads_zero);
  EXPECT_GE(extents[0].length, 1000000 * tiny.cluster);
  EXPECT_LT(extents[0].length, device->size_bytes());
  must(run(device->close()));
}

/// 4 KiB at a time from clusters of 2 MiB that inflate from a few KiB.
TEST(Qcow2Compressed, SmallReadsOfLargeClustersInflateEachOnceInBoundedMemory) {
  constexpr std::uint64_t cluster = 2 * mib;
  constexpr std::uint64_t clusters = 12;
  auto storage = std::make_shared<test::RecordingDevice>();
  const auto layout = must(qcow2::lay_out({.size_bytes = clusters * cluster, .cluster_bits = 21}));
  must(run(qcow2::create(*storage, {.size_bytes = clusters * cluster, .cluster_bits = 21})));
  auto writing = open_image(storage->content(), {.compress = true});
  auto writer = must(std::move(writing.device));
  for (std::uint64_t i = 0; i < clusters; ++i) {
    const std::vector<std::byte> data(cluster, static_cast<std::byte>('A' + i));
    must(run(writer->write(i * cluster, data, {})));
  }
  must(run(writer->close()));
  ASSERT_LT(writing.recorder->content().size(), layout.end_bytes + 2 * cluster) << "they are compressed";

  auto reading = open_image(writing.recorder->content(), {.writable = false});
  auto device = must(std::move(reading.device));
  std::vector<std::byte> data(4 * kib);
  must(run(device->read(0, data)));  // brings the tables along
  for (std::uint64_t i = 0; i < clusters; ++i) {
    const std::uint64_t before = reading.recorder->reads;
    for (std::uint64_t at = 0; at < cluster; at += data.size()) {
      must(run(device->read(i * cluster + at, data)));
      ASSERT_EQ(data[at / 512 % data.size()], static_cast<std::byte>('A' + i));
    }
    EXPECT_LE(reading.recorder->reads - before, 1u);
    EXPECT_LE(device->image().inflated.held_bytes(), qcow2::ImageState::inflated_bytes_max);
  }
  must(run(device->close()));
}

TEST(HostileTables, ReadingNeedsNoRefcountTableAndWritingDoes) {
  TinyQcow2 tiny(3, 12);
  tiny.put64(48, 0);
  auto reading = open_image(tiny.bytes, {.writable = false});
  auto device = must(std::move(reading.device));
  std::vector<std::byte> data(4096);
  must(run(device->read(4096, data)));
  must(run(device->close()));
  const auto writing = open_image(tiny.bytes);
  ASSERT_FALSE(writing.device);
  EXPECT_EQ(writing.device.error().kind(), ErrorKind::corrupt);
  EXPECT_NE(writing.device.error().message().find("no refcount table"), std::string::npos);
}

}  // namespace
}  // namespace diskferry
