// Each emulation and each assertion of the checking layer, over a device that writes down what it was asked.
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <fmt/format.h>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;

struct Calls {
  std::vector<std::string> made;
  std::vector<Extent> extents;
  AsyncEvent* until = nullptr;    // reads wait for it
  AsyncEvent* reached = nullptr;  // and set this when they do
  std::string take() { return fmt::format("{}", fmt::join(std::exchange(made, {}), " ")); }
};

class RecordingDevice final : public BlockDevice {
 public:
  RecordingDevice(Calls& calls, DeviceInfo info, std::uint64_t size_bytes)
      : calls_(calls), info_(std::move(info)), size_bytes_(size_bytes) {}
  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    calls_.made.push_back(fmt::format("read:{}+{}", offset, into.size()));
    if (calls_.reached != nullptr) calls_.reached->set();
    if (calls_.until != nullptr) DISKFERRY_CO_CHECK(co_await calls_.until->wait());
    co_return Result<void>{};
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    calls_.made.push_back(
        fmt::format("write{}{}:{}+{}", flags.fua ? "!" : "", is_zero(from) ? "0" : "", offset, from.size()));
    co_return Result<void>{};
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    calls_.made.push_back(fmt::format("zero{}:{}+{}", flags.fua ? "!" : "", range.offset, range.length));
    co_return Result<void>{};
  }
  Task<Result<void>> discard(Range range) override {
    calls_.made.push_back(fmt::format("discard:{}+{}", range.offset, range.length));
    co_return Result<void>{};
  }
  Task<Result<void>> flush() override {
    calls_.made.push_back("flush");
    co_return Result<void>{};
  }
  Task<Result<std::vector<Extent>>> extents(Range, std::size_t) override { co_return calls_.extents; }
  Task<Result<void>> close() override { co_return Result<void>{}; }
  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override {
    calls_.made.push_back(fmt::format("try_read:{}+{}", offset, into.size()));
    return Result<void>{};
  }

 private:
  Calls& calls_;
  DeviceInfo info_;
  std::uint64_t size_bytes_;
};

DeviceInfo able() {
  DeviceInfo info;
  info.name = "recording";
  info.block_bytes = 512;
  info.request_bytes_max = 2048;
  info.zero = ZeroSupport::unmapping;
  info.is_read_only = false;
  info.can_discard = true;
  info.can_report_extents = true;
  info.can_fua = true;
  return info;
}
struct Recorded {
  explicit Recorded(const DeviceInfo& info, std::uint64_t size_bytes = 64 * kib)
      : device(checked(std::make_unique<RecordingDevice>(calls, info, size_bytes))) {}
  Calls calls;
  DevicePtr device;
};

TEST(CheckedDevice, PassesOnWhatTheDeviceCanDo) {
  Recorded recorded(able());
  const auto data = test::pattern(0, 1024);
  must(run(recorded.device->write(512, data, {.fua = true})));
  must(run(recorded.device->write_zeroes({0, 64 * kib}, {.fua = true})));
  must(run(recorded.device->discard({512, 512})));
  must(run(recorded.device->flush()));
  EXPECT_EQ(recorded.calls.take(), "write!:512+1024 zero!:0+65536 discard:512+512 flush");
}

TEST(CheckedDevice, CutsWhatIsTooLargeIntoWholeBlocks) {
  DeviceInfo info = able();
  info.request_bytes_max = 2000;  // three blocks and a bit
  Recorded recorded(info, 4096 + 100);
  std::vector<std::byte> bytes(4196);
  must(run(recorded.device->read(0, bytes)));
  EXPECT_EQ(recorded.calls.take(), "read:0+1536 read:1536+1536 read:3072+1124");
  must(run(recorded.device->write(0, test::pattern(0, 4196), {.fua = true})));
  EXPECT_EQ(recorded.calls.take(), "write!:0+1536 write!:1536+1536 write!:3072+1124");
  EXPECT_FALSE(recorded.device->try_read(0, bytes)) << "larger than the device takes: not at once";
  EXPECT_EQ(recorded.calls.take(), "");
}

TEST(CheckedDevice, FuaBecomesOneFlushAtTheEnd) {
  DeviceInfo info = able();
  info.can_fua = false;
  Recorded recorded(info);
  must(run(recorded.device->write(0, test::pattern(0, 4096), {.fua = true})));
  EXPECT_EQ(recorded.calls.take(), "write:0+2048 write:2048+2048 flush");
  must(run(recorded.device->write(0, test::pattern(0, 512), {.fua = true})));
  EXPECT_EQ(recorded.calls.take(), "write:0+512 flush");
  must(run(recorded.device->write_zeroes({0, 512}, {.fua = true})));
  EXPECT_EQ(recorded.calls.take(), "zero:0+512 flush");
}

TEST(CheckedDevice, ZerosAreWrittenWhereTheDeviceCannotZero) {
  DeviceInfo info = able();
  info.zero = ZeroSupport::none;
  Recorded recorded(info);
  must(run(recorded.device->write_zeroes({0, 4096}, {})));
  EXPECT_EQ(recorded.calls.take(), "write0:0+2048 write0:2048+2048");
  must(run(recorded.device->write_zeroes({512, 512}, {.fua = true})));
  EXPECT_EQ(recorded.calls.take(), "write!0:512+512") << "durable also when emulated";
}

TEST(CheckedDevice, FastZeroingIsRefusedBeforeAnythingChanges) {
  for (const ZeroSupport zero : {ZeroSupport::none, ZeroSupport::slow}) {
    DeviceInfo info = able();
    info.zero = zero;
    Recorded recorded(info);
    const auto refused = run(recorded.device->write_zeroes({0, 4096}, {.fast_only = true}));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported);
    EXPECT_EQ(recorded.calls.take(), "");
  }
}

TEST(CheckedDevice, WhatIsNotThereIsAnsweredWithoutTheDevice) {
  DeviceInfo info = able();
  info.can_discard = false;
  info.can_report_extents = false;
  Recorded recorded(info);
  must(run(recorded.device->discard({0, 4096})));
  const auto found = must(run(recorded.device->extents({512, 1024}, 1)));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0], (Extent{.offset = 512, .length = 1024}));
  must(run(recorded.device->read(512, {})));
  must(run(recorded.device->write(512, {}, {.fua = true})));
  must(run(recorded.device->write_zeroes({512, 0}, {})));
  EXPECT_EQ(recorded.calls.take(), "");
  info.is_read_only = true;
  Recorded read_only(info);
  must(run(read_only.device->flush()));
  EXPECT_EQ(read_only.calls.take(), "");
}

class CheckedDeviceDeath : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  Result<void> write(Recorded& recorded, std::uint64_t offset, std::size_t length) {
    return run(recorded.device->write(offset, test::pattern(0, length), {}));
  }
};

TEST_F(CheckedDeviceDeath, CallersOweRangeAlignmentAndCapability) {
  Recorded recorded(able(), 64 * kib + 100);
  EXPECT_DEATH((void)write(recorded, 64 * kib, 512), "inside the device");
  EXPECT_DEATH((void)write(recorded, 100, 512), "offset is aligned");
  EXPECT_DEATH((void)write(recorded, 0, 100), "length is aligned");
  must(write(recorded, 64 * kib, 100));  // the short last block
  EXPECT_DEATH((void)run(recorded.device->discard({UINT64_MAX - 511, 512})), "inside the device");
  EXPECT_DEATH((void)run(recorded.device->extents({0, 512}, 0)), "no extents");
}

TEST_F(CheckedDeviceDeath, OnlyWritingGrowsADevice) {
  DeviceInfo info = able();
  info.can_grow = true;
  Recorded recorded(info, 4096);
  must(write(recorded, 8192, 512));
  must(run(recorded.device->write_zeroes({4096, 512}, {})));
  EXPECT_DEATH((void)run(recorded.device->discard({4096, 512})), "inside the device");
  EXPECT_DEATH((void)write(recorded, UINT64_MAX - 511, 512), "inside the device");
}

TEST_F(CheckedDeviceDeath, DriversOweExtentsThatFit) {
  Recorded recorded(able());
  const auto map = [&](std::vector<Extent> extents) {
    recorded.calls.extents = std::move(extents);
    (void)run(recorded.device->extents({512, 1024}, 2));
  };
  map({{.offset = 512, .length = 512}, {.offset = 1024, .length = 512}});
  EXPECT_DEATH(map({}), "as many extents");
  EXPECT_DEATH(map({{.offset = 0, .length = 512}}), "contiguous");
  EXPECT_DEATH(map({{.offset = 512, .length = 0}}), "contiguous");
  EXPECT_DEATH(map({{.offset = 512, .length = 2048}}), "inside the range");
  EXPECT_DEATH(map({{.offset = 512, .length = UINT64_MAX}}), "inside the range");
  EXPECT_DEATH(map({{.offset = 512, .length = 512}, {.offset = 1100, .length = 10}}), "contiguous");
  EXPECT_DEATH(
      map({{.offset = 512, .length = 1}, {.offset = 513, .length = 1}, {.offset = 514, .length = 1}}),
      "as many extents");
}

Task<Result<void>> read_some(BlockDevice& device, std::span<std::byte> into) {
  co_return co_await device.read(0, into);
}
Task<Result<void>> close_while_reading(BlockDevice& device, std::span<std::byte> into, AsyncEvent& reached) {
  TaskGroup group(runtime().reactor(0));
  group.spawn(read_some(device, into));
  DISKFERRY_CO_CHECK(co_await reached.wait());
  DISKFERRY_CO_CHECK(co_await device.close());
  co_return co_await group.join();
}
TEST_F(CheckedDeviceDeath, ClosingIsOnceAndAfterEverythingElse) {
  Recorded recorded(able());
  AsyncEvent never;
  AsyncEvent reached;
  std::vector<std::byte> bytes(512);
  recorded.calls.until = &never;
  recorded.calls.reached = &reached;
  EXPECT_DEATH((void)run(close_while_reading(*recorded.device, bytes, reached)), "closed while it is used");
  must(run(recorded.device->close()));
  EXPECT_DEATH((void)run(recorded.device->close()), "closed once");
  EXPECT_DEATH((void)run(recorded.device->flush()), "is closed");
  EXPECT_DEATH((void)recorded.device->try_read(0, bytes), "is closed");
}

TEST_F(CheckedDeviceDeath, DriversOweSaneBlockSizes) {
  DeviceInfo info = able();
  info.block_bytes = 1000;
  EXPECT_DEATH(Recorded{info}, "power of two");
  info.block_bytes = 4096;
  EXPECT_DEATH(Recorded{info}, "at least one block");
}

}  // namespace
}  // namespace diskferry
