// How long a move will take and how long the guest will stand still, from what was measured before it. Pure:
// the same model as the move itself goes by, so that its forecast can be compared with what happened.
//
// Disks first: what was written during the copy is sent, too, at the rate of the slowest part of the way, and
// a guest that writes more than its share of that waits. Then the memory, in rounds, while the disks' writes
// go along; those of a guest that wants most of the link wait for it again. The guest is stopped once what is
// left can be sent within the pause.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace diskferry {

struct PredictionInput {
  std::uint64_t disk_bytes = 0;  ///< to be copied: allocated, or the size where that is not known
  std::uint64_t disk_written_bytes_per_s = 0;  ///< by the guest, to all copied disks
  std::uint64_t memory_bytes = 0;              ///< in use by the guest; its size where that is not known
  std::uint64_t memory_dirty_bytes_per_s = 0;  ///< by calc-dirty-rate
  std::uint64_t link_bytes_per_s = 0;          ///< between the hosts; 0: not known
  std::uint64_t source_bytes_per_s = 0;        ///< of reading the disks; 0: not known, as in the next
  std::uint64_t target_bytes_per_s = 0;        ///< of writing them
  std::uint64_t bound_bytes_per_s = 0;         ///< asked for by the operator; 0: none
  std::uint64_t max_pause_ms = 300;
  std::uint64_t round_trip_us = 0;
  std::uint64_t timeout_s = 0;  ///< 0: none
  bool auto_converge = false;
  bool post_copy = false;
};

enum class Convergence : std::uint8_t {
  yes,           ///< the guest is stopped within the pause
  writes_wait,   ///< the same, and until then its writes to its disks wait for what can be sent
  throttled,     ///< only with auto-converge, which slows the guest
  post_copied,   ///< only by post-copy
  never_memory,  ///< the guest changes its memory as fast as it can be sent
  too_late,      ///< it would, after the timeout
  unknown,       ///< no rate is known
};
std::string_view to_string(Convergence convergence) noexcept;
constexpr bool comes_to_an_end(Convergence convergence) noexcept {
  return convergence <= Convergence::post_copied;
}

struct Prediction {
  Convergence convergence = Convergence::unknown;
  std::string why{};             ///< a sentence with the figures that decide
  double disks_s = 0;            ///< until the disks are in step
  double memory_s = 0;           ///< from then until the guest is stopped
  double pause_ms = 0;           ///< 0 where it does not come to an end
  std::uint64_t disk_bytes = 0;  ///< sent, with what had to be sent again
  std::uint64_t memory_bytes = 0;
  std::uint64_t rate_bytes_per_s = 0;  ///< of the slowest part of the way
  std::string slowest{};               ///< which it is: "network", "source", "target", "bound"
  double total_s() const noexcept { return disks_s + memory_s + pause_ms / 1000; }
};

/// Bounded: the rounds are a geometric series, and summed as such.
Prediction predict(const PredictionInput& input);

}  // namespace diskferry
