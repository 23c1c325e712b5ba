// The file driver where storage is full, fails, or is a block device. What needs loop devices and mounts of
// its own needs root, and says so where it is not.
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/file/file_identity.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/small_file_system.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/drivers/files.hpp"

#include <csignal>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::create;
using test::must;
using test::open;
using test::open_to_write;
using test::read_back;
using test::run;
using test::run_program;
using test::SmallFileSystem;
using test::TemporaryFolder;
using ::testing::HasSubstr;

/// A loop device over a file, for as long as it lives.
class LoopDevice {
 public:
  explicit LoopDevice(const std::string& path, const char* block_bytes = "512") {
    auto made = run_program({"losetup", "-f", "--show", "-b", block_bytes, path});
    if (made.exit_code != 0) return;
    path_ = made.out.substr(0, made.out.find('\n'));
  }
  ~LoopDevice() {
    if (!path_.empty()) (void)run_program({"losetup", "-d", path_});
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

#define NEEDS_ROOT(condition, what) \
  if (!(condition)) GTEST_SKIP() << "cannot make " what " here: that takes root and the kernel's support"

TEST(FullStorage, IsReportedAsSuchAndTheDeviceStaysUsable) {
  const SmallFileSystem small("1M");
  NEEDS_ROOT(small.is_mounted(), "a small tmpfs");
  must(create(small / "disk", {.size_bytes = 4 * mib}));
  auto device = must(open_to_write(small / "disk"));
  const auto data = test::pattern(0, 2 * mib);
  const auto written = run(device->write(0, data, {}));
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().kind(), ErrorKind::no_space);
  EXPECT_THAT(written.error().message(), HasSubstr("free some space"));
  EXPECT_EQ(run(device->write(0, data, {.fua = true})).error().kind(), ErrorKind::no_space);
  EXPECT_EQ(run(device->write_zeroes({0, 4 * mib}, {.may_unmap = false})).error().kind(),
            ErrorKind::no_space);
  must(run(device->write_zeroes({0, 4 * mib}, {.may_unmap = true})));
  must(run(device->write(mib, std::span(data).first(4096), {})));
  must(run(device->flush()));
  must(run(device->close()));
}

TEST(FullStorage, AFailedPreallocationLeavesNothingBehind) {
  const SmallFileSystem small("1M");
  NEEDS_ROOT(small.is_mounted(), "a small tmpfs");
  const auto made = create(small / "disk", {.size_bytes = 4 * mib, .preallocate = true});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().kind(), ErrorKind::no_space);
  EXPECT_NE(::access((small / "disk").c_str(), F_OK), 0);
}

TEST(FullStorage, TheFileSizeLimitOfTheProcessIsLackOfSpace) {
  TemporaryFolder folder;
  must(create(folder / "disk", {.size_bytes = 1000}));
  auto device = must(open_to_write(folder / "disk"));
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit low{.rlim_cur = 10'000, .rlim_max = limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
  const auto written = run(device->write(0, test::pattern(0, 20'000), {}));
  const auto zeroed = run(device->write_zeroes({0, 20'000}, {}));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::signal(SIGXFSZ, before);
  EXPECT_EQ(written.error().kind(), ErrorKind::no_space);
  EXPECT_EQ(zeroed.error().kind(), ErrorKind::no_space);
  EXPECT_EQ(device->size_bytes(), 1000u) << "a failed write moved the end";
  must(run(device->write_zeroes({500, 1000}, {})));
  EXPECT_EQ(device->size_bytes(), 1500u);
  EXPECT_EQ(must(file_identity(folder / "disk")).size_bytes, 10'000u) << "growing cut the file off";
  must(run(device->close()));
}

TEST(FailingStorage, AFlushThatFailedKeepsFailing) {
  const SmallFileSystem small("2M");
  NEEDS_ROOT(small.is_mounted(), "a small tmpfs");
  must(create(small / "backing", {.size_bytes = 16 * mib}));
  const LoopDevice loop(small / "backing");
  NEEDS_ROOT(!loop.path().empty(), "a loop device");
  auto device = must(open_to_write(loop.path()));
  must(run(device->write(0, test::pattern(0, 8 * mib), {})));  // into the page cache: there it fits
  const auto first = run(device->flush());
  ASSERT_FALSE(first) << "the loop device had space after all";
  const auto second = run(device->flush());
  ASSERT_FALSE(second) << "the kernel has forgotten the error, and so have we";
  EXPECT_EQ(second.error().kind(), first.error().kind());
  EXPECT_THAT(second.error().message(), HasSubstr("earlier flush failed"));
  must(run(device->close()));
}

class BlockSizes : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(BlockDevice, BlockSizes, ::testing::Values("512", "4096"),
                         [](const auto& one) { return std::string("of") + one.param; });

TEST_P(BlockSizes, ReadWriteZeroDiscard) {
  TemporaryFolder folder;
  must(create(folder / "backing", {.size_bytes = 4 * mib}));
  const LoopDevice loop(folder / "backing", GetParam());
  NEEDS_ROOT(!loop.path().empty(), "a loop device");
  auto device = must(open_to_write(loop.path()));
  const DeviceInfo& info = device->info();
  const std::uint32_t block = info.block_bytes;
  EXPECT_EQ(std::to_string(block), GetParam());
  EXPECT_EQ(device->size_bytes(), 4 * mib);
  EXPECT_FALSE(info.can_grow);
  EXPECT_FALSE(info.starts_zeroed) << "of a block device nothing is proved";
  EXPECT_TRUE(info.can_discard);
  const auto data = test::pattern(0, 4 * mib);
  must(run(device->write(0, data, {})));
  must(run(device->flush()));
  EXPECT_TRUE(read_back(*device, 0, 4 * mib) == data);
  auto expected = data;
  for (const bool may_unmap : {true, false}) {
    for (const bool fast_only : {true, false}) {
      for (const Range range :
           {Range{0, block}, Range{5 * block, 3 * block}, Range{4 * mib - block, block}, Range{mib, mib}}) {
        SCOPED_TRACE(testing::Message() << may_unmap << fast_only << " " << range.offset);
        must(run(device->write(0, data, {.fua = true})));
        must(run(device->write_zeroes(range, {.may_unmap = may_unmap, .fast_only = fast_only, .fua = true})));
        expected = data;
        std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(range.offset), range.length, std::byte{});
        EXPECT_TRUE(read_back(*device, 0, 4 * mib) == expected);
      }
    }
  }
  must(run(device->write(0, data, {.fua = true})));
  must(run(device->discard({0, 4 * mib})));
  EXPECT_LT(must(file_identity(folder / "backing")).allocated_bytes, mib);
  EXPECT_EQ(must(run(device->extents({0, 4 * mib}, 5))).front().length, 4 * mib);
  must(run(device->close()));
}

TEST(BlockDevice, IsOneWritersAndNobodysWhenTheSystemUsesIt) {
  TemporaryFolder folder;
  must(create(folder / "backing", {.size_bytes = 8 * mib}));
  const LoopDevice loop(folder / "backing");
  NEEDS_ROOT(!loop.path().empty(), "a loop device");
  {
    auto writer = must(open_to_write(loop.path()));
    EXPECT_EQ(open_to_write(loop.path()).error().kind(), ErrorKind::in_use);
    EXPECT_EQ(open(loop.path(), {}).error().kind(), ErrorKind::in_use);
    must(run(writer->close()));
  }
  EXPECT_EQ(create(loop.path(), {.size_bytes = mib}).error().kind(), ErrorKind::already_exists);
  EXPECT_EQ(create(loop.path(), {.size_bytes = 9 * mib, .replace = true}).error().kind(),
            ErrorKind::no_space);
  must(create(loop.path(), {.size_bytes = 8 * mib, .replace = true}));
  const auto formatted = run_program({"mkfs.ext4", "-q", "-F", loop.path()});
  ASSERT_EQ(formatted.exit_code, 0) << formatted.err;
  TemporaryFolder mounted;
  ASSERT_EQ(run_program({"mount", loop.path(), mounted.path()}).exit_code, 0);
  for (const bool writable : {false, true}) {
    const auto opened = open(loop.path(), {.writable = writable});
    ASSERT_FALSE(opened) << "a mounted device";
    EXPECT_EQ(opened.error().kind(), ErrorKind::in_use);
    EXPECT_THAT(opened.error().message(), HasSubstr("mounted"));
  }
  must(run(must(open(loop.path(), {.force_share = true}))->close()));
  EXPECT_EQ(run_program({"umount", mounted.path()}).exit_code, 0);
  must(run(must(open(loop.path(), {}))->close()));
}

/// Writes and zeroes every `step`-th block, from `first` on: the file grows under many hands.
Task<Result<void>> fill_stripe(BlockDevice& device, std::uint64_t first, std::uint64_t step) {
  constexpr std::uint64_t block = 5000;
  for (std::uint64_t number = first; number < 400; number += step) {
    const std::uint64_t offset = number * block;
    if (number % 4 == 3) {
      DISKFERRY_CO_CHECK(co_await device.write_zeroes({offset, block}, {.may_unmap = number % 8 == 3}));
    } else {
      const auto data = test::pattern(offset, block);
      DISKFERRY_CO_CHECK(co_await device.write(offset, data, {.fua = number % 16 == 0}));
    }
  }
  co_return Result<void>{};
}
Task<Result<void>> fill_all(BlockDevice& device, std::uint64_t tasks) {
  TaskGroup group(test::runtime().reactor(0));
  for (std::uint64_t first = 0; first < tasks; ++first)
    group.spawn_on(test::runtime().reactor(first), fill_stripe(device, first, tasks));
  co_return co_await group.join();
}

TEST(FileDevice, GrowsUnderManyHandsWithoutLosingAByte) {
  TemporaryFolder folder;
  must(create(folder / "disk", {.size_bytes = 0}));
  auto device = must(open_to_write(folder / "disk"));
  must(run(fill_all(*device, 16)));
  ASSERT_EQ(device->size_bytes(), 400u * 5000);
  for (std::uint64_t number = 0; number < 400; ++number) {
    const auto got = read_back(*device, number * 5000, 5000);
    ASSERT_TRUE(number % 4 == 3 ? is_zero(got) : got == test::pattern(number * 5000, 5000)) << number;
  }
  must(run(device->close()));
}

}  // namespace
}  // namespace diskferry
