// What we write, read by QEMU: random writes, zeroes, discards and flushes, many at once on two reactors,
// against a model; then `qemu-img check` must find nothing at all, and `qemu-img convert` the model's
// content.
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/image/image.hpp"
#include "tests/interop/qcow2_images.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <list>
#include <mutex>

namespace diskferry {
namespace {
using test::must;
using test::run;

struct Shape {
  std::string name;
  ImageCreateOptions create;
  bool with_backing = false;
  bool with_snapshot = false;  ///< taken by QEMU half way
  Compression compression = Compression::none;
};

constexpr std::uint64_t disk_bytes = 6 * mib + 1536;

/// The disk as it should be, and who is at work where.
struct Model {
  std::vector<std::byte> content;
  std::mutex guard;
  std::list<Range> busy;

  std::optional<std::list<Range>::iterator> claim(Range range) {
    std::lock_guard lock(guard);
    for (const Range& one : busy)
      if (one.overlaps(range)) return std::nullopt;
    return busy.insert(busy.end(), range);
  }
  void release(std::list<Range>::iterator place) {
    std::lock_guard lock(guard);
    busy.erase(place);
  }
};

Range random_range(std::mt19937_64& random, std::uint64_t size) {
  static constexpr std::array<std::uint64_t, 8> lengths{1, 512, 4096, 4096, 65536, 70000, 300000, 1048576};
  const std::uint64_t length = std::min(size, 1 + random() % lengths[random() % lengths.size()]);
  std::uint64_t offset = random() % (size - length + 1);
  if (random() % 2 == 0) offset = align_down(offset, 65536);
  if (random() % 8 == 0)
    return {align_down(offset, 65536), size - align_down(offset, 65536)};  // up to the end
  return {offset, length};
}

Task<Result<void>> work(BlockDevice& device, Model& model, std::uint64_t seed, int steps) {
  std::mt19937_64 random(seed);
  for (int step = 0; step < steps; ++step) {
    const Range range = random_range(random, model.content.size());
    const auto place = model.claim(range);
    if (!place) continue;
    const auto part = std::span(model.content).subspan(range.offset, range.length);
    switch (random() % 10) {
      case 0:
      case 1: {
        DISKFERRY_CO_CHECK(co_await device.write_zeroes(range, {.may_unmap = random() % 2 == 0}));
        std::ranges::fill(part, std::byte{0});
        break;
      }
      case 2: {
        DISKFERRY_CO_CHECK(co_await device.discard(range));
        std::vector<std::byte> now(range.length);
        DISKFERRY_CO_CHECK(co_await device.read(range.offset, now));
        for (std::size_t i = 0; i < now.size(); ++i) {
          if (now[i] != part[i] && now[i] != std::byte{0}) {
            ADD_FAILURE() << "seed " << seed << ": discarded byte " << range.offset + i
                          << " reads as something else";
            break;
          }
        }
        std::ranges::copy(now, part.begin());
        break;
      }
      case 3:
        DISKFERRY_CO_CHECK(co_await device.flush());
        break;
      case 4: {
        std::vector<std::byte> now(range.length);
        DISKFERRY_CO_CHECK(co_await device.read(range.offset, now));
        EXPECT_TRUE(std::ranges::equal(now, part))
            << "seed " << seed << ": " << range.offset << "+" << range.length;
        break;
      }
      default: {
        test::fill_pattern(part, range.offset, random());
        if (random() % 2 == 0) {  // something that can be compressed
          for (std::size_t i = 251; i < part.size(); ++i)
            part[i] = part[i % 251] ^ static_cast<std::byte>(i >> 13);
        }
        if (random() % 4 == 0 && range.length > 100000)
          std::ranges::fill(part.subspan(30000, 70000), std::byte{0});
        if (auto now = device.try_write(range.offset, part); now) {
          DISKFERRY_CO_CHECK(*now);
        } else {
          DISKFERRY_CO_CHECK(co_await device.write(range.offset, part, {.fua = random() % 16 == 0}));
        }
      }
    }
    model.release(*place);
  }
  co_return Result<void>{};
}

Task<Result<void>> work_at_once(BlockDevice& device, Model& model, std::uint64_t seed, int steps) {
  TaskGroup group(test::runtime().reactor(0));
  for (unsigned i = 0; i < 6; ++i)
    group.spawn_on(test::runtime().reactor(i % 2), work(device, model, seed * 100 + i, steps));
  co_return co_await group.join();
}

void expect_clean(const std::string& path) {
  const auto check = test::run_program({"qemu-img", "check", "-f", "qcow2", path});
  EXPECT_EQ(check.exit_code, 0) << check.out << check.err;
}

class Qcow2Write : public testing::TestWithParam<Shape> {
 protected:
  std::string make(const test::TemporaryFolder& folder, std::vector<std::byte>& content) {
    Shape shape = GetParam();
    content.assign(disk_bytes, std::byte{0});
    shape.create.format = "qcow2";
    shape.create.size_bytes = disk_bytes;
    if (shape.with_backing) {
      // Shorter than the disk, and of an odd size.
      const std::uint64_t below = 4 * mib + 512;
      test::fill_pattern(std::span(content).first(below), 0, 77);
      std::ofstream(folder / "base.raw", std::ios::binary)
          .write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(below));
      shape.create.backing_name = "base.raw";
      shape.create.backing_format = "raw";
    }
    const std::string path = folder / "disk.qcow2";
    must(run(create_image(test::runtime().context(), ImageUri::from_path(path), shape.create)));
    expect_clean(path);
    return path;
  }
};

TEST_P(Qcow2Write, QemuFindsWhatWasWrittenAndNothingToRepair) {
  const std::uint64_t seed = test::test_seed();
  const test::TemporaryFolder folder;
  Model model;
  const std::string path = make(folder, model.content);
  for (int round = 0; round < 3; ++round) {
    auto image = test::open_for_test(
        path, {.format = "qcow2", .writable = true, .compression = GetParam().compression});
    if (round == 0)
      EXPECT_EQ(
          image.device().info().starts_zeroed,
          !GetParam().with_backing && GetParam().create.preallocate == ImageCreateOptions::Preallocate::off);
    must(run(work_at_once(image.device(), model, seed + static_cast<unsigned>(round), 40)));
    must(run(image.close()));
    expect_clean(path);
    const auto seen = test::qemu_content(path, "qcow2", folder / "flat.raw");
    ASSERT_EQ(seen.size(), model.content.size());
    const auto differs = std::ranges::mismatch(seen, model.content).in1 - seen.begin();
    ASSERT_EQ(differs, static_cast<std::ptrdiff_t>(seen.size())) << "seed " << seed << " round " << round;
    // QEMU writes after us; then we after QEMU.
    if (GetParam().with_snapshot)
      test::run_ok({"qemu-img", "snapshot", "-c", fmt::format("s{}", round), path});
    test::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 7 100k 300k", "-c", "write -z 1M 128k", "-c",
                  "write -P 9 5M 3k", path});
    std::ranges::fill(std::span(model.content).subspan(100 * kib, 300 * kib), std::byte{7});
    std::ranges::fill(std::span(model.content).subspan(1 * mib, 128 * kib), std::byte{0});
    std::ranges::fill(std::span(model.content).subspan(5 * mib, 3 * kib), std::byte{9});
  }
  expect_clean(path);
}

Task<Result<void>> change_some(BlockDevice& device) {
  const auto data = test::pattern(0, 4096);
  DISKFERRY_CO_CHECK(co_await device.write(1 * mib, data, {}));
  DISKFERRY_CO_CHECK(co_await device.write(1 * mib + 128 * kib, data, {}));
  DISKFERRY_CO_CHECK(co_await device.write_zeroes({3 * mib, 64 * kib}, {}));
  co_return co_await device.flush();
}

Task<Result<std::vector<BitmapRange>>> all_ranges(Image& image, std::size_t bitmap) {
  std::vector<BitmapRange> all;
  while (all.empty() || all.back().offset + all.back().length < image.device().size_bytes()) {
    const std::uint64_t at = all.empty() ? 0 : all.back().offset + all.back().length;
    DISKFERRY_CO_TRY(const auto more,
                     co_await image.bitmaps()[bitmap]->ranges({at, image.device().size_bytes() - at}, 100));
    all.insert(all.end(), more.begin(), more.end());
  }
  co_return all;
}

/// Everybody changes the same few clusters at once; each 512 bytes are one request's.
Task<Result<void>> fight(BlockDevice& device, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  constexpr std::uint64_t arena = 512 * kib;
  for (int step = 0; step < 150; ++step) {
    const std::uint64_t length = 512 * (1 + random() % 300);
    const Range range{align_down(random() % (arena - length), 512), length};
    switch (random() % 8) {
      case 0:
        DISKFERRY_CO_CHECK(co_await device.write_zeroes(range, {.may_unmap = random() % 2 == 0}));
        break;
      case 1:
      case 2:
        DISKFERRY_CO_CHECK(co_await device.discard({align_down(range.offset, 65536), 65536}));
        break;
      case 3:
        DISKFERRY_CO_CHECK(co_await device.flush());
        break;
      default: {
        std::vector<std::byte> data(length);
        const std::uint64_t tag = random() | 1;
        for (std::size_t i = 0; i < length; i += 8)
          store_big(data.data() + i, tag ^ ((range.offset + i) / 512 * 2));
        if (auto now = device.try_write(range.offset, data); now) {
          DISKFERRY_CO_CHECK(*now);
        } else {
          DISKFERRY_CO_CHECK(co_await device.write(range.offset, data, {}));
        }
        // What is read meanwhile is somebody's, whole.
        DISKFERRY_CO_CHECK(co_await device.read(range.offset, data));
        for (std::size_t i = 0; i < length; i += 8) {
          if (load_big<std::uint64_t>(data.data() + i) % 2 == 0 &&
              load_big<std::uint64_t>(data.data() + i) != 0)
            ADD_FAILURE() << "seed " << seed << ": rubbish at " << range.offset + i;
        }
      }
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> fight_at_once(BlockDevice& device, std::uint64_t seed) {
  TaskGroup group(test::runtime().reactor(0));
  for (unsigned i = 0; i < 8; ++i)
    group.spawn_on(test::runtime().reactor(i % 2), fight(device, seed * 100 + i));
  co_return co_await group.join();
}

TEST_P(Qcow2Write, RequestsThatOverlapLeaveWholeBlocksAndSoundTables) {
  const std::uint64_t seed = test::test_seed();
  const test::TemporaryFolder folder;
  std::vector<std::byte> content;
  const std::string path = make(folder, content);
  auto image =
      test::open_for_test(path, {.format = "qcow2", .writable = true, .compression = GetParam().compression});
  must(run(image.device().write_zeroes({0, 512 * kib}, {})));
  must(run(fight_at_once(image.device(), seed)));
  must(run(image.close()));
  expect_clean(path);
  const auto seen = test::qemu_content(path, "qcow2", folder / "flat.raw");
  for (std::size_t at = 0; at < 512 * kib; at += 512) {
    for (std::size_t i = 8; i < 512; i += 8) {
      ASSERT_EQ(load_big<std::uint64_t>(seen.data() + at), load_big<std::uint64_t>(seen.data() + at + i))
          << "seed " << seed << ": block at " << at << " is of two writers";
    }
  }
}

std::uint64_t number_after(const std::string& text, const std::string& key) {
  const auto at = text.find("\"" + key + "\": ");
  return at == std::string::npos ? 0 : std::stoull(text.substr(at + key.size() + 4));
}

Task<Result<void>> write_all(BlockDevice& device, std::span<const std::byte> content) {
  for (std::size_t at = 0; at < content.size(); at += 4 * mib)
    DISKFERRY_CO_CHECK(co_await device.write(
        at, content.subspan(at, std::min<std::size_t>(4 * mib, content.size() - at)), {}));
  co_return Result<void>{};
}

TEST(Qcow2Compressed, QemuInflatesWhatWeDeflateInClustersOfAnySize) {
  // A program's code: matches reach back as far as the window allows.
  std::ifstream file("/proc/self/exe", std::ios::binary);
  std::string program(8 * mib + 12800, '\0');
  file.read(program.data(), static_cast<std::streamsize>(program.size()));
  const auto content = as_bytes(program);
  for (const std::uint64_t cluster : {4 * kib, 64 * kib, 2 * mib}) {
    for (const Compression compression : {Compression::zlib, Compression::zstd}) {
      const test::TemporaryFolder folder;
      const std::string path = folder / "disk.qcow2";
      must(run(create_image(test::runtime().context(), ImageUri::from_path(path),
                            {.format = "qcow2",
                             .size_bytes = content.size(),
                             .cluster_bytes = cluster,
                             .compression_type = compression})));
      auto image =
          test::open_for_test(path, {.format = "qcow2", .writable = true, .compression = compression});
      must(run(write_all(image.device(), content)));
      must(run(image.close()));
      const auto check = test::run_ok({"qemu-img", "check", "--output=json", path});
      EXPECT_GT(number_after(check, "compressed-clusters"), content.size() / cluster / 2) << check;
      const auto seen = test::qemu_content(path, "qcow2", folder / "flat.raw");
      EXPECT_TRUE(std::ranges::equal(seen, content)) << cluster;
    }
  }
}

Task<Result<void>> write_every_sixteenth(BlockDevice& device, unsigned first) {
  const auto data = test::pattern(first, 64 * kib);
  for (std::uint64_t at = first * data.size(); at < device.size_bytes(); at += 16 * data.size())
    DISKFERRY_CO_CHECK(co_await device.write(at, data, {}));
  co_return Result<void>{};
}

Task<Result<void>> write_sixteen_at_once(BlockDevice& device) {
  TaskGroup group(test::runtime().reactor(0));
  for (unsigned i = 0; i < 16; ++i)
    group.spawn_on(test::runtime().reactor(i % 2), write_every_sixteenth(device, i));
  co_return co_await group.join();
}

/// With the smallest clusters the first refcount table reaches 8 MiB, so it grows twice here; every write in
/// flight finds it too small then, and only one may make it larger.
TEST(Qcow2Growth, AFileIsNotMuchLongerThanWhatItHolds) {
  const test::TemporaryFolder folder;
  const std::string path = folder / "disk.qcow2";
  constexpr std::uint64_t size_bytes = 24 * mib;
  must(run(create_image(test::runtime().context(), ImageUri::from_path(path),
                        {.format = "qcow2", .size_bytes = size_bytes, .cluster_bytes = 512})));
  auto image = test::open_for_test(path, {.format = "qcow2", .writable = true});
  must(run(write_sixteen_at_once(image.device())));
  must(run(image.close()));
  expect_clean(path);
  // An L2 entry of 8 and a refcount of 2 bytes for each 512, the L1 table, and the gaps of a table that
  // moved.
  EXPECT_LT(std::filesystem::file_size(path), size_bytes + size_bytes / 20);
}

TEST(Qcow2DataFile, GuestDataGoThereAndARawOneReadsRightByItself) {
  const std::uint64_t seed = test::test_seed();
  for (const bool raw : {false, true}) {
    for (const bool extended : {false, true}) {
      const test::TemporaryFolder folder;
      const std::string path = folder / "disk.qcow2";
      test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
                    fmt::format("data_file={},data_file_raw={},extended_l2={}", folder / "data.raw",
                                raw ? "on" : "off", extended ? "on" : "off"),
                    path, fmt::format("{}", disk_bytes)});
      Model model;
      model.content.assign(disk_bytes, std::byte{0});
      for (int round = 0; round < 2; ++round) {
        auto image =
            test::open_for_test(path, {.format = "qcow2", .writable = true, .allow_data_file = true});
        must(run(work_at_once(image.device(), model, seed + static_cast<unsigned>(round), 40)));
        must(run(image.close()));
        expect_clean(path);
        EXPECT_TRUE(test::qemu_content(path, "qcow2", folder / "flat.raw") == model.content)
            << "seed " << seed;
        if (!raw) continue;
        auto flat = test::qemu_content(folder / "data.raw", "raw", folder / "flat2.raw");
        ASSERT_GE(flat.size(), model.content.size());
        flat.resize(model.content.size());  // QEMU makes the file as long as whole clusters are
        const auto differs = std::ranges::mismatch(flat, model.content).in1 - flat.begin();
        EXPECT_EQ(differs, static_cast<std::ptrdiff_t>(flat.size())) << "seed " << seed;
      }
    }
  }
}

TEST(Qcow2DataFile, ARawOneReadsAsTheImageDoesAlsoWhenRequestsOverlap) {
  const std::uint64_t seed = test::test_seed();
  for (const std::string extended : {"off", "on"}) {
    const test::TemporaryFolder folder;
    const std::string path = folder / "disk.qcow2";
    test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
                  "data_file=" + (folder / "data.raw") + ",data_file_raw=on,extended_l2=" + extended, path,
                  "1M"});
    auto image = test::open_for_test(path, {.format = "qcow2", .writable = true, .allow_data_file = true});
    must(run(fight_at_once(image.device(), seed)));
    must(run(image.close()));
    expect_clean(path);
    const auto raw = test::qemu_content(folder / "data.raw", "raw", folder / "flat.raw");
    EXPECT_TRUE(test::qemu_content(path, "qcow2", folder / "flat2.raw") == raw) << "seed " << seed;
  }
}

TEST(Qcow2Bitmaps, ThoseThatRecordWritesAreKeptTrueAndTheOthersAlone) {
  const test::TemporaryFolder folder;
  const std::string path = folder / "disk.qcow2";
  must(run(create_image(test::runtime().context(), ImageUri::from_path(path),
                        {.format = "qcow2", .size_bytes = disk_bytes})));
  test::run_ok({"qemu-img", "bitmap", "--add", path, "records"});
  test::run_ok({"qemu-img", "bitmap", "--add", "--disable", path, "stands"});
  test::run_ok({"qemu-io", "-f", "qcow2", "-c", "write 0 64k", path});
  {
    auto image = test::open_for_test(path, {.format = "qcow2", .writable = true});
    must(run(change_some(image.device())));
    // Until it is closed, a crash would leave an invalid bitmap, not a wrong one.
    const auto meanwhile = test::run_ok({"qemu-img", "info", "-U", "--output=json", path});
    EXPECT_NE(meanwhile.find("in-use"), std::string::npos) << meanwhile;
    must(run(image.close()));
  }
  expect_clean(path);
  const auto info = test::run_ok({"qemu-img", "info", "--output=json", path});
  EXPECT_EQ(info.find("in-use"), std::string::npos) << info;
  // QEMU takes it over, and adds to it.
  test::run_ok({"qemu-io", "-f", "qcow2", "-c", "write 5M 4k", path});
  expect_clean(path);
  auto image = test::open_for_test(path);
  ASSERT_EQ(image.bitmaps().size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    std::vector<std::uint64_t> dirty;
    for (const BitmapRange& one : must(run(all_ranges(image, i))))
      for (std::uint64_t at = one.offset; one.is_dirty && at < one.offset + one.length; at += 64 * kib)
        dirty.push_back(at);
    const bool records = image.bitmaps()[i]->description().name == "records";
    const std::vector<std::uint64_t> wanted{0, 1 * mib, 1 * mib + 128 * kib, 3 * mib, 5 * mib};
    EXPECT_EQ(dirty, records ? wanted : std::vector<std::uint64_t>{});
  }
  must(run(image.close()));
}

TEST(Qcow2Lazy, WhatQemuDidNotCountIsCountedWhenTheImageIsOpenedForWriting) {
  for (const std::string options :
       {"cluster_size=4k", "cluster_size=64k,extended_l2=on", "refcount_bits=8"}) {
    const test::TemporaryFolder folder;
    const std::string path = folder / "disk.qcow2";
    test::run_ok(
        {"qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on," + options, path, "64M"});
    test::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 1 0 3M", "-c", "write -c -P 2 40M 2M", path});
    test::run_ok({"qemu-img", "snapshot", "-c", "one", path});
    // Durable, and then no time to count.
    (void)test::run_program({"qemu-io", "-f", "qcow2", "-c", "write -P 3 1M 1M", "-c", "write -P 4 50M 5M",
                             "-c", "write -z 41M 512k", "-c", "flush", "-c", "abort", path});
    const auto before = test::qemu_content(path, "qcow2", folder / "flat.raw");
    auto reading = test::open_for_test(path);
    EXPECT_TRUE(reading.layers().front().is_dirty);
    must(run(reading.close()));
    auto image = test::open_for_test(path, {.format = "qcow2", .writable = true});
    const auto data = test::pattern(0, 100000);
    must(run(image.device().write(51 * mib, data, {})));
    must(run(image.close()));
    expect_clean(path);
    auto wanted = before;
    std::ranges::copy(data, wanted.begin() + 51 * mib);
    EXPECT_TRUE(test::qemu_content(path, "qcow2", folder / "flat.raw") == wanted) << options;
    const auto info = test::run_ok({"qemu-img", "info", "--output=json", path});
    EXPECT_EQ(info.find("\"dirty-flag\": true"), std::string::npos) << info;
    test::run_ok({"qemu-img", "snapshot", "-a", "one", path});
    expect_clean(path);
  }
}

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  all.push_back({"plain", {}});
  all.push_back({"backing", {}, true});
  all.push_back({"snapshots", {}, false, true});
  all.push_back({"backing_snapshots", {}, true, true});
  all.push_back({"zlib", {}, false, false, Compression::zlib});
  all.push_back({"zstd_backing", {.compression_type = Compression::zstd}, true, false, Compression::zstd});
  all.push_back({"zlib_snapshots_refcount8", {.refcount_bits = 8}, true, true, Compression::zlib});
  all.push_back({"zlib_refcount1", {.refcount_bits = 1}, true, false, Compression::zlib});
  all.push_back({"v2", {.compatibility = "0.10"}});
  all.push_back({"v2_backing_snapshots", {.compatibility = "0.10"}, true, true});
  all.push_back({"extended", {.extended_l2 = true}});
  all.push_back({"extended_backing_snapshots", {.extended_l2 = true}, true, true});
  all.push_back(
      {"extended_16k_zlib", {.cluster_bytes = 16384, .extended_l2 = true}, true, false, Compression::zlib});
  all.push_back({"clusters_512", {.cluster_bytes = 512}});
  all.push_back({"clusters_512_refcount64_backing", {.cluster_bytes = 512, .refcount_bits = 64}, true});
  all.push_back({"clusters_4k_refcount1", {.cluster_bytes = 4096, .refcount_bits = 1}, true});
  all.push_back({"clusters_4k_refcount2_zlib",
                 {.cluster_bytes = 4096, .refcount_bits = 2},
                 true,
                 false,
                 Compression::zlib});
  all.push_back({"clusters_2m_refcount32", {.cluster_bytes = 2097152, .refcount_bits = 32}, true, true});
  all.push_back(
      {"clusters_2m_zlib", {.cluster_bytes = 2097152, .refcount_bits = 4}, false, false, Compression::zlib});
  all.push_back({"metadata", {.preallocate = ImageCreateOptions::Preallocate::metadata}});
  all.push_back({"full", {.preallocate = ImageCreateOptions::Preallocate::full}});
  return all;
}
INSTANTIATE_TEST_SUITE_P(Shapes, Qcow2Write, testing::ValuesIn(shapes()),
                         [](const auto& shape) { return shape.param.name; });

}  // namespace
}  // namespace diskferry
