// The mirror, its copies and its switchovers on two real threads, with writers that meet each other and the
// copies. The simulation (tests/simulation) has the failures; this has the threads.
#include "gateway/move/mirror_work.hpp"

#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/fault.hpp"
#include "gateway/copy/engine.hpp"
#include "tests/support/sector_model.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/mirror/volatile_disk.hpp"

#include <random>
#include <thread>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;
using test::sector_bytes;

constexpr std::uint64_t disk_bytes = 3 * mib + 1024;
constexpr std::uint64_t granule_bytes = 4096;

std::shared_ptr<BlockDevice> disk() {
  return checked(std::make_unique<test::VolatileDisk>(disk_bytes, 1, ZeroSupport::unmapping, true));
}

class Writers {
 public:
  Writers(BlockDevice& device, unsigned count)
      : device_(device), model_(disk_bytes, 0), group_(runtime().reactor(0)) {
    for (unsigned i = 0; i < count; ++i) group_.spawn_on(runtime().reactor(i), work(i));
  }
  void end() {
    ends_ = true;
    must(run(group_.join()));
  }
  std::uint64_t writes() const { return writes_; }
  std::string check() {
    std::vector<std::byte> all(disk_bytes);
    must(run(device_.read(0, all)));
    return model_.check(all, 0, model_.now());
  }

 private:
  Task<Result<void>> work(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<std::byte> bytes;
    while (!ends_) {
      const std::uint64_t first = random() % (random() % 2 == 0 ? disk_bytes / sector_bytes : 64);
      const std::uint64_t count = std::min(disk_bytes / sector_bytes - first, 1 + random() % 24);
      const Range range{first * sector_bytes, count * sector_bytes};
      const bool is_zero = random() % 6 == 0;
      const std::uint64_t content = is_zero ? 0 : 100 + ++contents_;
      bytes.resize(range.length);
      test::fill_sectors(bytes, content, first);
      const auto token = model_.begin(range, content);
      auto done = !is_zero && random() % 2 == 0 ? device_.try_write(range.offset, bytes) : std::nullopt;
      if (!done)
        done = is_zero ? co_await device_.write_zeroes(range, {})
                       : co_await device_.write(range.offset, bytes, {});
      if (!*done) co_return *done;
      model_.end(token);
      ++writes_;
      // Disks in memory never wait, and everybody else would.
      (void)co_await runtime().context().clock.sleep_for(std::chrono::microseconds(random() % 500));
    }
    co_return Result<void>{};
  }

  BlockDevice& device_;
  test::SectorModel model_;
  std::atomic<std::uint64_t> contents_ = 0;
  std::atomic<std::uint64_t> writes_ = 0;
  std::atomic<bool> ends_ = false;
  TaskGroup group_;
};

Task<Result<void>> copy_and_switch(MirrorDevice& mirror) {
  const auto primary = mirror.primary();
  const auto target = mirror.copy_target();
  CopyEngine engine(runtime().context(), {*primary, *target},
                    {.request_bytes = 16 * granule_bytes, .requests = 4, .granularity_bytes = 512}, {});
  for (unsigned round = 0; round < 3; ++round) {
    MirrorWork dirty(mirror, nullptr, {.request_bytes = 16 * granule_bytes, .skip_recent = round == 1});
    DISKFERRY_CO_CHECK(co_await engine.run(dirty));
    DISKFERRY_CO_CHECK(co_await mirror.checkpoint());
    mirror.next_age();
  }
  DISKFERRY_CO_CHECK(co_await mirror.hold());
  while (mirror.dirty_bytes() > 0) {
    MirrorWork rest(mirror, nullptr, {.request_bytes = 16 * granule_bytes});
    DISKFERRY_CO_CHECK(co_await engine.run(rest));
  }
  DISKFERRY_CO_CHECK(co_await mirror.checkpoint());
  co_await mirror.switch_over();
  mirror.attach_former({.window_bytes = 256 * kib});
  mirror.let_go();
  co_return Result<void>{};
}

class MirrorModes : public testing::TestWithParam<MirrorMode> {};

TEST_P(MirrorModes, ManySwitchoversUnderWritersOnTwoThreadsLoseNothing) {
  auto made = std::make_unique<MirrorDevice>(
      runtime().context(), disk(), MirrorOptions{.mode = GetParam(), .granule_bytes = granule_bytes});
  MirrorDevice& mirror = *made;
  const DevicePtr device = checked(std::move(made));
  Writers writers(*device, 6);
  mirror.attach(disk(), {.window_bytes = 256 * kib});
  for (unsigned i = 0; i < 12; ++i) {
    must(run(copy_and_switch(mirror)));
    const std::uint64_t before = writers.writes();
    while (writers.writes() < before + 20) std::this_thread::yield();
  }
  writers.end();
  EXPECT_EQ(writers.check(), "");
  const MirrorStats stats = mirror.stats();
  EXPECT_GT(stats.guest_writes, 200u);
  EXPECT_GT(GetParam() == MirrorMode::background ? stats.left_bytes : stats.mirrored_bytes, 0u);
  must(run(device->close()));
}
INSTANTIATE_TEST_SUITE_P(Modes, MirrorModes,
                         testing::Values(MirrorMode::background, MirrorMode::bounded,
                                         MirrorMode::synchronous),
                         [](const auto& info) { return std::string(to_string(info.param)); });

/// Time passes when somebody sleeps.
class SleptClock final : public Clock {
 public:
  TimePoint now() const override { return now_; }
  Task<Result<void>> sleep_until(TimePoint time) override {
    now_ = std::max(now_, time);
    co_return Result<void>{};
  }

 private:
  TimePoint now_{std::chrono::hours(1)};
};

TEST(MirrorWork, IsSpacedOutBesideAGuestAndCostsTimeOnlyWhereThereIsSomething) {
  auto made = std::make_unique<MirrorDevice>(runtime().context(), disk(),
                                             MirrorOptions{.granule_bytes = granule_bytes});
  MirrorDevice& mirror = *made;
  const DevicePtr device = checked(std::move(made));
  mirror.attach(disk(), {});
  SleptClock clock;
  const TimePoint begin = clock.now();
  const auto take_all = [&](Clock* paced_by) {
    MirrorWork work(mirror, nullptr, {.request_bytes = 16 * granule_bytes, .paced_by = paced_by});
    std::vector<Work> units;
    while (const auto unit = must(run(work.next()))) units.push_back(*unit);
    for (const Work& unit : units) work.ended(unit, false);
    return units.size();
  };
  const std::size_t units = take_all(&clock);
  EXPECT_EQ(clock.now(), begin) << "there is no guest";
  mirror.copy_pace().guest_asks(clock.now());
  EXPECT_EQ(take_all(&clock), units);
  // The first begins at once; each that wakes in time makes the next a little faster.
  const std::chrono::duration<double> slept = clock.now() - begin;
  const double slowest =
      16.0 * granule_bytes * static_cast<double>(units) / static_cast<double>(CopyPace().bytes_per_s());
  EXPECT_LE(slept.count(), slowest);
  EXPECT_GT(slept.count(), 0.8 * slowest);
  const TimePoint before = clock.now();
  EXPECT_EQ(take_all(nullptr), units);
  EXPECT_EQ(clock.now(), before) << "nobody is to have room";
  mirror.set_makes_room(false);
  EXPECT_EQ(take_all(&clock), units);
  EXPECT_EQ(clock.now(), before) << "the end is out of reach";
  must(run(device->close()));
}

TEST(MirrorWork, SharesThePaceOfItsMachine) {
  const auto pace = std::make_shared<CopyPace>();
  SleptClock clock;
  const auto taken_at = [&] {
    auto made = std::make_unique<MirrorDevice>(runtime().context(), disk(),
                                               MirrorOptions{.granule_bytes = granule_bytes, .pace = pace});
    MirrorDevice& mirror = *made;
    const DevicePtr device = checked(std::move(made));
    mirror.attach(disk(), {});
    MirrorWork work(mirror, nullptr, {.request_bytes = granule_bytes, .paced_by = &clock});
    const auto unit = must(run(work.next()));
    EXPECT_TRUE(unit);
    if (unit) work.ended(*unit, false);
    must(run(device->close()));
    return clock.now();
  };
  const TimePoint begin = taken_at();
  pace->guest_asks(clock.now());  // of whichever disk
  EXPECT_EQ(taken_at(), begin);
  EXPECT_GT(taken_at(), begin) << "behind the copy of another disk";
}

TEST(MirrorWork, ATargetThatHangsCostsAWriteItsLimitAndNoMore) {
  // Nothing drains: the window of one block is full after the first write.
  auto faults = std::make_shared<FaultControl>(FaultPlan{.seed = 1, .rules = {}});
  faults->add({.verb = FaultVerb::write, .action = FaultAction::hang});
  auto made = std::make_unique<MirrorDevice>(
      runtime().context(), disk(),
      MirrorOptions{.latency_max = std::chrono::milliseconds(20), .granule_bytes = granule_bytes});
  MirrorDevice& mirror = *made;
  const DevicePtr device = checked(std::move(made));
  mirror.attach(checked(make_fault_device(disk(), faults, runtime().context().clock)),
                {.window_bytes = 8192});
  while (const auto range = mirror.begin_next_copy(0, disk_bytes, false)) mirror.end_copy(*range, true);
  const std::vector<std::byte> bytes(4 * granule_bytes, std::byte{7});
  const auto begin = std::chrono::steady_clock::now();
  for (unsigned i = 0; i < 4; ++i) must(run(device->write(i * bytes.size(), bytes, {})));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  EXPECT_GT(mirror.stats().spilled_bytes, 0u);
  EXPECT_GT(mirror.dirty_bytes(), 0u);
  const auto target = run([](MirrorDevice& of) -> Task<Result<std::shared_ptr<BlockDevice>>> {
    co_return co_await of.detach();
  }(mirror));
  must(run((*target)->close()));
  must(run(device->close()));
}

}  // namespace
}  // namespace diskferry
