// A failure at every step of a script: above the device, where the caller must be told, and below it, where
// the device must survive. What was acknowledged stays; nothing else changes outside the range of the failed
// call.
#include "drivers/checked_device.hpp"
#include "tests/contract/contract_test.hpp"

namespace diskferry::test {
namespace {

struct Outcome {
  unsigned failed = 0;
  std::string problem;
};

/// Writes, zeroes, discards and flushes; notes in the model what was acknowledged, and forgets what failed.
class Script {
 public:
  Script(BlockDevice& device, Model& model, std::vector<Range> ranges)
      : device_(device), model_(model), ranges_(std::move(ranges)) {}

  Outcome play(ErrorKind expected) {
    for (std::size_t i = 0; i < ranges_.size(); ++i) {
      const Range range = ranges_[i];
      const auto data = pattern(range.offset, range.length, 100 + i);
      step(run(device_.write(range.offset, data, {.fua = i % 2 == 1})), range, expected,
           [&] { model_.write(range.offset, data); });
      std::vector<std::byte> back(range.length);
      const auto read = run(device_.read(range.offset, back));
      if (read && outcome_.problem.empty()) outcome_.problem = model_.difference(range.offset, back);
      if (!read) note(read.error(), expected);
      const Range next = ranges_[(i + 1) % ranges_.size()];
      step(run(device_.write_zeroes(next, {.may_unmap = i % 2 == 0})), next, expected,
           [&] { model_.zero(next); });
      if (i % 3 == 0) {
        const auto discarded = run(device_.discard(next));
        model_.forget(next);
        if (!discarded) note(discarded.error(), expected);
      }
      if (const auto flushed = run(device_.flush()); !flushed) note(flushed.error(), expected);
    }
    return outcome_;
  }

 private:
  template <class Acknowledge>
  void step(const Result<void>& done, Range range, ErrorKind expected, Acknowledge acknowledge) {
    if (done) {
      acknowledge();
    } else {
      model_.forget(range);
      note(done.error(), expected);
    }
  }
  void note(const Error& error, ErrorKind expected) {
    ++outcome_.failed;
    if (error.kind() != expected) outcome_.problem = "unexpected error: " + error.message();
  }
  BlockDevice& device_;
  Model& model_;
  std::vector<Range> ranges_;
  Outcome outcome_;
};

class FaultContract : public DeviceContract {
 protected:
  void play_with_fault_at(BlockDevice& device, FaultControl& control, FaultRule rule) {
    SCOPED_TRACE(fmt::format("fault at call {}", rule.first_call));
    Model model(device.size_bytes());
    must(run(device.write(0, pattern(0, device.size_bytes()), {})));
    model.write(0, pattern(0, device.size_bytes()));
    control.add(rule);
    Script script(device, model, {whole({10001, 20001}), whole({70001, 513}), whole({200001, 1})});
    const auto outcome = script.play(rule.error);
    EXPECT_EQ(outcome.problem, "");
    faults_seen_ += control.faults();
    control.clear();
    // The device is usable again, and what was acknowledged is there.
    std::vector<std::byte> all(device.size_bytes());
    must(run(device.read(0, all)));
    EXPECT_EQ(model.difference(0, all), "");
    must(run(device.write(0, pattern(0, all.size(), 2), {.fua = true})));
    must(run(device.read(0, all)));
    EXPECT_EQ(first_difference(all, 0, 2), SIZE_MAX);
  }
  std::uint64_t faults_seen_ = 0;
};

TEST_P(FaultContract, AFaultAboveReachesTheCallerAndHarmsNothingElse) {
  open(256 * kib);
  auto control = std::make_shared<FaultControl>(FaultPlan{.seed = 1});
  // Borrowed, not owned: the fixture closes the subject.
  const std::shared_ptr<BlockDevice> borrowed(&device(), [](BlockDevice*) {});
  const auto faulty = checked(make_fault_device(borrowed, control, runtime().context().clock));
  for (std::uint64_t step = 1; step <= 14; ++step) {
    for (const FaultAction action : {FaultAction::fail, FaultAction::fail_late})
      play_with_fault_at(*faulty, *control,
                         {.action = action,
                          .error = ErrorKind::no_space,
                          .first_call = step,
                          .last_call = step,
                          .torn = step % 2 == 0});
  }
  EXPECT_GT(faults_seen_, 14u);
}

TEST_P(FaultContract, AFaultBelowIsReportedAndSurvived) {
  if (!GetParam().has_faults_below) return;  // nothing of ours is between this device and its storage
  open(256 * kib);
  for (std::uint64_t step = 1; step <= 30; ++step) {
    play_with_fault_at(device(), *opened().faults_below,
                       {.action = step % 2 == 0 ? FaultAction::fail : FaultAction::fail_late,
                        .error = ErrorKind::io,
                        .first_call = step,
                        .last_call = step});
  }
  EXPECT_GT(faults_seen_, 10u);
}

INSTANTIATE_TEST_SUITE_P(Devices, FaultContract, testing::ValuesIn(all_subjects()), name_of);

}  // namespace
}  // namespace diskferry::test
