// Replacements in a simulated world, ten thousand seeds of them. See replacement_trial.hpp.
#include "tests/simulation/replacement_trial.hpp"
#include "tests/simulation/seeds.hpp"

#include <spdlog/spdlog.h>

namespace diskferry::sim {
namespace {

class ReplacementSimulation : public testing::TestWithParam<unsigned> {};
TEST_P(ReplacementSimulation, LosesNothing) {
  if (std::getenv("DISKFERRY_TRACE") == nullptr) spdlog::set_level(spdlog::level::off);
  run_seeds<ReplacementTrial>(GetParam(), 10'000);
}
INSTANTIATE_TEST_SUITE_P(Part, ReplacementSimulation, testing::Range(0u, parts));

}  // namespace
}  // namespace diskferry::sim
