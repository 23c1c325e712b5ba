// The power goes after every single write to the storage, in order and with what no flush covers lost, torn
// or out of order: qemu-img check finds leaks at worst, and every write that was flushed can be read.
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/image/qcow2/create.hpp"
#include "drivers/image/qcow2/device.hpp"
#include "drivers/memory/memory_device.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/drivers/recording_device.hpp"

#include <fmt/format.h>
#include <fstream>
#include <map>
#include <set>

namespace diskferry {
namespace {
using test::must;
using test::run;

constexpr std::uint64_t disk_bytes = 1 * mib;
constexpr std::uint64_t block = 512;

struct Shape {
  std::string name;
  qcow2::NewImage image;
  bool with_snapshot = false;
  bool compress = false;
  bool with_backing = false;
  int steps = 60;
};

/// What a block of the disk may read as: the number of a write, 0 for zeros. One history a block.
struct History {
  struct Event {
    std::size_t position;  ///< of the storage's changes when the request began
    std::uint64_t tag;
  };
  std::vector<std::vector<Event>> blocks = std::vector<std::vector<Event>>(disk_bytes / block);
  struct Flushed {
    std::size_t position;             ///< changes when the flush was answered
    std::vector<std::size_t> events;  ///< of each block, known when the flush began
  };
  std::vector<Flushed> flushes;
};

void fill(std::span<std::byte> into, std::uint64_t offset, std::uint64_t tag) {
  for (std::size_t at = 0; at < into.size(); at += block) {
    for (std::size_t i = 0; i < block; i += 8)
      store_big<std::uint64_t>(into.data() + at + i, tag == 0 ? 0 : tag << 32 | ((offset + at) / block));
  }
}

/// The tag of a block, or nullopt when it is not one piece of what was written there.
std::optional<std::uint64_t> tag_of(std::span<const std::byte> content, std::uint64_t offset) {
  const std::uint64_t first = load_big<std::uint64_t>(content.data());
  for (std::size_t i = 8; i < block; i += 8)
    if (load_big<std::uint64_t>(content.data() + i) != first) return std::nullopt;
  if (first == 0) return 0;
  if ((first & UINT32_MAX) != offset / block) return std::nullopt;
  return first >> 32;
}

/// What lies below: all of it write number 4000000000, and half as long as the disk.
constexpr std::uint64_t tag_below = 4000000000;
constexpr std::uint64_t below_bytes = disk_bytes / 2;
std::shared_ptr<BlockDevice> make_below() {
  std::vector<std::byte> content(below_bytes);
  fill(content, 0, tag_below);
  return checked(std::make_unique<test::RecordingDevice>(std::move(content)));
}

struct Opening {
  bool writable = false;
  bool compress = false;
  bool with_backing = false;
};
Task<Result<std::unique_ptr<qcow2::Qcow2Device>>> open_over(std::shared_ptr<BlockDevice> storage,
                                                            Opening opening) {
  std::vector<std::byte> start(std::min<std::uint64_t>(2 * mib, storage->size_bytes()));
  DISKFERRY_CO_CHECK(co_await storage->read(0, start));
  DISKFERRY_CO_TRY(auto header, qcow2::parse_header(start, "crash"));
  co_return co_await qcow2::Qcow2Device::open(test::runtime().context(),
                                              {.name = "crash",
                                               .header = std::move(header),
                                               .storage = std::move(storage),
                                               .backing = opening.with_backing ? make_below() : nullptr,
                                               .writable = opening.writable,
                                               .compress_writes = opening.compress});
}

Task<Result<void>> guest(BlockDevice& device, test::RecordingDevice& recorder, History& history, Shape shape,
                         std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const std::uint64_t cluster = std::uint64_t{1} << shape.image.cluster_bits;
  for (int step = 1; step <= shape.steps; ++step) {
    std::uint64_t length = block * (1 + random() % 16);
    if (random() % 2 == 0) length = align_up(length, std::min<std::uint64_t>(cluster, 64 * kib));
    length = std::min(length, disk_bytes / 2);
    std::uint64_t offset = align_down(random() % (disk_bytes - length), block);
    if (random() % 2 == 0) offset = align_down(offset, cluster);
    const Range range{offset, length};
    const std::size_t position = recorder.change_count();
    const auto note = [&](std::uint64_t tag) {
      for (std::uint64_t at = range.offset; at < range.end(); at += block)
        history.blocks[at / block].push_back({position, tag});
    };
    const auto what = random() % 10;
    if (what < 6) {
      note(static_cast<std::uint64_t>(step));
      std::vector<std::byte> data(length);
      fill(data, offset, static_cast<std::uint64_t>(step));
      DISKFERRY_CO_CHECK(co_await device.write(offset, data, {}));
    } else if (what < 8) {
      note(0);
      DISKFERRY_CO_CHECK(what == 6 ? co_await device.write_zeroes(range, {.may_unmap = random() % 2 == 0})
                                   : co_await device.discard(range));
    } else {
      History::Flushed flushed{.position = 0, .events = {}};
      for (const auto& one : history.blocks) flushed.events.push_back(one.size());
      DISKFERRY_CO_CHECK(co_await device.flush());
      flushed.position = recorder.change_count();
      history.flushes.push_back(std::move(flushed));
    }
  }
  co_return Result<void>{};
}

class Qcow2Crash : public testing::TestWithParam<Shape> {
 protected:
  /// What a disk that was cut off at `position` may hold.
  void expect_sound(const std::vector<std::byte>& content, std::size_t position, const std::string& when) {
    const std::string path = folder_ / "cut.qcow2";
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
    const auto check = test::run_program({"qemu-img", "check", "-f", "qcow2", path});
    ASSERT_TRUE(check.exit_code == 0 || check.exit_code == 3) << when << "\n" << check.out << check.err;

    auto storage = std::shared_ptr<BlockDevice>(checked(std::make_unique<test::RecordingDevice>(content)));
    auto device = must(run(open_over(storage, {.with_backing = GetParam().with_backing})));
    std::vector<std::byte> seen(disk_bytes);
    must(run(device->read(0, seen)));
    must(run(device->close()));
    const History::Flushed* last = nullptr;
    for (const auto& one : history_.flushes)
      if (one.position <= position) last = &one;
    for (std::size_t i = 0; i < history_.blocks.size(); ++i) {
      const auto tag = tag_of(std::span(seen).subspan(i * block, block), i * block);
      ASSERT_TRUE(tag) << when << ": block " << i << " is torn or somebody else's";
      // The last event that was flushed, or one that began later.
      const auto& events = history_.blocks[i];
      const std::size_t flushed = last == nullptr ? 0 : last->events[i];
      const std::uint64_t initial = GetParam().with_backing && i * block < below_bytes ? tag_below : 0;
      bool allowed = flushed == 0 ? *tag == initial : events[flushed - 1].tag == *tag;
      for (std::size_t e = flushed; e < events.size() && events[e].position <= position; ++e)
        allowed |= events[e].tag == *tag;
      // A discard may leave what was there: everything before it back to the last event that was no discard.
      for (std::size_t e = flushed; !allowed && e > 0; --e) {
        allowed |= events[e - 1].tag == *tag;
        if (events[e - 1].tag != 0) break;
      }
      if (flushed != 0 && !allowed && *tag == initial)
        allowed =
            std::ranges::all_of(std::span(events).first(flushed), [](const auto& e) { return e.tag == 0; });
      ASSERT_TRUE(allowed) << when << ": block " << i << " reads as write " << *tag;
    }
  }

  test::TemporaryFolder folder_;
  History history_;
};

TEST_P(Qcow2Crash, LeaksAtWorstAndKeepsWhatWasFlushed) {
  const Shape shape = GetParam();
  const std::uint64_t seed = 20;
  std::vector<std::byte> start;
  {
    auto empty = std::make_unique<test::RecordingDevice>();
    test::RecordingDevice& bytes = *empty;
    auto storage = checked(std::move(empty));
    auto image = shape.image;
    image.size_bytes = disk_bytes;
    must(run(qcow2::create(*storage, image)));
    start = bytes.content();
    if (shape.with_snapshot) {
      const std::string path = folder_ / "start.qcow2";
      std::ofstream(path, std::ios::binary)
          .write(reinterpret_cast<const char*>(start.data()), static_cast<std::streamsize>(start.size()));
      ASSERT_EQ(test::run_program({"qemu-io", "-f", "qcow2", "-c", "write -z 0 900k", path}).exit_code, 0);
      ASSERT_EQ(test::run_program({"qemu-img", "snapshot", "-c", "one", path}).exit_code, 0);
      std::ifstream file(path, std::ios::binary);
      const std::string content{std::istreambuf_iterator<char>(file), {}};
      start.assign(as_bytes(content).begin(), as_bytes(content).end());
    }
  }
  auto owned = std::make_unique<test::RecordingDevice>(start);
  test::RecordingDevice& recorder = *owned;
  const std::shared_ptr<BlockDevice> storage = checked(std::move(owned));
  auto device = must(run(open_over(
      storage, {.writable = true, .compress = shape.compress, .with_backing = shape.with_backing})));
  must(run(guest(*device, recorder, history_, shape, seed)));
  must(run(device->close()));

  const auto& changes = recorder.changes();
  std::mt19937_64 random(seed);
  std::vector<std::byte> in_order = start;
  std::vector<std::byte> at_flush = start;
  std::size_t flush = 0;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    if (changes[i].is_flush) {
      at_flush = in_order;
      flush = i + 1;
      continue;
    }
    test::apply(in_order, changes[i].offset, changes[i].bytes);
    expect_sound(in_order, i + 1, fmt::format("cut after change {} of {}", i + 1, changes.size()));
    if (HasFatalFailure()) return;
    const auto torn =
        test::after_power_cut(at_flush, std::span(changes).subspan(flush, i + 1 - flush), random);
    expect_sound(torn, i + 1,
                 fmt::format("power lost after change {} of {}, seed {}", i + 1, changes.size(), seed));
    if (HasFatalFailure()) return;
  }
  RecordProperty("changes", static_cast<int>(changes.size()));
}

int check_with_qemu(const std::string& path, const std::vector<std::byte>& content) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
  return test::run_program({"qemu-img", "check", "-f", "qcow2", path}).exit_code;
}

/// Writes all of the disk, 64 KiB at a time; stops at the first error.
Task<Result<void>> write_all(BlockDevice& device, std::uint64_t tag) {
  std::vector<std::byte> data(64 * kib);
  for (std::uint64_t at = 0; at < disk_bytes; at += data.size()) {
    fill(data, at, tag);
    DISKFERRY_CO_CHECK(co_await device.write(at, data, {}));
  }
  co_return co_await device.flush();
}

/// An image with data in its first cluster, as bytes, with one 8-byte word changed.
struct Damaged {
  std::vector<std::byte> content;
  std::uint64_t l2_offset = 0;
};
Damaged image_with_data() {
  auto owned = std::make_unique<test::RecordingDevice>();
  test::RecordingDevice& bytes = *owned;
  const std::shared_ptr<BlockDevice> storage = checked(std::move(owned));
  must(run(qcow2::create(*storage, {.size_bytes = disk_bytes, .cluster_bits = 12})));
  auto device = must(run(open_over(storage, {.writable = true})));
  must(run(write_all(*device, 1)));
  const std::uint64_t l1 = device->image().header.l1_offset;
  must(run(device->close()));
  Damaged damaged{.content = bytes.content()};
  damaged.l2_offset = load_big<std::uint64_t>(damaged.content.data() + l1) & qcow2::offset_mask;
  return damaged;
}

TEST(Qcow2Damaged, DataThatWouldLandOnMetadataAreRefusedAndTheImageIsMarked) {
  const Damaged good = image_with_data();
  const auto header = must(qcow2::parse_header(std::span(good.content).first(4096), "good"));
  for (const std::uint64_t target :
       {std::uint64_t{0}, header.l1_offset, header.refcount_table_offset, header.refcount_table_offset + 4096,
        good.l2_offset, std::uint64_t{1} << 50}) {
    std::vector<std::byte> content = good.content;
    store_big(content.data() + good.l2_offset, target | qcow2::flag_copied);
    auto owned = std::make_unique<test::RecordingDevice>(content);
    test::RecordingDevice& bytes = *owned;
    const std::shared_ptr<BlockDevice> storage = checked(std::move(owned));
    auto device = must(run(open_over(storage, {.writable = true})));
    std::vector<std::byte> data(4096, std::byte{0x66});
    auto now = device->try_write(0, data);
    EXPECT_FALSE(now);
    const auto written = run(device->write(0, data, {}));
    if (target == 0) {  // no cluster: an ordinary allocation
      must(std::move(written));
      must(run(device->close()));
      continue;
    }
    ASSERT_FALSE(written) << target;
    EXPECT_EQ(written.error().kind(), ErrorKind::corrupt);
    EXPECT_FALSE(run(device->write(64 * kib, data, {}))) << "a damaged image is not written any more";
    (void)run(device->close());
    content[79] |= std::byte{2};  // the corrupt bit, and nothing else
    EXPECT_TRUE(bytes.content() == content) << target;
    const auto again =
        run(open_over(checked(std::make_unique<test::RecordingDevice>(bytes.content())), {.writable = true}));
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().kind(), ErrorKind::read_only);
  }
}

TEST(Qcow2Damaged, MetadataThatCountAsFreeAreNotHandedOut) {
  const Damaged good = image_with_data();
  const auto header = must(qcow2::parse_header(std::span(good.content).first(4096), "good"));
  // All refcounts zero, of the header's cluster, too.
  std::vector<std::byte> content = good.content;
  const auto refcounts = load_big<std::uint64_t>(content.data() + header.refcount_table_offset);
  std::fill_n(content.begin() + static_cast<std::ptrdiff_t>(refcounts), 4096, std::byte{0});
  auto owned = std::make_unique<test::RecordingDevice>(content);
  test::RecordingDevice& bytes = *owned;
  auto device = must(run(open_over(checked(std::move(owned)), {.writable = true})));
  must(run(device->write_zeroes({0, 64 * kib}, {})));
  std::vector<std::byte> data(4096, std::byte{0x66});
  const auto written = run(device->write(0, data, {}));
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().kind(), ErrorKind::corrupt);
  (void)run(device->close());
  EXPECT_TRUE(std::equal(content.begin() + 80, content.begin() + 4096, bytes.content().begin() + 80));
}

TEST(Qcow2Damaged, TablesThatOverlapAreNotWritten) {
  const Damaged good = image_with_data();
  auto header = must(qcow2::parse_header(std::span(good.content).first(4096), "good"));
  std::vector<std::byte> content = good.content;
  // The L2 table is said to be where the refcount table is.
  store_big(content.data() + header.l1_offset, header.refcount_table_offset | qcow2::flag_copied);
  const auto opened =
      run(open_over(checked(std::make_unique<test::RecordingDevice>(content)), {.writable = true}));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().kind(), ErrorKind::corrupt);
}

TEST(Qcow2Full, AFullStorageLeaksAtWorstAndGoesOnWhenThereIsRoom) {
  const test::TemporaryFolder folder;
  for (const unsigned cluster_bits : {9u, 12u, 16u}) {
    auto owned = std::make_unique<test::RecordingDevice>();
    test::RecordingDevice& bytes = *owned;
    const std::shared_ptr<BlockDevice> storage = checked(std::move(owned));
    must(run(qcow2::create(*storage, {.size_bytes = disk_bytes, .cluster_bits = cluster_bits})));
    auto device = must(run(open_over(storage, {.writable = true})));
    for (std::uint64_t limit = 300000; limit < 900000; limit += 77777) {
      bytes.limit_bytes = limit;
      const auto full = run(write_all(*device, limit));
      ASSERT_FALSE(full);
      EXPECT_EQ(full.error().kind(), ErrorKind::no_space) << full.error().message();
      (void)run(device->flush());
      const int found = check_with_qemu(folder / "full.qcow2", bytes.content());
      EXPECT_TRUE(found == 0 || found == 3) << cluster_bits << " " << limit;
    }
    bytes.limit_bytes = UINT64_MAX;
    must(run(write_all(*device, 5)));
    std::vector<std::byte> seen(disk_bytes);
    must(run(device->read(0, seen)));
    std::vector<std::byte> wanted(disk_bytes);
    fill(wanted, 0, 5);
    EXPECT_EQ(seen, wanted);
    must(run(device->close()));
    EXPECT_EQ(check_with_qemu(folder / "full.qcow2", bytes.content()), 0);
    // What failed was given back and used again.
    EXPECT_LT(bytes.content().size(), disk_bytes * 5 / 4 + 512 * kib);
  }
}

TEST(Qcow2Full, StorageOfAFixedSizeIsUsedToItsEndAndAgainAfterDiscards) {
  const test::TemporaryFolder folder;
  auto owned =
      std::make_unique<test::RecordingDevice>(std::vector<std::byte>(768 * kib, std::byte{0xee}), false);
  test::RecordingDevice& bytes = *owned;
  const std::shared_ptr<BlockDevice> storage = checked(std::move(owned));
  must(run(qcow2::create(*storage, {.size_bytes = disk_bytes, .cluster_bits = 12})));
  auto device = must(run(open_over(storage, {.writable = true})));
  for (int round = 0; round < 3; ++round) {
    const auto full = run(write_all(*device, 3));
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().kind(), ErrorKind::no_space);
    EXPECT_NE(full.error().message().find("cannot grow"), std::string::npos) << full.error().message();
    // What is discarded can be written elsewhere, also without a flush in between.
    must(run(device->discard({0, 512 * kib})));
    std::vector<std::byte> data(256 * kib);
    fill(data, 768 * kib, 4);
    must(run(device->write(768 * kib, data, {})));
    std::vector<std::byte> seen(data.size());
    must(run(device->read(768 * kib, seen)));
    EXPECT_EQ(seen, data);
    must(run(device->discard({0, disk_bytes})));
    must(run(device->read(768 * kib, seen)));
    EXPECT_TRUE(is_zero(seen));
  }
  must(run(device->close()));
  EXPECT_EQ(bytes.content().size(), 768 * kib);
  EXPECT_EQ(check_with_qemu(folder / "fixed.qcow2", bytes.content()), 0);
}

std::vector<Shape> shapes() {
  return {{"clusters_64k", {}},
          {"clusters_512", {.cluster_bits = 9}},
          {"clusters_512_refcount64", {.cluster_bits = 9, .refcount_order = 6}},
          {"clusters_4k_refcount1", {.cluster_bits = 12, .refcount_order = 0}},
          {"snapshot_4k", {.cluster_bits = 12}, true},
          {"extended_16k", {.cluster_bits = 14, .extended_l2 = true}},
          {"extended_snapshot", {.cluster_bits = 14, .extended_l2 = true}, true},
          {"compressed_4k", {.cluster_bits = 12}, false, true},
          {"backing_4k", {.cluster_bits = 12}, false, false, true},
          {"backing_extended", {.cluster_bits = 14, .extended_l2 = true}, false, false, true},
          {"version_2_backing", {.version = 2, .cluster_bits = 12}, false, false, true},
          {"version_2_snapshot", {.version = 2, .cluster_bits = 12}, true}};
}
INSTANTIATE_TEST_SUITE_P(Shapes, Qcow2Crash, testing::ValuesIn(shapes()),
                         [](const auto& shape) { return shape.param.name; });

}  // namespace
}  // namespace diskferry
