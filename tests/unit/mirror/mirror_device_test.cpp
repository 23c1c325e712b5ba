// The mirror as guests and its owner see it, around its switchovers. The simulation (tests/simulation) has
// the orders of events; this has single ones of them.
#include "gateway/mirror/mirror_device.hpp"

#include "drivers/checked_device.hpp"
#include "drivers/filters/fault.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/mirror/volatile_disk.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::pattern;
using test::run;
using test::runtime;

constexpr std::uint64_t disk_bytes = mib;
constexpr std::uint64_t granule_bytes = 4096;

/// A storage with a device on it that fails when it is told to, on a clock of the test's.
struct Storage {
  explicit Storage(FakeClock& clock) : clock_(clock) {}
  std::shared_ptr<BlockDevice> open() {
    auto made = std::make_unique<test::VolatileDisk>(disk_bytes, 1, ZeroSupport::unmapping, true);
    disk = made.get();
    return checked(make_fault_device(checked(std::move(made)), faults, clock_));
  }
  std::shared_ptr<FaultControl> faults = std::make_shared<FaultControl>(FaultPlan{.seed = 1, .rules = {}});
  test::VolatileDisk* disk = nullptr;

 private:
  FakeClock& clock_;
};

Task<Result<void>> copy_dirty(MirrorDevice& mirror) {
  const auto primary = mirror.primary();
  const auto target = mirror.copy_target();
  while (const auto range = mirror.begin_next_copy(0, 16 * granule_bytes, false)) {
    std::vector<std::byte> bytes(range->length);
    auto copied = co_await primary->read(range->offset, bytes);
    if (copied) copied = co_await target->write(range->offset, bytes, {});
    mirror.end_copy(*range, copied.has_value());
    DISKFERRY_CO_CHECK(std::move(copied));
  }
  co_return Result<void>{};
}

Task<Result<void>> copy_and_switch(MirrorDevice& mirror) {
  DISKFERRY_CO_CHECK(co_await mirror.hold());
  DISKFERRY_CO_CHECK(co_await copy_dirty(mirror));
  DISKFERRY_CO_CHECK(co_await mirror.checkpoint());
  co_await mirror.switch_over();
  mirror.let_go();
  co_return Result<void>{};
}

Task<Result<std::shared_ptr<BlockDevice>>> detached(MirrorDevice& mirror) {
  co_return co_await mirror.detach();
}
/// Closed by the destructor.
struct MirrorUnderTest {
  MirrorUnderTest() {
    auto made = std::make_unique<MirrorDevice>(runtime().context(), first.open(),
                                               MirrorOptions{.granule_bytes = granule_bytes});
    mirror = made.get();
    device = checked(std::move(made));
  }
  ~MirrorUnderTest() { must(run(device->close())); }
  MirrorUnderTest(const MirrorUnderTest&) = delete;
  MirrorUnderTest& operator=(const MirrorUnderTest&) = delete;

  void write(std::uint64_t offset, std::uint64_t bytes, std::uint64_t seed = 0) {
    must(run(device->write(offset, pattern(offset, bytes, seed), {})));
  }
  std::uint64_t sent() const { return mirror->window_stats().sent_bytes; }

  FakeClock clock;
  Storage first{clock};
  Storage second{clock};
  MirrorDevice* mirror = nullptr;
  DevicePtr device;
};

// --- figures ----------------------------------------------------------------------------------------------

TEST(MirrorDevice, WhatItsWindowsHaveCountedOnlyGrows) {
  MirrorUnderTest all;
  EXPECT_EQ(all.sent(), 0u);
  all.mirror->attach(all.second.open(), {});
  must(run(copy_dirty(*all.mirror)));
  all.write(0, 8192);
  must(run(all.mirror->checkpoint()));
  EXPECT_EQ(all.sent(), 8192u);
  // The same again: it is sent, and was before.
  all.write(0, 8192, 2);
  must(run(all.mirror->checkpoint()));
  EXPECT_EQ(all.sent(), 16384u);
  EXPECT_EQ(all.mirror->window_stats().resent_bytes, 8192u);

  const auto target = must(run(detached(*all.mirror)));
  EXPECT_EQ(all.sent(), 16384u);
  EXPECT_EQ(all.mirror->window_stats().window_bytes, 0u) << "of this moment";
  all.mirror->attach(target, {.window_bytes = mib});
  EXPECT_EQ(all.sent(), 16384u);
  EXPECT_EQ(all.mirror->window_stats().window_bytes, mib);
  all.write(65536, 4096);
  must(run(all.mirror->checkpoint()));
  EXPECT_EQ(all.sent(), 20480u);

  must(run(copy_and_switch(*all.mirror)));
  EXPECT_EQ(all.sent(), 20480u);
  all.mirror->attach_former({});
  all.write(131072, 4096);
  must(run(all.mirror->checkpoint()));
  const WindowStats stats = all.mirror->window_stats();
  EXPECT_EQ(stats.sent_bytes, 24576u);
  EXPECT_EQ(stats.resent_bytes, 8192u);
  EXPECT_GE(stats.acknowledged_bytes, 24576u);
}

}  // namespace
}  // namespace diskferry
