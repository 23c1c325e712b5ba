// Rows of the tables that say who has a machine, from what both hosts say of it.
#pragma once

#include "gateway/move/outcome.hpp"

#include <optional>
#include <ostream>

namespace diskferry::test {

inline constexpr auto unknown = std::nullopt;
inline constexpr auto absent = VmState::absent;
inline constexpr auto shut_off = VmState::shut_off;
inline constexpr auto running = VmState::running;
inline constexpr auto paused = VmState::paused;
inline constexpr auto crashed = VmState::crashed;

struct OutcomeRow {
  const char* name;
  WhoRuns said;
  Outcome expected;
};
inline std::ostream& operator<<(std::ostream& out, const OutcomeRow& row) {
  return out << row.name;
}

}  // namespace diskferry::test
