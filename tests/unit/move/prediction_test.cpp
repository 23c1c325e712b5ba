// The forecast of a move: whether it ends, and that its figures follow from the rates.
#include "gateway/move/prediction.hpp"

#include "diskferry/units.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {

/// 10 GiB of disks and 4 GiB of memory over 1 GiB/s, with a guest that does little.
PredictionInput quiet() {
  return {.disk_bytes = 10 * gib,
          .disk_written_bytes_per_s = 0,
          .memory_bytes = 4 * gib,
          .memory_dirty_bytes_per_s = 0,
          .link_bytes_per_s = gib,
          .max_pause_ms = 300,
          .round_trip_us = 200};
}

struct Row {
  std::string name;
  void (*change)(PredictionInput&);
  Convergence convergence;
  double disks_s;
  double memory_s;
  double pause_ms;
  std::string slowest;
};
void PrintTo(const Row& row, std::ostream* out) {
  *out << row.name;
}

class Predict : public testing::TestWithParam<Row> {};
TEST_P(Predict, FollowsFromTheRates) {
  const Row& row = GetParam();
  PredictionInput input = quiet();
  row.change(input);
  const Prediction prediction = predict(input);
  EXPECT_EQ(prediction.convergence, row.convergence) << prediction.why;
  EXPECT_NEAR(prediction.disks_s, row.disks_s, row.disks_s * 0.01);
  EXPECT_NEAR(prediction.memory_s, row.memory_s, row.memory_s * 0.1);
  EXPECT_NEAR(prediction.pause_ms, row.pause_ms, row.pause_ms * 0.01);
  EXPECT_EQ(prediction.slowest, row.slowest);
  EXPECT_FALSE(prediction.why.empty());
  if (input.memory_bytes > 0) {
    EXPECT_EQ(prediction.pause_ms == 0, !comes_to_an_end(prediction.convergence));
  }
}

using In = PredictionInput;
INSTANTIATE_TEST_SUITE_P(
    Moves, Predict,
    testing::Values(
        Row{"quiet", [](In&) {}, Convergence::yes, 10, 3.8, 300, "network"},
        Row{"writing_half", [](In& in) { in.disk_written_bytes_per_s = gib / 2; }, Convergence::yes, 20, 7.5,
            300, "network"},
        Row{"dirtying_half", [](In& in) { in.memory_dirty_bytes_per_s = gib / 2; }, Convergence::yes, 10, 7.5,
            300, "network"},
        Row{"writing_all", [](In& in) { in.disk_written_bytes_per_s = gib; }, Convergence::writes_wait, 20,
            5.1, 300, "network"},
        Row{"writing_more_than_all_and_dirtying_half",
            [](In& in) {
              in.disk_written_bytes_per_s = 4 * gib;
              in.memory_dirty_bytes_per_s = gib / 2;
            },
            Convergence::writes_wait, 20, 15.3, 300, "network"},
        Row{"writing_without_disks_to_copy",
            [](In& in) {
              in.disk_bytes = 0;
              in.disk_written_bytes_per_s = 2 * gib;
            },
            Convergence::yes, 0, 3.8, 300, "network"},
        Row{"dirtying_all", [](In& in) { in.memory_dirty_bytes_per_s = gib; }, Convergence::never_memory, 10,
            0, 0, "network"},
        Row{"disks_and_memory_share_the_link",
            [](In& in) {
              in.disk_written_bytes_per_s = gib / 2;
              in.memory_dirty_bytes_per_s = gib / 2;
            },
            Convergence::never_memory, 20, 0, 0, "network"},
        Row{"auto_converge",
            [](In& in) {
              in.memory_dirty_bytes_per_s = 2 * gib;
              in.auto_converge = true;
            },
            Convergence::throttled, 10, 7.5, 300, "network"},
        Row{"post_copy",
            [](In& in) {
              in.memory_dirty_bytes_per_s = 2 * gib;
              in.post_copy = true;
            },
            Convergence::post_copied, 10, 4, 61, "network"},
        Row{"slow_target", [](In& in) { in.target_bytes_per_s = gib / 4; }, Convergence::yes, 40, 3.8, 300,
            "target"},
        Row{"slow_source", [](In& in) { in.source_bytes_per_s = gib / 4; }, Convergence::yes, 40, 3.8, 300,
            "source"},
        Row{"bound", [](In& in) { in.bound_bytes_per_s = gib / 4; }, Convergence::yes, 40, 15.8, 300,
            "bound"},
        Row{"bound_above_the_link", [](In& in) { in.bound_bytes_per_s = 4 * gib; }, Convergence::yes, 10, 3.8,
            300, "network"},
        Row{"no_rate", [](In& in) { in.link_bytes_per_s = 0; }, Convergence::unknown, 0, 0, 0, ""},
        Row{"only_the_target_known",
            [](In& in) {
              in.link_bytes_per_s = 0;
              in.target_bytes_per_s = gib;
            },
            Convergence::yes, 10, 3.8, 300, "target"},
        Row{"pause_shorter_than_possible", [](In& in) { in.max_pause_ms = 10; }, Convergence::yes, 10, 4, 61,
            "network"},
        Row{"far",
            [](In& in) {
              in.round_trip_us = 100000;
              in.max_pause_ms = 300;
            },
            Convergence::yes, 10, 4, 560, "network"},
        Row{"little_memory", [](In& in) { in.memory_bytes = gib / 10; }, Convergence::yes, 10, 0, 161,
            "network"},
        Row{"too_late", [](In& in) { in.timeout_s = 14; }, Convergence::too_late, 10, 3.8, 0, "network"},
        Row{"in_time", [](In& in) { in.timeout_s = 15; }, Convergence::yes, 10, 3.8, 300, "network"},
        Row{"shut_off", [](In& in) { in.memory_bytes = 0; }, Convergence::yes, 10, 0, 0, "network"}),
    [](const auto& row) { return row.param.name; });

TEST(Prediction, BytesIncludeWhatIsSentAgain) {
  PredictionInput input = quiet();
  input.disk_written_bytes_per_s = gib / 2;
  const Prediction prediction = predict(input);
  EXPECT_GT(prediction.disk_bytes, 20 * gib);
  EXPECT_LT(prediction.disk_bytes, 25 * gib);
  EXPECT_NEAR(static_cast<double>(prediction.memory_bytes), 4.0 * static_cast<double>(gib),
              0.05 * static_cast<double>(gib));
}

}  // namespace
}  // namespace diskferry
