// Which host has the machine: decided from what both say, and from nothing else, since whoever drove the move
// may have been away at the moment that counts. Pure.
#pragma once

#include "gateway/hypervisor/virtual_machine.hpp"

#include <optional>
#include <string>

namespace diskferry {

/// What one host says of the machine; nullopt: it cannot be asked now.
struct WhoRuns {
  std::optional<VmState> source{};
  std::optional<VmState> target{};
  bool source_job_active = false;   ///< the hypervisor there is still migrating
  bool was_paused = false;          ///< the guest was paused by its operator when the move began
  bool source_waits = false;        ///< paused there by the migration, and not by people or trouble
  bool target_has_arrived = false;  ///< paused there, but with all it needs: it may have run already
  bool may_have_gone_over = false;  ///< every flush was answered: the target may have been told to run
};

enum class Outcome : std::uint8_t {
  committed,      ///< the target runs it; the source does not
  rolled_back,    ///< the source has it; nothing of it is at the target
  stop_target,    ///< the source has it, and a half-made machine that never ran is left at the target
  resume_source,  ///< nobody runs it, the source's waits to go on: the target's (if any) never ran
  ended,          ///< it runs nowhere, on its own accord: shut down or destroyed while it moved
  undecided,      ///< ask again
  split,          ///< both run it, or both did: must never be; people have to look
};
std::string_view to_string(Outcome outcome) noexcept;
/// Nothing is left to be asked, or to be made true.
constexpr bool is_known(Outcome outcome) noexcept {
  return outcome == Outcome::committed || outcome == Outcome::rolled_back || outcome == Outcome::ended ||
         outcome == Outcome::split;
}

Outcome decide(const WhoRuns& said) noexcept;

/// The same where the target arrives paused and nobody but the gateway here lets it go on, which it has not
/// done: a target that is paused has never run.
Outcome decide_through(const WhoRuns& said) noexcept;

}  // namespace diskferry
