// The window as its client and its owner see it.
#include "gateway/mirror/table_file.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/pattern.hpp"
#include "tests/unit/mirror/background.hpp"
#include "tests/unit/mirror/window_fixture.hpp"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::Background;
using test::must;
using test::pattern;
using test::run;
using test::runtime;
using test::wait_until;
using test::WindowUnderTest;

Task<Result<void>> nothing() {
  co_return Result<void>{};
}

/// The target answers no write: what is pending stays so until the window is stopped.
void hang_writes(WindowUnderTest& disk) {
  disk.faults->add({.verb = FaultVerb::write, .action = FaultAction::hang});
}

TEST(Window, AcknowledgesBeforeTheTargetDoes) {
  WindowUnderTest disk({});
  hang_writes(disk);
  must(disk.write(4096, pattern(4096, 8192)));
  EXPECT_EQ(disk.read({4096, 8192}), pattern(4096, 8192));
  EXPECT_EQ(disk.read({5000, 100}), pattern(5000, 100));
  EXPECT_EQ(disk.window->pending_bytes(), 8192u);
  EXPECT_EQ(disk.target->written_bytes(), 0u);
  const auto extents = must(run(disk.device->extents({0, mib}, 10)));
  EXPECT_FALSE(extents[0].reads_zero);
}

TEST(Window, NobodyIsServedLaterForWhatItSends) {
  WindowUnderTest disk({});
  must(disk.write(4096, pattern(4096, 8192)));
  must(disk.flush());
  EXPECT_EQ(disk.target->written_bytes(), 8192u);
  EXPECT_EQ(disk.target->background_bytes(), 8192u);
}

TEST(Window, AMarkIsOfWhatWasAcknowledgedBeforeItWhateverIsWrittenOn) {
  WindowUnderTest disk({});
  EXPECT_TRUE(disk.window->has_settled(disk.window->mark())) << "nothing is pending";
  must(disk.write(0, pattern(0, 8192)));
  const std::uint64_t before = disk.window->mark();
  disk.faults->add({.verb = FaultVerb::write, .action = FaultAction::hang, .range = {65536, 4096}});
  must(disk.write(65536, pattern(65536, 4096)));
  EXPECT_TRUE(wait_until([&] { return disk.window->has_settled(before); }));
  EXPECT_EQ(disk.window->pending_bytes(), 4096u);
  // What waits now is before the next one, also when it is written again.
  const std::uint64_t after = disk.window->mark();
  must(disk.write(65536, pattern(65536, 4096, 2)));
  must(disk.write(0, pattern(0, 8192, 2)));
  EXPECT_TRUE(wait_until([&] { return disk.window->stats().sent_bytes == 16384; }));
  EXPECT_FALSE(disk.window->has_settled(after));
  must(run(disk.window->stop()));
  EXPECT_FALSE(disk.window->has_settled(after)) << "it was dropped";
}

TEST(Window, NoMarkIsSettledWhenItHasFailed) {
  WindowUnderTest disk({});
  disk.faults->add({.verb = FaultVerb::write});
  must(disk.write(0, pattern(0, 4096)));
  const std::uint64_t mark = disk.window->mark();
  EXPECT_TRUE(wait_until([&] { return disk.window->failure().has_value(); }));
  EXPECT_FALSE(disk.window->has_settled(mark));
}

TEST(Window, SendsOnlyWhatChangedOfARewrittenGranule) {
  WindowUnderTest disk({.size_bytes = 16 * mib});
  auto granule = pattern(0, 64 * kib);
  must(disk.write(mib, granule));
  must(disk.flush());
  test::fill_pattern(std::span(granule).subspan(8192, 4096), 5, 9);
  must(disk.write(mib, granule));
  must(disk.flush());
  const WindowStats stats = disk.window->stats();
  EXPECT_EQ(stats.sent_bytes, 64 * kib + 4096);
  EXPECT_EQ(stats.resent_bytes, 4096u);
  EXPECT_EQ(stats.unchanged_bytes, 60 * kib);
  EXPECT_EQ(stats.flushes, 2u);
  EXPECT_EQ(disk.target->durable(), disk.target->current());
}

TEST(Window, ZeroingAZeroedDiskCostsNothing) {
  WindowUnderTest disk({.size_bytes = 200 * mib});
  must(disk.zero({0, 200 * mib}));
  must(disk.flush());
  EXPECT_THAT(disk.target->zeroings(), testing::IsEmpty());
  EXPECT_EQ(disk.window->stats().unchanged_bytes, 200 * mib);
  EXPECT_EQ(disk.window->stats().zeroed_bytes, 200 * mib);
}

TEST(Window, ATargetMayBeKnownToBeZero) {
  WindowUnderTest disk({.starts_zeroed = false}, {.starts_zeroed = true});
  must(disk.zero({0, mib}));
  must(disk.flush());
  EXPECT_THAT(disk.target->zeroings(), testing::IsEmpty());
}

TEST(Window, ZeroingAUsedDiskIsAFewRequests) {
  WindowUnderTest disk({.size_bytes = 200 * mib, .starts_zeroed = false});
  must(disk.zero({0, 200 * mib}));
  must(disk.flush());
  std::uint64_t zeroed = 0;
  for (const Range& range : disk.target->zeroings()) zeroed += range.length;
  EXPECT_EQ(zeroed, 200 * mib);
  EXPECT_LE(disk.target->zeroings().size(), 60u);
  must(disk.zero({0, 200 * mib}));
  must(disk.flush());
  EXPECT_EQ(disk.window->stats().unchanged_bytes, 200 * mib);
}

TEST(Window, BulkWritesAreWholeRequests) {
  WindowUnderTest disk({.size_bytes = 16 * mib});
  for (std::uint64_t at = 0; at < 16 * mib; at += mib) must(disk.write(at, pattern(at, mib)));
  must(disk.flush());
  EXPECT_EQ(disk.target->current(), pattern(0, 16 * mib));
  EXPECT_EQ(disk.target->written_bytes(), 16 * mib);
  EXPECT_LE(disk.target->writes().size(), 80u);
}

TEST(Window, DiscardIsForTargetsThatZeroQuickly) {
  for (const ZeroSupport zero : {ZeroSupport::none, ZeroSupport::slow, ZeroSupport::fast}) {
    WindowUnderTest disk({.zero = zero, .starts_zeroed = false});
    const bool is_passed_on = zero == ZeroSupport::fast;
    EXPECT_EQ(disk.device->info().can_discard, is_passed_on);
    must(run(disk.window->discard({0, 8192})));
    must(disk.flush());
    EXPECT_EQ(disk.target->current()[100], is_passed_on ? std::byte{0} : std::byte{0xEE});
  }
}

TEST(Window, SaysWhatItIs) {
  WindowUnderTest disk({.block_bytes = 512, .zero = ZeroSupport::none});
  EXPECT_EQ(disk.device->info().block_bytes, 512u);
  EXPECT_EQ(disk.device->info().zero, ZeroSupport::fast);
  EXPECT_FALSE(disk.device->info().can_fua);
  EXPECT_TRUE(disk.device->info().can_multi_connection);
}

// --- room -------------------------------------------------------------------------------------------------

TEST(Window, AFullWindowLetsWritersWaitInTurn) {
  WindowUnderTest disk({}, {.window_bytes = 64 * kib, .requests_max = 1});
  hang_writes(disk);
  const auto bytes = pattern(0, 60 * kib);
  must(disk.write(0, std::span(bytes).first(32 * kib)));
  Background first(disk.device->write(512 * kib, bytes, {}));
  ASSERT_TRUE(wait_until([&] { return disk.window->stats().pending_bytes >= 60 * kib; }));
  const auto unchanged = std::span(bytes).first(4096);
  EXPECT_EQ(disk.device->try_write(0, unchanged), std::nullopt)
      << "nobody passes, not even without need of room";
  EXPECT_FALSE(first.has_ended());
  EXPECT_LE(disk.window->stats().pending_bytes, 64 * kib);
  disk.window->set_window_bytes(mib);
  must(first.end());
  EXPECT_TRUE(disk.device->try_write(768 * kib, unchanged));
}

TEST(Window, ASmallWriteWaitsForOneLongOneAndNotForAll) {
  WindowUnderTest disk({.size_bytes = 4 * mib}, {.window_bytes = 64 * kib, .requests_max = 1});
  hang_writes(disk);
  const auto bytes = pattern(0, 512 * kib);
  Background first(disk.device->write(0, bytes, {}));
  ASSERT_TRUE(wait_until([&] { return disk.window->stats().pending_bytes >= 48 * kib; }));
  Background second(disk.device->write(mib, bytes, {}));
  Background third(disk.device->write(2 * mib, bytes, {}));
  Background small(disk.device->write(3 * mib, std::span(bytes).first(4096), {}));
  // Begun after them on the same thread: when it has ended, all of them wait.
  must(Background(nothing()).end());
  disk.window->set_window_bytes(768 * kib);
  must(first.end());
  EXPECT_TRUE(wait_until([&] { return small.has_ended(); }));
  EXPECT_FALSE(second.has_ended());
  EXPECT_FALSE(third.has_ended());
  disk.window->set_window_bytes(4 * mib);
  must(second.end());
  must(third.end());
}

TEST(Window, LongWritesLeaveRoomForSmallOnes) {
  WindowUnderTest disk({.size_bytes = 4 * mib}, {.window_bytes = 512 * kib, .requests_max = 1});
  hang_writes(disk);
  const auto bytes = pattern(0, mib);
  Background copy(disk.device->write(0, bytes, {}));
  ASSERT_TRUE(wait_until([&] { return disk.window->stats().pending_bytes >= 400 * kib; }));
  must(Background(nothing()).end());
  EXPECT_FALSE(copy.has_ended());
  const auto small = std::span(bytes).subspan(8192, 4096);
  for (unsigned i = 0; i < 8; ++i) EXPECT_TRUE(disk.device->try_write(2 * mib + i * 4096, small)) << i;
  EXPECT_EQ(disk.device->try_write(3 * mib, bytes), std::nullopt);
  disk.window->set_window_bytes(4 * mib);
  must(copy.end());
}

TEST(Window, AWaitingWriterCanBeCancelledAndTheNextGoesOn) {
  WindowUnderTest disk({}, {.window_bytes = 16 * kib, .requests_max = 1});
  hang_writes(disk);
  const auto bytes = pattern(0, 64 * kib);
  Background first(disk.device->write(0, bytes, {}));
  Background second(disk.device->write(256 * kib, std::span(bytes).first(4096), {}));
  ASSERT_TRUE(wait_until([&] { return disk.window->stats().pending_bytes >= 8192; }));
  first.cancel();
  const auto ended = first.end();
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().kind(), ErrorKind::cancelled);
  EXPECT_FALSE(second.has_ended());
  disk.window->set_window_bytes(mib);
  must(second.end());
}

TEST(Window, OfOneByteStillMoves) {
  WindowUnderTest disk({}, {.window_bytes = 1});
  must(disk.write(0, pattern(0, 200 * kib)));
  must(disk.zero({100 * kib, 8192}));
  must(disk.flush());
  EXPECT_EQ(disk.read({0, 100 * kib}), pattern(0, 100 * kib));
  EXPECT_LE(disk.window->stats().pending_bytes_peak, 4096u);
}

TEST(Window, ShrunkToNothingWhileFullStillDrains) {
  WindowUnderTest disk({.size_bytes = 8 * mib}, {.requests_max = 2, .bytes_per_s = 64 * mib});
  must(disk.write(0, pattern(0, 4 * mib)));
  disk.window->set_window_bytes(0);
  must(disk.write(4 * mib, pattern(4 * mib, 100 * kib)));
  must(run(disk.window->drain()));
  EXPECT_EQ(disk.window->pending_bytes(), 0u);
  EXPECT_EQ(disk.target->written_bytes(), 4 * mib + 100 * kib);
}

TEST(Window, KeepsToItsRate) {
  WindowUnderTest disk({.size_bytes = 8 * mib}, {.bytes_per_s = 1000});
  must(disk.write(0, pattern(0, mib)));
  ASSERT_TRUE(wait_until([&] { return disk.target->written_bytes() > 0; }));
  EXPECT_LE(disk.target->written_bytes(), 512 * kib) << "a request for each reactor at the most";
  EXPECT_GT(disk.window->pending_bytes(), 0u);
  disk.window->set_bytes_per_s(0);
  must(disk.flush());
  EXPECT_GT(disk.window->stats().bytes_per_s, 0u);
}

// --- flushing ---------------------------------------------------------------------------------------------

Task<Result<void>> hold_flush(AsyncEvent& event, std::atomic<int>& held, bool fails) {
  ++held;
  DISKFERRY_CO_CHECK(co_await event.wait());
  if (fails) co_return unexpected(fail(ErrorKind::io, "commit", "the move"));
  co_return Result<void>{};
}

TEST(Window, AFlushReturnsWhenItsOwnerAgrees) {
  for (const bool fails : {false, true}) {
    AsyncEvent event;
    std::atomic<int> held = 0;
    WindowUnderTest disk({}, {.before_flush_returns = [&] { return hold_flush(event, held, fails); }});
    must(disk.write(0, pattern(0, 4096)));
    Background first(disk.device->flush());
    Background second(disk.device->flush());
    ASSERT_TRUE(wait_until([&] { return held == 2; }));
    EXPECT_EQ(disk.target->durable(), disk.target->current());
    EXPECT_FALSE(first.has_ended());
    event.set();
    EXPECT_EQ(first.end().has_value(), !fails);
    EXPECT_EQ(second.end().has_value(), !fails);
    EXPECT_FALSE(disk.window->failure()) << "the owner's no is not the target's";
  }
}

TEST(Window, IsMadeDurableWithoutItsOwner) {
  WindowUnderTest disk({}, {.before_flush_returns = []() -> Task<Result<void>> {
                         co_return unexpected(fail(ErrorKind::io, "commit", "the move"));
                       }});
  must(disk.write(0, pattern(0, 4096)));
  must(run(disk.window->make_durable()));
  EXPECT_EQ(disk.target->durable(), disk.target->current());
  EXPECT_EQ(disk.target->durable()[0], pattern(0, 4096)[0]);
}

TEST(Window, OnlyWhatWasSentSinceIsFlushedAgain) {
  WindowUnderTest disk({});
  must(disk.flush());
  EXPECT_EQ(disk.target->flushes(), 1u) << "what was at the target before may not be durable";
  must(disk.flush());
  EXPECT_EQ(disk.target->flushes(), 1u);
  must(disk.write(0, pattern(0, 4096)));
  must(disk.flush());
  must(run(disk.window->make_durable()));
  EXPECT_EQ(disk.target->flushes(), 2u);
  EXPECT_EQ(disk.target->durable(), disk.target->current());
}

TEST(Window, AFailedWriteIsForEver) {
  WindowUnderTest disk({});
  disk.faults->add({.verb = FaultVerb::write, .error = ErrorKind::no_space, .last_call = 1});
  must(disk.write(40960, pattern(0, 4096)));
  for (int i = 0; i < 2; ++i) {
    const auto flushed = disk.flush();
    ASSERT_FALSE(flushed);
    EXPECT_EQ(flushed.error().kind(), ErrorKind::no_space);
    EXPECT_THAT(flushed.error().message(), testing::HasSubstr("40960"));
  }
  EXPECT_EQ(disk.write(0, pattern(0, 512)).error().kind(), ErrorKind::no_space);
  EXPECT_EQ(run(disk.window->drain()).error().kind(), ErrorKind::no_space);
  EXPECT_EQ(disk.window->pending_bytes(), 0u);
}

TEST(Window, AFailureWakesThoseWhoWait) {
  WindowUnderTest disk({}, {.window_bytes = 8192, .requests_max = 1});
  disk.faults->add({.verb = FaultVerb::write,
                    .action = FaultAction::delay,
                    .last_call = 1,
                    .delay = std::chrono::milliseconds(20)});
  disk.faults->add({.verb = FaultVerb::write, .first_call = 1, .last_call = 1});
  const auto bytes = pattern(0, 64 * kib);
  Background writer(disk.device->write(0, bytes, {}));
  Background flusher(disk.window->drain());
  EXPECT_FALSE(writer.end());
  EXPECT_FALSE(disk.flush());
}

// --- the end ----------------------------------------------------------------------------------------------

TEST(Window, StopDropsWhatIsPending) {
  WindowUnderTest disk({}, {.window_bytes = 64 * kib, .requests_max = 2});
  hang_writes(disk);
  must(disk.write(0, pattern(0, 32 * kib)));
  const auto bytes = pattern(0, 256 * kib);
  Background writer(disk.device->write(128 * kib, bytes, {}));
  Background flusher(disk.device->flush());
  must(run(disk.window->stop()));
  EXPECT_EQ(writer.end().error().kind(), ErrorKind::gone);
  EXPECT_EQ(flusher.end().error().kind(), ErrorKind::gone);
  EXPECT_EQ(disk.write(0, pattern(0, 512)).error().kind(), ErrorKind::gone);
  EXPECT_EQ(disk.window->pending_bytes(), 0u);
  EXPECT_FALSE(disk.window->failure());
}

TEST(Window, TheNextAttemptSendsTheDifference) {
  const test::TemporaryFolder folder;
  const TableShape shape{.size_bytes = 4 * mib, .block_bytes = 4096};
  {
    WindowUnderTest first({.size_bytes = 4 * mib});
    must(first.write(0, pattern(0, mib)));
    must(first.flush());
    must(first.write(2 * mib, pattern(2 * mib, 64 * kib)));  // at the target perhaps, not durable
    must(run(first.window->stop()));
    must(run(first.window->save_table(folder / "table", "disk one")));
  }
  auto table = must(run(load_block_table(runtime().context(), folder / "table", {"disk one", shape})));
  WindowUnderTest second({.size_bytes = 4 * mib}, {.table = std::move(table)});
  auto changed = pattern(0, mib);
  changed[5000] ^= std::byte{1};
  must(second.zero({mib, mib}));
  must(second.write(0, changed));
  must(second.write(2 * mib, pattern(2 * mib, 64 * kib)));
  must(second.flush());
  EXPECT_EQ(second.target->written_bytes(), 4096 + 64 * kib);
  EXPECT_THAT(second.target->zeroings(), testing::IsEmpty());
}

}  // namespace
}  // namespace diskferry
