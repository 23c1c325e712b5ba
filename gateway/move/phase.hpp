// The phases of a move and which may follow which. Pure. A phase is written down before it is acted on, so
// that whoever comes after a crash knows what may have happened; each step can be repeated.
//
//   planned -> prepared -> bulk -> delta -> synchronized -> switching -> committed -> retained -> released
//   and from everything before committed, and from a retained cold move:  aborting -> aborted
//
// Before `committed` the source is in charge, whatever happens. From there on it only goes forward.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace diskferry {

enum class Phase : std::uint8_t {
  planned,       ///< asked for; nothing was changed anywhere
  prepared,      ///< targets are there, exports listen
  bulk,          ///< the hypervisor copies the disks through the gateway
  delta,         ///< the disks are in step, the memory goes over
  synchronized,  ///< guest stopped, every disk durable at its target
  switching,     ///< the hypervisor was let go on; which host runs is decided by it
  committed,     ///< the guest runs on the target host
  retained,      ///< the source keeps its definition and disks, fenced
  released,      ///< the source has let go: the end
  aborting,      ///< undoing; the guest stays on the source
  aborted,       ///< undone: the end
};
inline constexpr std::size_t phase_count = static_cast<std::size_t>(Phase::aborted) + 1;

std::string_view to_string(Phase phase) noexcept;
std::optional<Phase> phase_named(std::string_view name) noexcept;
/// Staying where one is counts as legal: a step is repeated after a crash.
bool may_follow(Phase from, Phase to) noexcept;
/// The source is in charge and everything can still be undone.
constexpr bool can_undo(Phase phase) noexcept {
  return phase < Phase::committed || phase == Phase::aborting;
}
constexpr bool is_final(Phase phase) noexcept {
  return phase == Phase::released || phase == Phase::aborted;
}
/// The phase in the words that operators of live migration know: pre-migration, reservation, pre-copy,
/// stop-and-copy, commitment, activation.
std::string_view operators_word(Phase phase) noexcept;

}  // namespace diskferry
