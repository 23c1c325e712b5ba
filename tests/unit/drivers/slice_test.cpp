// A part of a device: nothing outside of it is seen or changed.
#include "drivers/filters/slice.hpp"

#include "drivers/checked_device.hpp"
#include "drivers/image/image.hpp"
#include "drivers/memory/memory_device.hpp"
#include "tests/support/test_runtime.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

namespace diskferry::test {
namespace {

constexpr std::uint64_t whole_bytes = 64 * 1024;

std::shared_ptr<BlockDevice> filled(std::uint32_t block_bytes) {
  std::shared_ptr<BlockDevice> device =
      checked(make_memory_device({.size_bytes = whole_bytes, .block_bytes = block_bytes}));
  must(run(device->write(0, std::vector<std::byte>(whole_bytes, std::byte{7}), {})));
  return device;
}
std::vector<std::byte> read(BlockDevice& device, Range range) {
  std::vector<std::byte> bytes(range.length);
  must(run(device.read(range.offset, bytes)));
  return bytes;
}
bool is_all(const std::vector<std::byte>& bytes, std::byte value) {
  return std::ranges::all_of(bytes, [value](std::byte one) { return one == value; });
}

TEST(Slice, LeavesTheRestAsItIs) {
  for (const Range part : {Range{4096, 8192}, Range{1000, 3001}}) {
    const auto whole = filled(512);
    const auto slice = must(slice_of(whole, part));
    EXPECT_EQ(slice->size_bytes(), part.length);
    must(run(slice->write_zeroes({0, part.length}, {})));
    EXPECT_TRUE(is_all(read(*slice, {0, part.length}), std::byte{0}));
    std::vector<std::byte> wanted(whole_bytes, std::byte{7});
    std::ranges::fill(std::span(wanted).subspan(part.offset, part.length), std::byte{0});
    EXPECT_EQ(read(*whole, {0, whole_bytes}), wanted) << part.offset;
    const auto extents = must(run(slice->extents({0, part.length}, 4)));
    EXPECT_EQ(extents.front().offset, 0u);
    must(run(slice->close()));
  }
}

TEST(Slice, IsTheDeviceWhereItIsAllOfIt) {
  const auto whole = filled(512);
  EXPECT_EQ(must(slice_of(whole, {0, whole_bytes})), whole);
  must(run(whole->close()));
}

TEST(Slice, IsNotLargerThanItsDevice) {
  const auto whole = filled(512);
  for (const Range part : {Range{0, whole_bytes + 1}, Range{whole_bytes, 1}, Range{1, UINT64_MAX}}) {
    const auto refused = slice_of(whole, part);
    ASSERT_FALSE(refused) << part.offset;
    EXPECT_EQ(refused.error().kind(), ErrorKind::mismatch);
  }
  must(run(whole->close()));
}

TEST(Slice, IsADiskInRawStorageOnly) {
  const TemporaryFolder folder;
  const std::string path = folder / "disk";
  std::ofstream(path) << std::string(4096, 'a') << std::string(4096, 'b') << std::string(4096, 'c');
  auto& context = runtime().context();
  const auto uri = ImageUri::from_path(path);
  Image image = must(run(open_image(context, uri, {.format = "raw", .part = Range{4096, 4096}})));
  EXPECT_TRUE(is_all(read(image.device(), {0, image.device().size_bytes()}), std::byte{'b'}));
  must(run(image.close()));
  EXPECT_EQ(run(open_image(context, uri, {.format = "qcow2", .part = Range{0, 4096}})).error().kind(),
            ErrorKind::invalid_argument);
  EXPECT_EQ(run(open_image(context, uri, {.format = "raw", .part = Range{8192, 8192}})).error().kind(),
            ErrorKind::mismatch);
}

}  // namespace
}  // namespace diskferry::test
