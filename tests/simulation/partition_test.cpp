// A commit of which each request to a storage, one after the other, is the first that is not answered: of its
// storage, or of both sides of its disk; the request lost, or its answer; until the gateway gives up, or
// shorter.
#include "tests/simulation/replacement_trial.hpp"
#include "tests/simulation/seeds.hpp"

#include <array>
#include <fmt/format.h>

#include <spdlog/spdlog.h>

namespace diskferry::sim {
namespace {

constexpr unsigned variants = 8;

/// The cut of that number of those that begin at request `at`.
PlannedCut cut_of(std::uint64_t at, unsigned variant) {
  constexpr std::array errors{ErrorKind::gone, ErrorKind::timed_out, ErrorKind::io};
  const bool gives_up = (variant & 4) != 0;
  return {.at = at,
          .side = (variant & 2) != 0 ? PlannedCut::Side::both : PlannedCut::Side::its_own,
          .how = {.loss = (variant & 1) != 0 ? Link::Loss::answers : Link::Loss::requests,
                  .patience_steps = gives_up ? 20u : 1'000'000u,
                  .is_sent_again = true,
                  .error = errors[at % errors.size()],
                  .done_within_steps = 40},
          // Long enough for who gives up to do something else.
          .heals_after_steps = gives_up ? 120u : 60u};
}

struct Outcome {
  std::string problem;
  std::uint64_t requests = 0;
  std::string phase;
};
Outcome run_with(std::uint64_t seed, bool takes_back, const PlannedCut& cut) {
  auto trial = std::make_unique<ReplacementTrial>(seed, [&](World& world) {
    Course course = quiet_course(world, takes_back);
    course.planned_cut = cut;
    return course;
  });
  const Outcome outcome{trial->run(), trial->requests_of_commit(), trial->job().phase};
  if (trial->is_stuck()) (void)trial.release();
  return outcome;
}

class PartitionSimulation : public testing::TestWithParam<bool> {};
TEST_P(PartitionSimulation, AtEachRequestOfACommitExactlyOneSideIsInCharge) {
  if (std::getenv("DISKFERRY_TRACE") == nullptr) spdlog::set_level(spdlog::level::off);
  constexpr std::uint64_t seed = 1;
  constexpr std::uint64_t never = 1'000'000'000;
  const bool takes_back = GetParam();
  const Outcome whole = run_with(seed, takes_back, {.at = never});
  ASSERT_EQ(whole.problem, "");
  ASSERT_EQ(whole.phase, takes_back ? "aborted" : "released");
  ASSERT_GT(whole.requests, 100u) << "a commit without guests";
  const std::uint64_t only = number_from("DISKFERRY_CUT", 0);
  for (std::uint64_t at = 1; at <= whole.requests; ++at) {
    if (only != 0 && at != only) continue;
    for (unsigned variant = 0; variant < variants; ++variant) {
      const Outcome cut = run_with(seed, takes_back, cut_of(at, variant));
      ASSERT_EQ(cut.problem, "") << "variant " << variant << " of DISKFERRY_CUT=" << at;
      EXPECT_TRUE(cut.phase == "aborted" || cut.phase == "released") << cut.phase;
    }
  }
  RecordProperty("requests", std::to_string(whole.requests));
}
INSTANTIATE_TEST_SUITE_P(Fallback, PartitionSimulation, testing::Bool());

}  // namespace
}  // namespace diskferry::sim
