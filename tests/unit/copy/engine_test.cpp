// The engine, the plan and the checkpoints together over memory devices that lie, fail and count.
#include "gateway/copy/engine.hpp"

#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/fault.hpp"
#include "drivers/memory/memory_device.hpp"
#include "gateway/copy/checkpoint.hpp"
#include "gateway/copy/plan.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <random>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;

struct Disk {
  std::shared_ptr<BlockDevice> inner;
  std::shared_ptr<FaultControl> faults = std::make_shared<FaultControl>(FaultPlan{});
  DevicePtr device;
};
Disk make_disk(MemoryOptions options, std::uint64_t seed = 1) {
  Disk disk;
  disk.faults = std::make_shared<FaultControl>(FaultPlan{.seed = seed, .rules = {}});
  disk.inner = checked(make_memory_device(options));
  disk.device = checked(make_fault_device(disk.inner, disk.faults, test::runtime().context().clock));
  return disk;
}
/// Writes through the inner device, so that no fault rule sees it.
Task<Result<void>> fill(BlockDevice& device, Range range, std::optional<std::byte> value) {
  std::vector<std::byte> bytes(range.length, value.value_or(std::byte{0}));
  if (!value) test::fill_pattern(bytes, range.offset);
  co_return co_await device.write(range.offset, bytes, {});
}
Task<Result<std::vector<std::byte>>> read_all(BlockDevice& device) {
  std::vector<std::byte> bytes(device.size_bytes());
  if (!bytes.empty()) DISKFERRY_CO_CHECK(co_await device.read(0, bytes));
  co_return bytes;
}

struct Arrangement {
  EngineOptions engine{.request_bytes = 64 * kib, .requests = 4, .read_back_every = 1};
  std::vector<Piece>* durable = nullptr;  ///< gets what checkpoints made durable
  RangeSet done;
};
struct Outcome {
  Result<void> result;
  std::uint64_t read_bytes = 0;
  std::uint64_t written_bytes = 0;
  std::uint64_t zeroed_bytes = 0;
  std::uint64_t skipped_bytes = 0;
  std::uint64_t verified_bytes = 0;
};

Task<Result<Outcome>> copy_disks(Disk& source, Disk& target, Arrangement setup) {
  std::mutex guard;
  CopyPlan plan({*source.device, target.device.get()},
                {.source_bytes = source.device->size_bytes(),
                 .target_bytes = target.device->size_bytes(),
                 .align_bytes = std::max<std::uint64_t>(
                     {512, source.device->info().block_bytes, target.device->info().block_bytes}),
                 .request_bytes = setup.engine.request_bytes},
                setup.done);
  CopyEngine engine(test::runtime().context(), {*source.device, *target.device}, setup.engine,
                    {.finished =
                         [&](const Piece& piece) {
                           std::lock_guard lock(guard);
                           if (setup.durable != nullptr) setup.durable->push_back(piece);
                         },
                     .progress = {},
                     .room = nullptr});
  Outcome outcome;
  outcome.result = co_await engine.run(plan);
  const auto& counters = engine.counters();
  outcome.read_bytes = counters.read_bytes;
  outcome.written_bytes = counters.written_bytes;
  outcome.zeroed_bytes = counters.zeroed_bytes;
  outcome.skipped_bytes = counters.skipped_bytes;
  outcome.verified_bytes = counters.verified_bytes;
  co_return outcome;
}
Outcome copy(Disk& source, Disk& target, Arrangement setup = {}) {
  return must(run(copy_disks(source, target, setup)));
}
void close(Disk& disk) {
  must(run(disk.device->close()));
}

/// Data with holes and zeros inside, odd at the end.
void make_content(Disk& source) {
  must(run(fill(*source.inner, {0, 100 * kib}, std::nullopt)));
  must(run(fill(*source.inner, {300 * kib, 20 * kib}, std::nullopt)));
  must(run(fill(*source.inner, {320 * kib, 200 * kib}, std::byte{0})));  // zeros that look like data
  must(run(fill(*source.inner, {source.inner->size_bytes() - 1001, 1001}, std::nullopt)));
}

TEST(CopyEngine, WritesNoZerosToATargetThatProvedZeros) {
  auto source = make_disk({.size_bytes = 4 * mib + 1001});
  auto target = make_disk({.size_bytes = 4 * mib + 1001});
  make_content(source);
  const auto outcome = copy(source, target);
  must(outcome.result);
  EXPECT_EQ(must(run(read_all(*source.inner))), must(run(read_all(*target.inner))));
  EXPECT_EQ(target.faults->calls(FaultVerb::write_zeroes), 0u);
  EXPECT_EQ(outcome.zeroed_bytes, 0u);
  EXPECT_LT(outcome.written_bytes, 140 * kib);
  close(source);
  close(target);
}

/// A memory device says starts_zeroed of itself when made; this one is not zero any more.
struct Used final : BlockDevice {
  explicit Used(BlockDevice& on) : inner(on), facts(on.info()) { facts.starts_zeroed = false; }
  const DeviceInfo& info() const noexcept override { return facts; }
  std::uint64_t size_bytes() const noexcept override { return inner.size_bytes(); }
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    return inner.read(offset, into);
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    return inner.write(offset, from, flags);
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    return inner.write_zeroes(range, flags);
  }
  Task<Result<void>> discard(Range range) override { return inner.discard(range); }
  Task<Result<void>> flush() override { return inner.flush(); }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t most) override {
    return inner.extents(range, most);
  }
  Task<Result<void>> close() override { return inner.close(); }
  BlockDevice& inner;
  DeviceInfo facts;
};
Disk used_disk(Disk disk) {
  auto inner = std::shared_ptr<BlockDevice>(std::move(disk.device));
  return {.inner = inner, .faults = disk.faults, .device = std::make_unique<Used>(*inner)};
}

TEST(CopyEngine, WritesEveryZeroToATargetFullOfOtherBytes) {
  for (const ZeroSupport zero : {ZeroSupport::none, ZeroSupport::slow, ZeroSupport::unmapping}) {
    auto source = make_disk({.size_bytes = 4 * mib + 1001});
    auto target = make_disk({.size_bytes = 4 * mib + 1001, .zero = zero});
    make_content(source);
    must(run(fill(*target.inner, {0, target.inner->size_bytes()}, std::byte{0xA5})));
    Disk used = used_disk(std::move(target));
    must(copy(source, used).result);
    EXPECT_EQ(must(run(read_all(*source.inner))), must(run(read_all(*used.inner))));
    close(source);
    close(used);
  }
}

TEST(CopyEngine, AsksATargetAboutManyHolesAtOnce) {
  auto source = make_disk({.size_bytes = 16 * mib});
  auto target = make_disk({.size_bytes = 16 * mib});
  for (std::uint64_t at = 0; at < 16 * mib; at += mib)
    must(run(fill(*source.inner, {at, 256 * kib}, std::nullopt)));
  must(run(fill(*target.inner, {9 * mib + 512 * kib, 4 * kib}, std::byte{0xA5})));
  Disk used = used_disk(std::move(target));
  const auto outcome = copy(source, used);
  must(outcome.result);
  EXPECT_LE(used.faults->calls(FaultVerb::extents), 2u) << "of 16 holes";
  EXPECT_EQ(outcome.skipped_bytes + outcome.zeroed_bytes, 12 * mib);
  EXPECT_LE(outcome.zeroed_bytes, 64 * kib) << "what is zero there already is left alone";
  EXPECT_EQ(must(run(read_all(*source.inner))), must(run(read_all(*used.inner))));
  close(source);
  close(used);
}

TEST(CopyEngine, ReadsNoZerosBackThatItLeftOut) {
  auto source = make_disk({.size_bytes = 1 * mib, .can_report_extents = false});
  auto target = make_disk({.size_bytes = 1 * mib});
  must(run(fill(*source.inner, {0, 64 * kib}, std::nullopt)));
  must(run(fill(*source.inner, {960 * kib, 64 * kib}, std::nullopt)));
  const EngineOptions one_unit{.request_bytes = 1 * mib, .requests = 1, .read_back_every = 1};
  const auto outcome = copy(source, target, {.engine = one_unit, .done = {}});
  must(outcome.result);
  EXPECT_EQ(outcome.skipped_bytes, 896 * kib);
  EXPECT_EQ(outcome.verified_bytes, 128 * kib);
  EXPECT_EQ(must(run(read_all(*source.inner))), must(run(read_all(*target.inner))));
  for (Disk* disk : {&source, &target}) close(*disk);
}

TEST(CopyEngine, ReadsSamplesBack) {
  auto source = make_disk({.size_bytes = 2 * mib});
  auto target = make_disk({.size_bytes = 2 * mib});
  must(run(fill(*source.inner, {0, 2 * mib}, std::nullopt)));
  const EngineOptions samples{.request_bytes = 64 * kib, .requests = 4, .read_back_every = 16};
  const auto outcome = copy(source, target, {.engine = samples, .done = {}});
  must(outcome.result);
  EXPECT_EQ(outcome.verified_bytes, 2 * 64 * kib) << "two of 32 units";
  for (Disk* disk : {&source, &target}) close(*disk);
}

TEST(CopyEngine, OddSizesAndLargerTargets) {
  for (const std::uint64_t size : {0u, 1u, 511u, 4095u, 65537u, 1000003u}) {
    auto source = make_disk({.size_bytes = size});
    auto target = make_disk({.size_bytes = align_up(size, 4096) + 8192, .block_bytes = 4096});
    if (size > 0) must(run(fill(*source.inner, {0, size}, std::nullopt)));
    must(copy(source, target).result);
    auto expected = must(run(read_all(*source.inner)));
    expected.resize(target.inner->size_bytes());
    EXPECT_EQ(expected, must(run(read_all(*target.inner)))) << size;
    close(source);
    close(target);
  }
}

struct Liar {
  std::string name;
  FaultVerb verb;
  FaultAction action;
};
class LyingTarget : public testing::TestWithParam<Liar> {};
TEST_P(LyingTarget, IsCaughtByReadingBack) {
  auto source = make_disk({.size_bytes = mib});
  auto target = make_disk({.size_bytes = mib});
  must(run(fill(*source.inner, {0, mib}, std::nullopt)));
  target.faults->add({.verb = GetParam().verb, .action = GetParam().action, .first_call = 3, .last_call = 3});
  const auto outcome = copy(source, target);
  ASSERT_FALSE(outcome.result);
  EXPECT_EQ(outcome.result.error().kind(), ErrorKind::mismatch);
  EXPECT_TRUE(outcome.result.error().position());
  close(source);
  close(target);
}
INSTANTIATE_TEST_SUITE_P(Lies, LyingTarget,
                         testing::Values(Liar{"corrupts", FaultVerb::write, FaultAction::corrupt},
                                         Liar{"drops", FaultVerb::write, FaultAction::ignore},
                                         Liar{"corrupts_reads", FaultVerb::read, FaultAction::corrupt}),
                         [](const auto& info) { return info.param.name; });

TEST(CopyEngine, ABadSectorIsNamed) {
  auto source = make_disk({.size_bytes = mib});
  auto target = make_disk({.size_bytes = mib});
  must(run(fill(*source.inner, {0, mib}, std::nullopt)));
  source.faults->add({.verb = FaultVerb::read, .action = FaultAction::fail, .range = {200000, 1}});
  const auto outcome = copy(source, target);
  ASSERT_FALSE(outcome.result);
  EXPECT_EQ(outcome.result.error().kind(), ErrorKind::io);
  ASSERT_TRUE(outcome.result.error().position());
  const auto position = *outcome.result.error().position();
  EXPECT_TRUE((Range{position.offset, position.length}.contains({200000, 1})));
  EXPECT_NE(outcome.result.error().message().find("read the source"), std::string::npos);
  close(source);
  close(target);
}

/// Whatever fails and whenever: what is called finished is right, and going on from there ends with an equal
/// disk that has copied nothing twice but what was in flight.
TEST(CopyEngine, FaultsFromASeedNeverLoseWhatIsFinished) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const std::uint64_t size = 600 * kib + random() % (300 * kib);
    auto source = make_disk({.size_bytes = size}, seed);
    auto target = make_disk({.size_bytes = size}, seed);
    for (int i = 0; i < 6; ++i) {
      const std::uint64_t at = random() % size;
      must(run(fill(*source.inner, {at, std::min(size - at, 1 + random() % (90 * kib))},
                    random() % 3 == 0 ? std::optional(std::byte{0}) : std::nullopt)));
    }
    const auto expected = must(run(read_all(*source.inner)));
    constexpr std::array actions{FaultAction::fail, FaultAction::fail_late, FaultAction::corrupt,
                                 FaultAction::ignore};
    RangeSet done;
    bool is_complete = false;
    for (int attempt = 0; attempt < 20 && !is_complete; ++attempt) {
      target.faults->clear();
      source.faults->clear();
      if (attempt < 19) {
        target.faults->add({.verb = FaultVerb::write,
                            .action = actions[random() % actions.size()],
                            .error = random() % 2 == 0 ? ErrorKind::no_space : ErrorKind::io,
                            .probability = 0.2,
                            .torn = true});
        source.faults->add({.verb = FaultVerb::read, .action = FaultAction::fail, .probability = 0.05});
      }
      std::vector<Piece> finished;
      Arrangement setup{.durable = &finished, .done = done};
      const auto outcome = copy(source, target, setup);
      is_complete = outcome.result.has_value();
      target.faults->clear();
      const auto now = must(run(read_all(*target.inner)));
      for (const Piece& piece : finished) {
        ASSERT_TRUE(std::ranges::equal(std::span(now).subspan(piece.range.offset, piece.range.length),
                                       std::span(expected).subspan(piece.range.offset, piece.range.length)));
        EXPECT_TRUE(done.inside(piece.range).empty()) << "copied twice";
        done.add(piece.range);
      }
    }
    ASSERT_TRUE(is_complete);
    EXPECT_EQ(expected, must(run(read_all(*target.inner))));
    close(source);
    close(target);
  }
}

TEST(CopyEngine, CancelStopsACopyThatHangs) {
  auto source = make_disk({.size_bytes = mib});
  auto target = make_disk({.size_bytes = mib});
  must(run(fill(*source.inner, {0, mib}, std::nullopt)));
  target.faults->add({.verb = FaultVerb::write, .action = FaultAction::hang, .first_call = 4});
  auto& clock = test::runtime().context().clock;
  const auto result =
      run(with_deadline(clock, std::chrono::milliseconds(200), "copy", copy_disks(source, target, {})));
  ASSERT_TRUE(result) << result.error().message();  // copy_disks itself ended; the engine was cancelled
  ASSERT_FALSE(result->result);
  EXPECT_EQ(result->result.error().kind(), ErrorKind::cancelled);
  close(source);
  close(target);
}

Task<Result<void>> checkpoint_some(Disk& target, Checkpointer& checkpointer) {
  std::vector<std::byte> bytes(64 * kib);
  for (std::uint64_t at = 0; at < mib; at += bytes.size()) {
    test::fill_pattern(bytes, at);
    DISKFERRY_CO_CHECK(co_await target.device->write(at, bytes, {}));
    DISKFERRY_CO_CHECK(co_await checkpointer.room().acquire(1));
    checkpointer.finished({{at, bytes.size()}, PieceState::copied, content_hash(bytes)});
  }
  co_return co_await checkpointer.commit();
}

TEST(Checkpointer, RecordsOnlyWhatWasFlushedAndReadAgain) {
  test::TemporaryFolder folder;
  auto target = make_disk({.size_bytes = mib});
  const auto open_ledger = [&](std::string name) {
    return must(run(Ledger::create(test::runtime().context(), folder / name, {})));
  };
  {
    auto ledger = open_ledger("good");
    Checkpointer checkpointer(test::runtime().context(), *target.device, ledger.get(),
                              {.verify = true, .cache_path = {}});
    must(run(checkpoint_some(target, checkpointer)));
    EXPECT_EQ(checkpointer.durable_bytes(), mib);
    EXPECT_EQ(checkpointer.verified_bytes(), mib);
  }
  EXPECT_EQ(must(run(Ledger::load(test::runtime().context(), folder / "good"))).done.bytes(), mib);
  {
    target.faults->add({.verb = FaultVerb::flush, .action = FaultAction::fail, .error = ErrorKind::no_space});
    auto ledger = open_ledger("full");
    Checkpointer checkpointer(test::runtime().context(), *target.device, ledger.get(), {.cache_path = {}});
    const auto result = run(checkpoint_some(target, checkpointer));
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().kind(), ErrorKind::no_space);
    EXPECT_EQ(checkpointer.durable_bytes(), 0u);
    target.faults->clear();
  }
  EXPECT_EQ(must(run(Ledger::load(test::runtime().context(), folder / "full"))).done.bytes(), 0u);
  {
    target.faults->add(
        {.verb = FaultVerb::read, .action = FaultAction::corrupt, .first_call = 5, .last_call = 5});
    auto ledger = open_ledger("lie");
    Checkpointer checkpointer(test::runtime().context(), *target.device, ledger.get(),
                              {.verify = true, .cache_path = {}});
    const auto result = run(checkpoint_some(target, checkpointer));
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().kind(), ErrorKind::mismatch);
    target.faults->clear();
  }
  EXPECT_EQ(must(run(Ledger::load(test::runtime().context(), folder / "lie"))).done.bytes(), 0u);
  close(target);
}

}  // namespace
}  // namespace diskferry
