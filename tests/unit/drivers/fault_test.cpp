#include "drivers/filters/fault.hpp"

#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/memory/memory_device.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;

struct Faulty {
  explicit Faulty(FaultPlan plan, std::uint64_t size_bytes = 64 * kib)
      : control(std::make_shared<FaultControl>(std::move(plan))),
        inner(checked(make_memory_device({.size_bytes = size_bytes}))),
        device(checked(make_fault_device(inner, control, runtime().context().clock))) {}
  ~Faulty() { (void)run(device->close()); }

  std::shared_ptr<FaultControl> control;
  std::shared_ptr<BlockDevice> inner;
  DevicePtr device;
};
ErrorKind kind_of(const Result<void>& result) {
  EXPECT_FALSE(result);
  return result ? ErrorKind::internal : result.error().kind();
}
std::vector<std::byte> content(BlockDevice& device) {
  std::vector<std::byte> bytes(device.size_bytes());
  must(run(device.read(0, bytes)));
  return bytes;
}

TEST(Fault, FailsTheCallsItWasToldTo) {
  Faulty faulty(must(parse_fault_plan("write,fail=no_space,calls=2-3;flush,fail=gone,calls=1")));
  const auto data = test::pattern(0, 512);
  must(run(faulty.device->write(0, data, {})));
  EXPECT_EQ(kind_of(run(faulty.device->write(512, data, {}))), ErrorKind::no_space);
  EXPECT_EQ(kind_of(run(faulty.device->write(512, data, {}))), ErrorKind::no_space);
  must(run(faulty.device->write(512, data, {})));
  EXPECT_EQ(kind_of(run(faulty.device->flush())), ErrorKind::gone);
  must(run(faulty.device->flush()));
  EXPECT_EQ(faulty.control->calls(FaultVerb::write), 4u);
  EXPECT_EQ(faulty.control->faults(), 3u);
}

TEST(Fault, RangeRulesMeetOnlyWhatTouchesThem) {
  Faulty faulty(must(parse_fault_plan("any,fail,range=4K+1")));
  const auto data = test::pattern(0, 4096);
  must(run(faulty.device->write(0, data, {})));
  must(run(faulty.device->write(4097, data, {})));
  EXPECT_EQ(kind_of(run(faulty.device->write(4096, std::span(data).first(1), {}))), ErrorKind::io);
  EXPECT_EQ(kind_of(run(faulty.device->write_zeroes({4000, 97}, {}))), ErrorKind::io);
  EXPECT_EQ(kind_of(run(faulty.device->discard({0, 64 * kib}))), ErrorKind::io);
}

TEST(Fault, LateFailureHasDoneTheWorkAndEarlyHasNot) {
  Faulty faulty(must(parse_fault_plan("write,fail,calls=1;write,fail-late=timed_out,calls=2")));
  const auto data = test::pattern(0, 512);
  EXPECT_EQ(kind_of(run(faulty.device->write(0, data, {}))), ErrorKind::io);
  EXPECT_EQ(kind_of(run(faulty.device->write(512, data, {}))), ErrorKind::timed_out);
  const auto now = content(*faulty.inner);
  EXPECT_TRUE(is_zero(std::span(now).first(512)));
  EXPECT_TRUE(std::equal(data.begin(), data.end(), now.begin() + 512));
}

TEST(Fault, CorruptsExactlyWhatItWasToldTo) {
  Faulty faulty(must(parse_fault_plan("write,corrupt=3,calls=1;read,corrupt=1,calls=2")), 4096);
  const auto data = test::pattern(0, 4096);
  const auto differences = [&](const std::vector<std::byte>& bytes) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) count += bytes[i] != data[i] ? 1 : 0;
    return count;
  };
  must(run(faulty.device->write(0, data, {})));
  EXPECT_EQ(differences(content(*faulty.device)), 3u);
  must(run(faulty.inner->write(0, data, {})));
  EXPECT_EQ(differences(content(*faulty.device)), 1u);
  EXPECT_EQ(differences(content(*faulty.device)), 0u);
}

TEST(Fault, IgnoredWritesAreAcknowledgedAndLost) {
  Faulty faulty(must(parse_fault_plan("write,ignore")), 4096);
  must(run(faulty.device->write(0, test::pattern(0, 4096), {})));
  EXPECT_TRUE(is_zero(content(*faulty.inner)));
}

TEST(Fault, AfterAPowerCutNothingReachesTheDevice) {
  Faulty faulty(must(parse_fault_plan("write,cut,calls=3")), 4096);
  const auto data = test::pattern(0, 4096);
  must(run(faulty.device->write(0, std::span(data).first(512), {})));
  must(run(faulty.device->write(512, std::span(data).subspan(512, 512), {})));
  EXPECT_EQ(kind_of(run(faulty.device->write(1024, std::span(data).subspan(1024, 512), {}))),
            ErrorKind::gone);
  EXPECT_EQ(kind_of(run(faulty.device->flush())), ErrorKind::gone);
  EXPECT_EQ(kind_of(run(faulty.device->write_zeroes({0, 4096}, {}))), ErrorKind::gone);
  EXPECT_TRUE(faulty.control->is_power_cut());
  auto now = content(*faulty.inner);
  EXPECT_TRUE(std::equal(now.begin(), now.begin() + 1024, data.begin()));
  EXPECT_TRUE(is_zero(std::span(now).subspan(1024)));
  faulty.control->restore_power();
  must(run(faulty.device->flush()));
}

TEST(Fault, TornWritesEndAtASector) {
  std::size_t different_ends = 0;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    Faulty faulty(
        {.seed = seed, .rules = {{.verb = FaultVerb::write, .action = FaultAction::cut_power, .torn = true}}},
        8192);
    const auto data = test::pattern(0, 8192);
    EXPECT_EQ(kind_of(run(faulty.device->write(0, data, {}))), ErrorKind::gone);
    const auto now = content(*faulty.inner);
    const std::size_t kept = test::first_difference(now, 0);
    ASSERT_TRUE(kept == SIZE_MAX || kept % 512 == 0) << kept;
    EXPECT_TRUE(kept == SIZE_MAX || is_zero(std::span(now).subspan(kept)));
    different_ends += kept != 0 && kept != SIZE_MAX ? 1 : 0;
  }
  EXPECT_GT(different_ends, 4u);
}

Task<Result<void>> hang_and_cancel(BlockDevice& device) {
  TaskGroup group(runtime().reactor(1));
  group.spawn(device.flush());
  group.cancel();
  co_return co_await group.join();
}
TEST(Fault, HangsUntilCancelled) {
  Faulty faulty(must(parse_fault_plan("flush,hang")));
  EXPECT_EQ(kind_of(run(hang_and_cancel(*faulty.device))), ErrorKind::cancelled);
}

TEST(Fault, ChanceIsTheSameForTheSameSeed) {
  const auto outcome = [](std::uint64_t seed) {
    FaultControl control({.seed = seed, .rules = {{.verb = FaultVerb::read, .probability = 0.25}}});
    std::vector<bool> failed;
    for (int i = 0; i < 1000; ++i) failed.push_back(control.decide(FaultVerb::read, {0, 1}).acts);
    return failed;
  };
  EXPECT_EQ(outcome(1), outcome(1));
  EXPECT_NE(outcome(1), outcome(2));
  const auto hits = std::ranges::count(outcome(1), true);
  EXPECT_GT(hits, 200);
  EXPECT_LT(hits, 300);
}

TEST(FaultPlan, ReadsWhatOperatorsWrite) {
  const auto plan = must(parse_fault_plan(
      "seed=7;write,fail=gone,calls=3-5;read,delay=50ms,p=0.25,calls=2-;any,cut,torn,calls=9,range=1M+64K"));
  EXPECT_EQ(plan.seed, 7u);
  ASSERT_EQ(plan.rules.size(), 3u);
  EXPECT_EQ(plan.rules[0].error, ErrorKind::gone);
  EXPECT_EQ(plan.rules[0].last_call, 5u);
  EXPECT_EQ(plan.rules[1].delay, std::chrono::milliseconds(50));
  EXPECT_EQ(plan.rules[1].probability, 0.25);
  EXPECT_EQ(plan.rules[1].last_call, UINT64_MAX);
  EXPECT_TRUE(plan.rules[2].torn);
  EXPECT_EQ(plan.rules[2].range, (Range{1 * mib, 64 * kib}));
  for (const char* bad :
       {"write", "fail", "write,fail,hang", "write,fail=nonsense", "write,fail,calls=0",
        "write,fail,calls=5-3", "write,delay=5", "write,delay=5h", "write,fail,p=2", "write,fail,p=nan",
        "write,fail,range=5", "seed=x", "write,fail,colour=red", "write,corrupt=0"})
    EXPECT_FALSE(parse_fault_plan(bad)) << bad;
}

}  // namespace
}  // namespace diskferry
