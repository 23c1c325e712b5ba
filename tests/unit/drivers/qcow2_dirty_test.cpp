// Images with the dirty bit, whose refcounts may be anything: opening one for writing counts anew, and the
// power may go at any moment of that.
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/image/qcow2/create.hpp"
#include "drivers/image/qcow2/device.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/drivers/recording_device.hpp"

#include <fmt/format.h>
#include <fstream>

namespace diskferry {
namespace {
using test::must;
using test::run;

constexpr std::uint64_t disk_bytes = 2 * mib;
constexpr std::size_t dirty_byte = 79;  // the lowest of the incompatible features

struct Shape {
  std::string name;
  qcow2::NewImage image;
  bool with_snapshot = false;
  bool compress = false;
};

Result<std::unique_ptr<qcow2::Qcow2Device>> try_open(std::shared_ptr<BlockDevice> storage, bool writable,
                                                     bool compress = false) {
  std::vector<std::byte> start(std::min<std::uint64_t>(2 * mib, storage->size_bytes()));
  must(run(storage->read(0, start)));
  return run(qcow2::Qcow2Device::open(test::runtime().context(),
                                      {.name = "dirty",
                                       .header = must(qcow2::parse_header(start, "dirty")),
                                       .storage = std::move(storage),
                                       .writable = writable,
                                       .compress_writes = compress}));
}

std::shared_ptr<BlockDevice> over(std::vector<std::byte> content, test::RecordingDevice** bytes = nullptr) {
  auto owned = std::make_unique<test::RecordingDevice>(std::move(content));
  if (bytes != nullptr) *bytes = owned.get();
  return checked(std::move(owned));
}

std::vector<std::byte> disk_of(const std::vector<std::byte>& image) {
  auto device = must(try_open(over(image), false));
  std::vector<std::byte> disk(disk_bytes);
  must(run(device->read(0, disk)));
  must(run(device->close()));
  return disk;
}

class Qcow2Dirty : public testing::TestWithParam<Shape> {
 protected:
  test::ProgramResult check(const std::vector<std::byte>& content) const { return qemu({"check"}, content); }
  test::ProgramResult qemu(std::vector<std::string> command, const std::vector<std::byte>& content) const {
    const std::string path = folder_ / "now.qcow2";
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
    command.insert(command.begin(), "qemu-img");
    command.push_back(path);
    return test::run_program(command);
  }
  std::vector<std::byte> from_file() const {
    std::ifstream file(folder_ / "now.qcow2", std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const auto bytes = as_bytes(text);
    return {bytes.begin(), bytes.end()};
  }

  /// An image with data in two thirds of its disk.
  std::vector<std::byte> make() const {
    const Shape& shape = GetParam();
    test::RecordingDevice* bytes = nullptr;
    auto storage = over({}, &bytes);
    auto image = shape.image;
    image.size_bytes = disk_bytes;
    must(run(qcow2::create(*storage, image)));
    std::vector<std::byte> content = bytes->content();
    for (int round = 0; round < 2; ++round) {
      storage = over(content, &bytes);
      auto device = must(try_open(storage, true, shape.compress));
      for (std::uint64_t at = 0; at < disk_bytes; at += 192 * kib) {
        std::vector<std::byte> data(128 * kib);
        test::fill_pattern(data, at, 3);
        std::ranges::fill(std::span(data).subspan(9000, 40000), std::byte{0x11});
        if (round == 0 || at > disk_bytes / 2) must(run(device->write(at, data, {})));
      }
      must(run(device->write_zeroes({300 * kib, 64 * kib}, {.may_unmap = false})));
      must(run(device->close()));
      content = bytes->content();
      if (!shape.with_snapshot || round == 1) continue;
      EXPECT_EQ(qemu({"snapshot", "-c", "one"}, content).exit_code, 0);
      EXPECT_EQ(test::run_program({"qemu-img", "bitmap", "--add", folder_ / "now.qcow2", "b"}).exit_code, 0);
      content = from_file();
    }
    return content;
  }

  /// Refcounts become rubbish, some blocks of them are not there, and some entries say "copied" wrongly.
  static void spoil(std::vector<std::byte>& image, std::mt19937_64& random) {
    const auto header = must(
        qcow2::parse_header(std::span(image).first(std::min<std::size_t>(image.size(), 2 * mib)), "dirty"));
    const std::uint64_t cluster = header.cluster_bytes();
    for (std::uint64_t i = 0; i < header.refcount_table_clusters * cluster / 8; ++i) {
      std::byte* entry = image.data() + header.refcount_table_offset + i * 8;
      const auto block = load_big<std::uint64_t>(entry);
      if (block == 0) continue;
      for (std::uint64_t at = 0; at < cluster; ++at)
        if (random() % 2 == 0) image[block + at] = static_cast<std::byte>(random());
      if (random() % 2 == 0) store_big(entry, std::uint64_t{0});
    }
    for (std::uint64_t i = 0; i < header.l1_entries; ++i) {
      std::byte* l1 = image.data() + header.l1_offset + i * 8;
      const auto table = load_big<std::uint64_t>(l1) & qcow2::offset_mask;
      if (table == 0) continue;
      if (random() % 4 == 0) l1[0] ^= std::byte{0x80};
      const std::size_t step = header.has_extended_l2() ? 16 : 8;
      for (std::uint64_t at = 0; at < cluster; at += step) {
        const auto raw = load_big<std::uint64_t>(image.data() + table + at);
        if ((raw & qcow2::flag_compressed) == 0 && (raw & qcow2::offset_mask) != 0 && random() % 8 == 0)
          image[table + at] ^= std::byte{0x80};
      }
    }
    image[dirty_byte] |= std::byte{1};
  }

  test::TemporaryFolder folder_;
};

TEST_P(Qcow2Dirty, IsCountedAnewAndAnImageCutOffMeanwhileIsCountedAgain) {
  const std::vector<std::byte> good = make();
  ASSERT_EQ(check(good).exit_code, 0);
  const auto disk = disk_of(good);
  std::mt19937_64 random(7);
  const int rounds = GetParam().image.cluster_bits == 9 ? 1 : 2;  // of small clusters there are many
  for (int round = 0; round < rounds; ++round) {
    std::vector<std::byte> start = good;
    spoil(start, random);
    test::RecordingDevice* bytes = nullptr;
    auto storage = over(start, &bytes);
    auto device = must(try_open(storage, true));
    EXPECT_EQ(bytes->content()[dirty_byte] & std::byte{1}, std::byte{0});
    EXPECT_EQ(bytes->content()[dirty_byte] & std::byte{2}, std::byte{0});
    {
      const auto checked_now = check(bytes->content());
      // Its bitmap is in use, and that is no error.
      EXPECT_EQ(checked_now.exit_code, 0) << checked_now.out << checked_now.err;
    }
    must(run(device->close()));
    const auto at_end = check(bytes->content());
    ASSERT_EQ(at_end.exit_code, 0) << at_end.out << at_end.err;
    EXPECT_TRUE(disk_of(bytes->content()) == disk);

    const auto changes = bytes->changes();
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
      for (const auto& cut :
           {in_order,
            test::after_power_cut(at_flush, std::span(changes).subspan(flush, i + 1 - flush), random)}) {
        SCOPED_TRACE(fmt::format("cut after change {} of {} in round {}", i + 1, changes.size(), round));
        if ((cut[dirty_byte] & std::byte{1}) == std::byte{0}) {
          const auto now = check(cut);
          ASSERT_TRUE(now.exit_code == 0 || now.exit_code == 3) << now.out << now.err;
        }
        test::RecordingDevice* once_more = nullptr;
        auto again = must(try_open(over(cut, &once_more), true));
        must(run(again->close()));
        const auto found = check(once_more->content());
        ASSERT_EQ(found.exit_code, 0) << found.out << found.err;
        ASSERT_TRUE(disk_of(once_more->content()) == disk);
      }
    }
  }
}

TEST_P(Qcow2Dirty, MoreThanWrongRefcountsIsRefusedAndNothingIsWritten) {
  const std::vector<std::byte> good = make();
  const auto header =
      must(qcow2::parse_header(std::span(good).first(std::min<std::size_t>(good.size(), 2 * mib)), "dirty"));
  const auto table = load_big<std::uint64_t>(good.data() + header.l1_offset) & qcow2::offset_mask;
  const std::uint64_t end = align_up(good.size(), header.cluster_bytes());
  // The first cluster of the disk is said to lie on tables, or past the end.
  for (const std::uint64_t place : {header.l1_offset, header.refcount_table_offset, table, end + 16 * mib}) {
    std::vector<std::byte> image = good;
    store_big(image.data() + table, place | qcow2::flag_copied);
    image[dirty_byte] |= std::byte{1};
    test::RecordingDevice* bytes = nullptr;
    auto storage = over(image, &bytes);
    const auto opened = try_open(storage, true);
    ASSERT_FALSE(opened) << place;
    EXPECT_EQ(opened.error().kind(), ErrorKind::corrupt) << opened.error().message();
    EXPECT_NE(opened.error().message().find("qemu-img check -r all"), std::string::npos);
    EXPECT_TRUE(bytes->content() == image);
  }
}

std::vector<Shape> shapes() {
  return {{"clusters_64k", {}},
          {"clusters_512", {.cluster_bits = 9}},
          {"clusters_4k_refcount64", {.cluster_bits = 12, .refcount_order = 6}, true},
          {"clusters_4k_refcount1", {.cluster_bits = 12, .refcount_order = 0}},
          {"snapshot_4k", {.cluster_bits = 12}, true},
          {"extended_snapshot", {.cluster_bits = 14, .extended_l2 = true}, true},
          {"compressed_4k_snapshot", {.cluster_bits = 12}, true, true}};
}
INSTANTIATE_TEST_SUITE_P(Shapes, Qcow2Dirty, testing::ValuesIn(shapes()),
                         [](const auto& shape) { return shape.param.name; });

}  // namespace
}  // namespace diskferry
