// The mirror as guests and its owner see it, around its switchovers. The simulation (tests/simulation) has
// the orders of events; this has single ones of them.
#include "gateway/mirror/mirror_device.hpp"

#include "drivers/checked_device.hpp"
#include "drivers/filters/fault.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/mirror/background.hpp"
#include "tests/unit/mirror/volatile_disk.hpp"

#include <functional>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::Background;
using test::must;
using test::pattern;
using test::run;
using test::runtime;
using test::wait_until;

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
Task<Result<std::shared_ptr<BlockDevice>>> former_of(MirrorDevice& mirror) {
  auto former = co_await mirror.take_former();
  if (!former)
    co_return unexpected(fail(ErrorKind::not_found, "take the former primary").why("there is none"));
  co_return former;
}
Task<Result<void>> take_former_and_close(MirrorDevice& mirror) {
  DISKFERRY_CO_TRY(const auto former, co_await former_of(mirror));
  co_return co_await former->close();
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

// --- room for guests --------------------------------------------------------------------------------------

TEST(MirrorDevice, WhatGuestsAskHasCopiesMakeRoom) {
  std::vector<std::byte> bytes(granule_bytes);
  const std::vector<std::function<void(MirrorUnderTest&)>> requests{
      [&](MirrorUnderTest& all) { must(run(all.device->read(0, bytes))); },
      [&](MirrorUnderTest& all) { (void)all.device->try_read(0, bytes); },
      [&](MirrorUnderTest& all) { must(run(all.device->write(0, bytes, {}))); },
      [&](MirrorUnderTest& all) { (void)all.device->try_write(0, bytes); },
      [&](MirrorUnderTest& all) { must(run(all.device->write_zeroes({0, granule_bytes}, {}))); },
      [&](MirrorUnderTest& all) { must(run(all.device->flush())); }};
  for (std::size_t i = 0; i < requests.size(); ++i) {
    MirrorUnderTest all;
    all.mirror->attach(all.second.open(), {});
    must(run(copy_dirty(*all.mirror)));
    const auto paced = [&] {
      return all.mirror->copy_pace().book(1, runtime().context().clock.now()).has_value();
    };
    EXPECT_FALSE(paced()) << "copies are no guests: " << i;
    requests[i](all);
    EXPECT_TRUE(paced()) << i;
  }
}

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

// --- requests that outlive a switchover -------------------------------------------------------------------

/// A request that is no change and fails at the old primary when that is the primary no more.
struct LateCase {
  std::string name;
  FaultVerb verb;
  ErrorKind error;
};
void PrintTo(const LateCase& one, std::ostream* to) {
  *to << one.name;
}
class LateRequest : public testing::TestWithParam<LateCase> {
 protected:
  static constexpr Duration late = std::chrono::hours(1);

  LateRequest() {
    all.mirror->attach(all.second.open(), {});
    all.write(granule_bytes, 512);
    must(run(copy_dirty(*all.mirror)));
  }
  Task<Result<void>> request() {
    if (GetParam().verb == FaultVerb::flush) co_return co_await all.device->flush();
    into.resize(512);
    co_return co_await all.device->read(granule_bytes, into);
  }
  /// Begins one that the old primary has not answered yet.
  std::unique_ptr<Background> begin() {
    all.first.faults->add({.verb = GetParam().verb, .action = FaultAction::delay, .delay = late});
    all.first.faults->add({.verb = GetParam().verb, .error = GetParam().error});
    auto begun = std::make_unique<Background>(request());
    EXPECT_TRUE(wait_until([&] { return all.clock.sleepers() == 1; }));
    return begun;
  }
  void let_it_fail() { all.clock.advance(late); }

  MirrorUnderTest all;
  std::vector<std::byte> into{};
};

TEST_P(LateRequest, IsMadeAgainAtWhatIsThePrimaryNow) {
  const auto flushes_before = all.second.faults->calls(FaultVerb::flush);
  const auto begun = begin();
  must(run(copy_and_switch(*all.mirror)));
  const auto flushes_then = all.second.faults->calls(FaultVerb::flush);
  EXPECT_GT(flushes_then, flushes_before);
  EXPECT_FALSE(begun->has_ended());
  let_it_fail();
  must(begun->end());
  if (GetParam().verb == FaultVerb::flush) {
    EXPECT_EQ(all.second.faults->calls(FaultVerb::flush), flushes_then + 1);
  } else {
    EXPECT_EQ(into, pattern(granule_bytes, 512));
  }
  must(run(take_former_and_close(*all.mirror)));
}

/// The same where the old primary follows, and goes away while it does.
TEST_P(LateRequest, IsMadeAgainAlsoWhereTheOldPrimaryFollows) {
  const auto begun = begin();
  must(run(copy_and_switch(*all.mirror)));
  all.mirror->attach_former({});
  let_it_fail();
  must(begun->end());
  if (GetParam().verb == FaultVerb::read) EXPECT_EQ(into, pattern(granule_bytes, 512));
}

TEST_P(LateRequest, FailsWhereThePrimaryIsTheSame) {
  const auto begun = begin();
  let_it_fail();
  const auto ended = begun->end();
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().kind(), GetParam().error);
}

/// Whoever takes the old primary, to close it, gets it when nobody uses it any more.
TEST_P(LateRequest, KeepsTheOldPrimaryOpen) {
  const auto begun = begin();
  must(run(copy_and_switch(*all.mirror)));
  Background taken(take_former_and_close(*all.mirror));
  EXPECT_FALSE(taken.has_ended());
  EXPECT_EQ(all.first.faults->calls(FaultVerb::close), 0u);
  let_it_fail();
  must(begun->end());
  must(taken.end());
  EXPECT_EQ(all.first.faults->calls(FaultVerb::close), 1u);
}

INSTANTIATE_TEST_SUITE_P(Verbs, LateRequest,
                         testing::Values(LateCase{"Read", FaultVerb::read, ErrorKind::gone},
                                         LateCase{"ReadOfAPlaceThatIsBad", FaultVerb::read, ErrorKind::io},
                                         LateCase{"Flush", FaultVerb::flush, ErrorKind::gone}),
                         [](const auto& one) { return one.param.name; });

// --- back to what was not kept in step --------------------------------------------------------------------

TEST(MirrorDevice, GoesBackToAnOldPrimaryThatDidNotFollow) {
  MirrorUnderTest all;
  all.mirror->attach(all.second.open(), {});
  all.write(0, 65536);
  must(run(copy_and_switch(*all.mirror)));
  EXPECT_FALSE(all.mirror->copy_target());
  EXPECT_EQ(all.mirror->dirty_bytes(), 0u);
  // What is written to the new one alone is known to be missing at the old one.
  all.write(granule_bytes, granule_bytes, 2);
  must(run(all.device->write_zeroes({4 * granule_bytes, granule_bytes}, {})));
  EXPECT_EQ(all.mirror->dirty_bytes(), 2 * granule_bytes);
  EXPECT_FALSE(all.first.disk->current() == all.second.disk->current());

  all.mirror->attach(must(run(former_of(*all.mirror))), {.is_used = true});
  const auto written_before = all.first.disk->written_bytes();
  must(run(copy_and_switch(*all.mirror)));
  EXPECT_TRUE(all.first.disk->durable() == all.second.disk->current());
  EXPECT_LE(all.first.disk->written_bytes() - written_before, 2 * granule_bytes) << "and nothing else";
  // It is the primary again.
  all.write(0, 512, 3);
  EXPECT_FALSE(all.first.disk->current() == all.second.disk->current());
  must(run(take_former_and_close(*all.mirror)));
}

}  // namespace
}  // namespace diskferry
