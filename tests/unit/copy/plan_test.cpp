#include "gateway/copy/plan.hpp"

#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using PlanRun = RunBuilder::Run;
constexpr WorkKind copy = WorkKind::copy;
constexpr WorkKind zero = WorkKind::zero;
constexpr WorkKind leave = WorkKind::leave;

Extent data(std::uint64_t offset, std::uint64_t length) {
  return {.offset = offset, .length = length};
}
Extent zeros(std::uint64_t offset, std::uint64_t length) {
  return {.offset = offset, .length = length, .reads_zero = true, .is_hole = true};
}
Extent hole(std::uint64_t offset, std::uint64_t length) {
  return {.offset = offset, .length = length, .is_hole = true};
}

struct Row {
  std::string name;
  PlanRules rules;
  std::vector<Extent> extents;
  std::vector<PlanRun> runs;
};
class RunTable : public testing::TestWithParam<Row> {};

TEST_P(RunTable, BecomesRuns) {
  RunBuilder builder(GetParam().rules);
  std::vector<PlanRun> runs;
  for (const Extent& extent : GetParam().extents) builder.feed(extent, runs);
  builder.finish(runs);
  ASSERT_EQ(runs.size(), GetParam().runs.size());
  for (std::size_t i = 0; i < runs.size(); ++i) {
    EXPECT_EQ(runs[i].kind, GetParam().runs[i].kind) << i;
    EXPECT_EQ(runs[i].range.offset, GetParam().runs[i].range.offset) << i;
    EXPECT_EQ(runs[i].range.length, GetParam().runs[i].range.length) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Rules, RunTable,
    testing::Values(
        Row{"empty", {.source_bytes = 0, .target_bytes = 0}, {}, {}},
        Row{"all_zero", {.source_bytes = mib, .target_bytes = mib}, {zeros(0, mib)}, {{zero, {0, mib}}}},
        Row{"bare_hole_is_read",
            {.source_bytes = mib, .target_bytes = mib},
            {hole(0, mib)},
            {{copy, {0, mib}}}},
        Row{"data_is_widened",
            {.source_bytes = mib,
             .target_bytes = mib,
             .align_bytes = 65536,
             .request_bytes = 65536,
             .gap_bytes_max = 0},
            {zeros(0, 70000), data(70000, 10), zeros(70010, mib - 70010)},
            {{zero, {0, 65536}}, {copy, {65536, 65536}}, {zero, {131072, mib - 131072}}}},
        Row{"short_gap_is_read",
            {.source_bytes = mib, .target_bytes = mib, .gap_bytes_max = 65536},
            {data(0, 4096), zeros(4096, 65536), data(69632, 4096), zeros(73728, mib - 73728)},
            {{copy, {0, 73728}}, {zero, {73728, mib - 73728}}}},
        Row{"long_gap_is_not",
            {.source_bytes = mib, .target_bytes = mib, .gap_bytes_max = 4096},
            {data(0, 4096), zeros(4096, 8192), data(12288, mib - 12288)},
            {{copy, {0, 4096}}, {zero, {4096, 8192}}, {copy, {12288, mib - 12288}}}},
        Row{"odd_end_in_a_larger_target",
            {.source_bytes = 1000, .target_bytes = 4096, .align_bytes = 512},
            {data(0, 1000)},
            {{copy, {0, 1024}}, {zero, {1024, 3072}}}},
        Row{"odd_end_in_an_equal_target",
            {.source_bytes = 1000, .target_bytes = 1000, .align_bytes = 512},
            {data(0, 1000)},
            {{copy, {0, 1000}}}},
        Row{"top_only_leaves_the_rest_alone",
            {.source_bytes = mib, .target_bytes = mib, .align_bytes = 65536, .top_only = true},
            {Extent{.offset = 0, .length = 4096, .reads_zero = true, .depth = Extent::depth_none},
             data(4096, 4096), Extent{.offset = 8192, .length = mib - 8192, .depth = 1}},
            {{leave, {0, 4096}}, {copy, {4096, 4096}}, {leave, {8192, mib - 8192}}}}),
    [](const auto& info) { return info.param.name; });

TEST(FirstRequest, EndsAtMultiples) {
  EXPECT_EQ(first_request({0, 10 * mib}, mib), (Range{0, mib}));
  EXPECT_EQ(first_request({mib + 4096, 10 * mib}, mib), (Range{mib + 4096, mib - 4096}));
  EXPECT_EQ(first_request({mib, 100}, mib), (Range{mib, 100}));
}

/// Reads as zeros, and says so of the parts that are not in `data`.
class Patches final : public BlockDevice {
 public:
  explicit Patches(std::vector<Range> data) : data_(std::move(data)) {
    info_.name = "patches";
    info_.block_bytes = 512;
    info_.can_report_extents = true;
    info_.zero = ZeroSupport::fast;
  }
  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return mib; }
  Task<Result<void>> read(std::uint64_t, std::span<std::byte> into) override {
    std::ranges::fill(into, std::byte{0});
    co_return Result<void>{};
  }
  Task<Result<void>> write(std::uint64_t, std::span<const std::byte>, WriteFlags) override {
    co_return unexpected(fail(ErrorKind::unsupported, "write", info_.name));
  }
  Task<Result<void>> write_zeroes(Range, ZeroFlags) override {
    co_return unexpected(fail(ErrorKind::unsupported, "zero", info_.name));
  }
  Task<Result<void>> discard(Range) override { co_return Result<void>{}; }
  Task<Result<void>> flush() override { co_return Result<void>{}; }
  Task<Result<void>> close() override { co_return Result<void>{}; }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t) override {
    std::vector<Extent> found;
    std::uint64_t at = range.offset;
    for (const Range part : data_) {
      if (part.end() <= at || part.offset >= range.end()) continue;
      if (part.offset > at) found.push_back(zeros(at, part.offset - at));
      found.push_back(data(std::max(at, part.offset), part.end() - std::max(at, part.offset)));
      at = part.end();
    }
    if (at < range.end()) found.push_back(zeros(at, range.end() - at));
    co_return found;
  }

 private:
  const std::vector<Range> data_;
  DeviceInfo info_;
};

/// Who works off granules takes a unit for what becomes of the granules that it touches.
TEST(CopyPlan, ZeroesWholeUnitsWhereThereIsAnythingAtTheTarget) {
  Patches source({});
  Patches target({{65536 + 4096, 512}, {3 * 65536 - 512, 1024}});
  CopyPlan plan({source, &target}, {.source_bytes = mib, .target_bytes = mib, .align_bytes = 65536});
  std::vector<std::pair<WorkKind, Range>> units;
  while (const auto unit = must(run(plan.next()))) units.emplace_back(unit->kind, unit->range);
  const std::vector<std::pair<WorkKind, Range>> expected{{WorkKind::skip, {0, 65536}},
                                                         {WorkKind::zero, {65536, 3 * 65536}},
                                                         {WorkKind::skip, {4 * 65536, 12 * 65536}}};
  EXPECT_EQ(units, expected);
}

}  // namespace
}  // namespace diskferry
