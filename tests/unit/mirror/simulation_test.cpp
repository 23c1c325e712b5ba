// The window under random overlapping requests of several tasks, with a target that is slow, fails, and
// forgets what was not flushed. The model knows for each sector which contents it may have; every run is told
// by its seed.
#include "diskferry/task_group.hpp"
#include "gateway/mirror/table_file.hpp"
#include "tests/support/sector_model.hpp"
#include "tests/unit/mirror/window_fixture.hpp"

#include <fmt/format.h>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;

using test::sector_bytes;
using test::unwritten;
using Model = test::SectorModel;

/// Few different contents, so that blocks are often written with what they hold. 0 is zeros.
constexpr std::uint64_t contents = 4;
struct Simulation {
  std::uint64_t seed = 0;
  test::DiskOptions disk{};
  unsigned tasks = 4;
  unsigned steps = 50;
};

class Trial {
 public:
  Trial(const Simulation& simulation, WindowOptions options)
      : simulation_(simulation),
        disk_(simulation.disk, std::move(options), simulation.seed),
        model_(simulation.disk.size_bytes, simulation.disk.starts_zeroed ? 0 : unwritten) {}

  test::WindowUnderTest& disk() { return disk_; }
  void work() { must(run(work_all())); }
  const std::vector<std::string>& problems() const { return problems_; }
  bool has_failed() const { return has_failed_; }

  /// After everything has ended: what the target holds, and what the window says of itself.
  void expect_end_is_right() {
    must(disk_.flush());
    const std::uint64_t now = model_.now();
    EXPECT_EQ(model_.check(disk_.target->durable(), 0, now), "");
    const WindowStats stats = disk_.window->stats();
    EXPECT_EQ(stats.acknowledged_bytes + stats.zeroed_bytes,
              stats.sent_bytes + stats.sent_zero_bytes + stats.unchanged_bytes + stats.superseded_bytes);
    EXPECT_EQ(stats.pending_bytes + stats.pending_zero_bytes, 0u);
    EXPECT_EQ(stats.requests_in_flight, 0u);
    const bool zeroing_is_writing = simulation_.disk.zero == ZeroSupport::none;
    EXPECT_EQ(stats.sent_bytes + (zeroing_is_writing ? stats.sent_zero_bytes : 0),
              disk_.target->written_bytes());
  }

  /// Saves the table as the next attempt would find it, and compares its every claim with the target.
  std::uint64_t expect_table_is_true() {
    const test::TemporaryFolder folder;
    must(run(disk_.window->stop()));
    must(run(disk_.window->save_table(folder / "table", "target")));
    const TableShape shape{.size_bytes = simulation_.disk.size_bytes,
                           .block_bytes = std::max(4096u, simulation_.disk.block_bytes)};
    const auto table = must(run(load_block_table(runtime().context(), folder / "table", {"target", shape})));
    const std::vector<std::byte> durable = disk_.target->durable();
    std::uint64_t known = 0;
    for (std::uint64_t block = 0; block < table->blocks(); ++block) {
      const BlockHash claim = table->known(block);
      if (!claim.is_known()) continue;
      ++known;
      const auto content = std::span(durable).subspan(block * shape.block_bytes);
      EXPECT_EQ(claim, table->hash(content.first(std::min<std::size_t>(content.size(), shape.block_bytes))))
          << "block " << block;
    }
    return known;
  }

 private:
  Task<Result<void>> work_all() {
    TaskGroup group(runtime().reactor(0));
    for (unsigned i = 0; i < simulation_.tasks; ++i)
      group.spawn_on(runtime().reactor(i), work_one(simulation_.seed * 100 + i));
    co_return co_await group.join();
  }
  Task<Result<void>> work_one(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (unsigned i = 0; i < simulation_.steps; ++i) co_await step(random);
    co_return Result<void>{};
  }

  Task<void> step(std::mt19937_64& random) {
    const auto roll = random() % 100;
    if (roll < 55) {
      co_await write(random_range(random, 300), random() % contents, random() % 2 == 0);
    } else if (roll < 62) {
      co_await zero(random_range(random, 1200), random() % 2 == 0);
    } else if (roll < 75) {
      co_await read(random_range(random, 300));
    } else if (roll < 85) {
      co_await flush();
    } else if (roll < 93) {
      disk_.window->set_window_bytes(random() % 6 == 0 ? random() % 2 : random() % (600 * kib));
    } else {
      (void)co_await runtime().context().clock.sleep_for(std::chrono::microseconds(random() % 500));
    }
  }

  /// Mostly whole blocks, mostly small; in units that the disk takes.
  Range random_range(std::mt19937_64& random, std::uint64_t sectors_max) {
    const std::uint64_t size = simulation_.disk.size_bytes;
    const std::uint64_t unit = random() % 4 == 0 ? sector_bytes : 4096;
    const std::uint64_t units = divide_up(size, unit);
    const std::uint64_t first = random() % units;
    const std::uint64_t most =
        random() % 3 == 0 ? std::max<std::uint64_t>(1, sectors_max * sector_bytes / unit) : 4;
    const std::uint64_t offset = first * unit;
    return {offset, std::min(size - offset, (1 + random() % most) * unit)};
  }

  Task<void> write(Range range, std::uint64_t content, bool may_try) {
    std::vector<std::byte> bytes(range.length);
    test::fill_sectors(bytes, content, range.offset / sector_bytes);
    const auto token = model_.begin(range, content);
    auto tried = may_try ? disk_.device->try_write(range.offset, bytes) : std::nullopt;
    const auto result = tried ? *std::move(tried) : co_await disk_.device->write(range.offset, bytes, {});
    if (result) model_.end(token);
    note(result);
  }
  Task<void> zero(Range range, bool discard) {
    const auto token = model_.begin(range, 0);
    const auto result =
        discard ? co_await disk_.device->discard(range) : co_await disk_.device->write_zeroes(range, {});
    if (result && (!discard || simulation_.disk.zero >= ZeroSupport::fast)) model_.end(token);
    note(result);
  }
  Task<void> read(Range range) {
    std::vector<std::byte> bytes(range.length);
    const std::uint64_t since = model_.now();
    const auto result = co_await disk_.device->read(range.offset, bytes);
    note(result);
    if (result) report(model_.check(bytes, range.offset, since), "read");
  }
  Task<void> flush() {
    const bool failed_before = has_failed_;
    const std::uint64_t since = model_.now();
    const auto result = co_await disk_.device->flush();
    note(result);
    if (!result) co_return;
    report(model_.check(disk_.target->durable(), 0, since), "flush");
    if (failed_before) report("succeeded after a failure", "flush");
  }
  void note(const Result<void>& result) {
    if (!result) has_failed_ = true;
  }
  void report(const std::string& problem, const std::string& verb) {
    if (problem.empty()) return;
    std::lock_guard lock(guard_);
    problems_.push_back(verb + ": " + problem);
  }

  const Simulation simulation_;
  test::WindowUnderTest disk_;
  Model model_;
  std::atomic<bool> has_failed_ = false;
  std::mutex guard_;
  std::vector<std::string> problems_;
};

struct Arrangement {
  std::string name;
  test::DiskOptions disk;
  std::uint64_t table_bytes_max = 64 * kib;
  std::uint64_t bytes_per_s = 0;
};
void delay(FaultControl& faults) {
  using std::chrono::microseconds;
  faults.add(
      {.verb = FaultVerb::any, .action = FaultAction::delay, .probability = 0.5, .delay = microseconds(100)});
  faults.add({.verb = FaultVerb::any,
              .action = FaultAction::delay,
              .probability = 0.05,
              .delay = microseconds(2000)});
}

class Simulated : public testing::TestWithParam<Arrangement> {};
TEST_P(Simulated, EveryFlushIsAPromise) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Trial simulation({.seed = seed, .disk = GetParam().disk},
                     {.window_bytes = 300 * kib,
                      .table_bytes_max = GetParam().table_bytes_max,
                      .requests_max = 1 + static_cast<unsigned>(seed) * 3 % 17,
                      .request_bytes_max = seed % 2 == 0 ? 256u << 10 : 16u << 10,
                      .bytes_per_s = GetParam().bytes_per_s});
    delay(*simulation.disk().faults);
    simulation.work();
    EXPECT_THAT(simulation.problems(), testing::IsEmpty());
    EXPECT_FALSE(simulation.has_failed());
    simulation.expect_end_is_right();
    EXPECT_GT(simulation.expect_table_is_true(), 0u);
    if (HasFailure()) return;
  }
}
constexpr std::uint64_t odd_bytes = 900 * kib + 1324;
INSTANTIATE_TEST_SUITE_P(
    Disks, Simulated,
    testing::Values(
        Arrangement{"zeroed", {.size_bytes = odd_bytes}},
        Arrangement{"used", {.size_bytes = odd_bytes, .starts_zeroed = false}},
        Arrangement{"cannot_zero", {.size_bytes = odd_bytes, .zero = ZeroSupport::none}},
        Arrangement{"sectors", {.size_bytes = 900 * kib + 512, .block_bytes = 512}},
        Arrangement{"slow_zeroing", {.size_bytes = 896 * kib, .block_bytes = 512, .zero = ZeroSupport::slow}},
        Arrangement{.name = "forgetful", .disk = {.size_bytes = odd_bytes}, .table_bytes_max = 0},
        Arrangement{.name = "limited", .disk = {.size_bytes = odd_bytes}, .bytes_per_s = 40 * mib}),
    [](const auto& info) { return info.param.name; });

struct Failure {
  std::string name;
  FaultVerb verb;
  FaultAction action;
  bool torn = false;
};
class SimulatedFailure : public testing::TestWithParam<Failure> {};
TEST_P(SimulatedFailure, AtEveryStepIsKeptAndNothingFalseIsSaved) {
  for (std::uint64_t step = 1; step <= 30; ++step) {
    SCOPED_TRACE(fmt::format("step {}", step));
    Trial simulation(
        {.seed = step, .disk = {.size_bytes = odd_bytes, .starts_zeroed = step % 2 == 0}, .steps = 20},
        {.window_bytes = 300 * kib, .table_bytes_max = 64 * kib, .requests_max = 8});
    simulation.disk().faults->add({.verb = GetParam().verb,
                                   .action = GetParam().action,
                                   .error = ErrorKind::no_space,
                                   .first_call = step,
                                   .last_call = step,
                                   .torn = GetParam().torn});
    delay(*simulation.disk().faults);
    simulation.work();
    EXPECT_THAT(simulation.problems(), testing::IsEmpty());
    if (simulation.disk().faults->calls(GetParam().verb) >= step) {
      const auto flushed = simulation.disk().flush();
      EXPECT_FALSE(flushed);
      EXPECT_TRUE(simulation.disk().window->failure());
    }
    simulation.expect_table_is_true();
    if (HasFailure()) return;
  }
}
INSTANTIATE_TEST_SUITE_P(Verbs, SimulatedFailure,
                         testing::Values(Failure{"write", FaultVerb::write, FaultAction::fail},
                                         Failure{"torn_write", FaultVerb::write, FaultAction::fail, true},
                                         Failure{"lost_answer", FaultVerb::write, FaultAction::fail_late},
                                         Failure{"zeroing", FaultVerb::write_zeroes, FaultAction::fail_late},
                                         Failure{"flush", FaultVerb::flush, FaultAction::fail}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace diskferry
