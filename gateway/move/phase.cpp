// One table: names, words and arrows.
#include "gateway/move/phase.hpp"

#include <algorithm>
#include <initializer_list>

namespace diskferry {
namespace {

constexpr std::uint16_t bits(std::initializer_list<Phase> phases) {
  std::uint16_t all = 0;
  for (const Phase phase : phases) all = static_cast<std::uint16_t>(all | 1u << static_cast<unsigned>(phase));
  return all;
}

struct Row {
  std::string_view name;
  std::string_view word;
  std::uint16_t next;
};

using enum Phase;
constexpr std::array<Row, phase_count> rows{{
    {"planned", "pre-migration", bits({prepared, aborting})},
    {"prepared", "reservation", bits({bulk, aborting})},
    // A machine without disks of its own has no bulk worth a delta; small disks may be in step before anybody
    // looks.
    {"bulk", "pre-copy", bits({delta, synchronized, aborting})},
    {"delta", "pre-copy", bits({synchronized, aborting})},
    // Back to delta: the guest was stopped by an operator, not by the switchover, and runs again.
    {"synchronized", "stop-and-copy", bits({switching, delta, aborting})},
    {"switching", "stop-and-copy", bits({delta, committed, aborting})},
    {"committed", "commitment", bits({retained})},
    // Back: a machine that was shut off when it moved, and still is.
    {"retained", "activation", bits({released, aborting})},
    {"released", "activation", 0},
    {"aborting", "rollback", bits({aborted})},
    {"aborted", "rollback", 0},
}};

const Row& row(Phase phase) noexcept {
  return rows[static_cast<std::size_t>(phase)];
}

}  // namespace

std::string_view to_string(Phase phase) noexcept {
  return row(phase).name;
}
std::string_view operators_word(Phase phase) noexcept {
  return row(phase).word;
}
std::optional<Phase> phase_named(std::string_view name) noexcept {
  const auto* found = std::ranges::find(rows, name, &Row::name);
  if (found == rows.end()) return std::nullopt;
  return static_cast<Phase>(found - rows.begin());
}
bool may_follow(Phase from, Phase to) noexcept {
  return from == to || (row(from).next & bits({to})) != 0;
}

}  // namespace diskferry
