// The same image read by us and by QEMU: content and extents must agree, for images of every shape made from
// a seed.
#include "diskferry/units.hpp"
#include "tests/interop/qcow2_images.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <fmt/format.h>
#include <fstream>

namespace diskferry::test {
namespace {

void expect_same(const std::string& path, const TemporaryFolder& folder, std::uint64_t seed) {
  auto image = open_for_test(path, {.format = "qcow2"});
  const auto theirs = qemu_content(path, "qcow2", folder / "scratch.raw");
  const auto ours = our_content(image, seed);
  ASSERT_EQ(ours.size(), theirs.size());
  const auto differs = std::ranges::mismatch(ours, theirs).in1;
  EXPECT_EQ(differs - ours.begin(), static_cast<std::ptrdiff_t>(ours.size()))
      << "first difference, DISKFERRY_SEED=" << test_seed();
  const auto expected = qemu_map(path);
  EXPECT_EQ(comparable(our_map(image, 1000)), expected)
      << "ours:\n"
      << describe(comparable(our_map(image, 1000))) << "qemu:\n"
      << describe(expected) << "DISKFERRY_SEED=" << test_seed();
  EXPECT_EQ(comparable(our_map(image, 3)), expected) << "in small portions";
  must(run(image.close()));
}

struct Shape {
  std::string name;
  std::string options;
  std::uint64_t cluster_bytes = 65536;
  bool compressed = false;
  std::uint64_t size_bytes = 24 * mib;
};
void PrintTo(const Shape& shape, std::ostream* out) {
  *out << shape.name;
}

class RandomImages : public ::testing::TestWithParam<Shape> {};

/// A chain of three: raw or qcow2 below, shorter or longer, then two overlays with relative names.
TEST_P(RandomImages, ReadAsQemuReadsThem) {
  const Shape& shape = GetParam();
  std::mt19937_64 random(test_seed() ^ std::hash<std::string>{}(shape.name));
  TemporaryFolder folder;
  const bool raw_base = random() % 2 == 0;
  const std::uint64_t size = shape.size_bytes;
  const std::uint64_t base_size = align_down(size / 2 + random() % size, 512);
  if (raw_base) {
    std::ofstream(folder / "base.img").close();
    std::filesystem::resize_file(folder / "base.img", base_size);
  } else {
    create_with_qemu({.path = folder / "base.img", .options = shape.options, .size_bytes = base_size});
  }
  scribble(folder / "base.img",
           {.size_bytes = base_size,
            .cluster_bytes = shape.cluster_bytes,
            .compressed = shape.compressed && !raw_base,
            .format = raw_base ? "raw" : "qcow2"},
           random);
  create_with_qemu({.path = folder / "middle.qcow2",
                    .backing = "base.img",
                    .backing_format = raw_base ? "raw" : "qcow2",
                    .size_bytes = size - 512 * (random() % 2000)});
  scribble(folder / "middle.qcow2", {.size_bytes = size - mib, .steps = 15, .compressed = true}, random);
  create_with_qemu({.path = folder / "top.qcow2",
                    .options = shape.options.starts_with("prealloc") ? "" : shape.options,
                    .backing = folder / "middle.qcow2",
                    .size_bytes = size});
  scribble(
      folder / "top.qcow2",
      {.size_bytes = size, .cluster_bytes = shape.cluster_bytes, .steps = 25, .compressed = shape.compressed},
      random);
  expect_same(folder / "top.qcow2", folder, random());
  if (!raw_base) expect_same(folder / "base.img", folder, random());
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, RandomImages,
    ::testing::Values(
        Shape{"v2", "compat=0.10"}, Shape{"v2_zlib", "compat=0.10", 65536, true},
        Shape{"cluster_512", "cluster_size=512", 512, true, 4 * mib},
        Shape{"cluster_1K", "cluster_size=1k,refcount_bits=1", 1024, true, 4 * mib},
        Shape{"cluster_4K", "cluster_size=4k,refcount_bits=64", 4096, true},
        Shape{"cluster_32K", "cluster_size=32k,refcount_bits=8", 32768, true},
        Shape{"cluster_64K_zlib", "", 65536, true},
        Shape{"cluster_64K_zstd", "compression_type=zstd", 65536, true},
        Shape{"cluster_128K", "cluster_size=128k", 131072, true},
        Shape{"cluster_2M_zlib", "cluster_size=2M", 2 * mib, true, 40 * mib},
        Shape{"cluster_2M_zstd", "cluster_size=2M,compression_type=zstd", 2 * mib, true, 40 * mib},
        Shape{"extended_16K", "extended_l2=on,cluster_size=16k", 16384, true},
        Shape{"extended_64K", "extended_l2=on", 65536, true},
        Shape{"extended_128K_zstd", "extended_l2=on,cluster_size=128k,compression_type=zstd", 131072, true},
        Shape{"extended_2M", "extended_l2=on,cluster_size=2M", 2 * mib, false, 40 * mib},
        Shape{"lazy", "lazy_refcounts=on", 65536, false},
        Shape{"preallocated", "preallocation=falloc", 65536, false}),
    [](const auto& test) { return test.param.name; });

TEST(Qcow2Read, AnEmptyDiskOf8TiBIsMappedAtOnce) {
  TemporaryFolder folder;
  create_with_qemu({.path = folder / "big.qcow2", .size_bytes = 8 * tib});
  auto image = open_for_test(folder / "big.qcow2", {.format = "qcow2"});
  const auto start = std::chrono::steady_clock::now();
  const auto extents = our_map(image, 100);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(200));
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_TRUE(extents[0].reads_zero);
  EXPECT_EQ(extents[0].depth, Extent::depth_none);
  must(run(image.close()));
}

TEST(Qcow2Read, SnapshotsAreListedAndRead) {
  TemporaryFolder folder;
  const std::string path = folder / "disk.qcow2";
  create_with_qemu({.path = path, .size_bytes = 8 * mib});
  run_ok({"qemu-io", "-c", "write -P 17 1M 1M", path});
  run_ok({"qemu-img", "snapshot", "-c", "before", path});
  run_ok({"qemu-img", "resize", "-q", path, "16M"});
  run_ok({"qemu-img", "bitmap", "--add", path, "dirty"});
  run_ok({"qemu-io", "-c", "write -P 34 1M 2M", path});
  auto now = open_for_test(path);
  EXPECT_EQ(now.bitmaps().size(), 1u);
  ASSERT_EQ(now.layers()[0].snapshots.size(), 1u);
  EXPECT_EQ(now.layers()[0].snapshots[0].name, "before");
  EXPECT_EQ(now.layers()[0].snapshots[0].size_bytes, 8 * mib);
  must(run(now.close()));
  auto before = open_for_test(path, {.snapshot = "before"});
  EXPECT_EQ(before.device().size_bytes(), 8 * mib);
  EXPECT_TRUE(before.bitmaps().empty()) << "it tells of the disk as it is now, of another size even";
  EXPECT_FALSE(before.layers()[0].bitmaps[0].problem.empty());
  run_ok({"qemu-img", "convert", "-l", "snapshot.name=before", "-O", "raw", path, folder / "theirs.raw"});
  // QEMU shows the old content at the new size.
  auto theirs = qemu_content(folder / "theirs.raw", "raw", folder / "scratch.raw");
  theirs.resize(8 * mib);
  EXPECT_TRUE(our_content(before, 1) == theirs);
  must(run(before.close()));
  const auto missing = try_open(path, {.snapshot = "after"});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().kind(), ErrorKind::not_found);
}

TEST(Qcow2Read, BitmapsAreListedAndRead) {
  TemporaryFolder folder;
  const std::string path = folder / "disk.qcow2";
  create_with_qemu({.path = path, .size_bytes = 64 * mib});
  run_ok({"qemu-img", "bitmap", "--add", "-g", "64K", path, "b0"});
  run_ok({"qemu-io", "-c", "write -P 1 1M 128K", "-c", "write -P 1 63M 1M", path});
  auto image = open_for_test(path);
  ASSERT_EQ(image.bitmaps().size(), 1u);
  EXPECT_EQ(image.bitmaps()[0]->description().name, "b0");
  EXPECT_EQ(image.bitmaps()[0]->description().granularity_bytes, 64 * kib);
  const auto ranges = must(run(image.bitmaps()[0]->ranges({0, 64 * mib}, 10)));
  ASSERT_EQ(ranges.size(), 4u);
  EXPECT_FALSE(ranges[0].is_dirty);
  EXPECT_EQ(ranges[1].offset, 1 * mib);
  EXPECT_EQ(ranges[1].length, 128 * kib);
  EXPECT_TRUE(ranges[1].is_dirty);
  EXPECT_EQ(ranges[3].offset, 63 * mib);
  EXPECT_EQ(ranges[3].length, 1 * mib);
  EXPECT_EQ(must(run(image.bitmaps()[0]->ranges({1 * mib + 5, 7}, 10))).size(), 1u);
  must(run(image.close()));
}

TEST(Qcow2Read, ExternalDataFilesAreOptIn) {
  TemporaryFolder folder;
  for (const std::string raw : {"off", "on"}) {
    const std::string path = folder / ("disk_" + raw + ".qcow2");
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
            "data_file=" + (folder / ("data_" + raw)) + ",data_file_raw=" + raw, path, "8M"});
    run_ok({"qemu-io", "-c", "write -P 9 0 64K", "-c", "write -P 7 3M 100K", path});
    const auto refused = try_open(path);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind(), ErrorKind::permission);
    auto image = open_for_test(path, {.allow_data_file = true});
    EXPECT_TRUE(our_content(image, 1) == qemu_content(path, "qcow2", folder / "scratch.raw"));
    EXPECT_EQ(comparable(our_map(image, 100)), qemu_map(path));
    must(run(image.close()));
  }
}

TEST(Qcow2Read, OddSizesOfDiskAndBase) {
  TemporaryFolder folder;
  std::ofstream(folder / "base.raw", std::ios::binary) << std::string(100001, 'x');
  create_with_qemu({.path = folder / "top.qcow2",
                    .backing = "base.raw",
                    .backing_format = "raw",
                    .size_bytes = 200 * 1024});
  auto image = open_for_test(folder / "top.qcow2");
  const auto content = our_content(image, 1);
  EXPECT_TRUE(is_zero(std::span(content).subspan(100001)));
  EXPECT_EQ(content[100000], std::byte{'x'});
  must(run(image.close()));
}

}  // namespace
}  // namespace diskferry::test
