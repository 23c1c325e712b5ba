// Which seeds a test runs: DISKFERRY_SEEDS=N so many (10 000), DISKFERRY_SEED=N one alone.
#pragma once

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace diskferry::sim {

/// A part of the seeds, so that parts run side by side.
inline constexpr unsigned parts = 4;

inline std::uint64_t number_from(const char* name, std::uint64_t otherwise) {
  const char* const text = std::getenv(name);
  if (text == nullptr) return otherwise;
  std::uint64_t number = 0;
  const std::string_view all(text);
  (void)std::from_chars(all.begin(), all.end(), number);
  return number;
}

/// Each seed of `part`: a Trial that is run and has nothing to tell.
template <class Trial>
void run_seeds(unsigned part, std::uint64_t seeds) {
  const std::uint64_t only = number_from("DISKFERRY_SEED", 0);
  const std::uint64_t last = number_from("DISKFERRY_SEEDS", seeds);
  for (std::uint64_t seed = 1 + part; seed <= last; seed += parts) {
    if (only != 0 && seed != only) continue;
    auto trial = std::make_unique<Trial>(seed);
    const std::string problem = trial->run();
    // One that is stuck cannot be taken apart.
    if (trial->is_stuck()) (void)trial.release();
    ASSERT_EQ(problem, "") << "again with DISKFERRY_SEED=" << seed;
  }
}

}  // namespace diskferry::sim
