// Evacuation: a machine whose host is gone starts on this one, from storage that survived. At most one of it
// may ever run, so everything that could still run it is asked, and the old host is shown to be off, or its
// operator says so by name. This header is the pure part: from facts to findings. evacuation_run.hpp gathers
// the facts and acts.
#pragma once

#include "gateway/move/evacuation_request.hpp"
#include "gateway/move/host_probe.hpp"
#include "gateway/move/preflight.hpp"

#include <optional>
#include <string>
#include <vector>

namespace diskferry {

/// A disk as it will be found by the machine's QEMU here.
struct EvacuatedDisk {
  std::string target{};             ///< "vda"
  std::string place{};              ///< a path or URI without secrets
  bool is_unfinished_move = false;  ///< a move was bringing it here and did not come to its end
  /// This gateway moved the machine away from it: what is there is old. False where the request names it.
  bool was_left_behind = false;
  std::optional<Error> problem{};  ///< why it cannot be opened; in_use: somebody has it
};

/// A host that was asked whether it runs the machine.
struct AskedHost {
  std::string uri{};
  std::optional<VmState> state{};  ///< none: `problem`
  std::optional<Error> problem{};
};

struct EvacuationFacts {
  EvacuationRequest request{};
  /// The machine as it is to be here, the host here, what is defined here, the CPU: what preflight's rules
  /// about machines and devices look at.
  PreflightFacts host{};
  std::string gateway_host{};              ///< the name of the host that the gateway is on
  VmState state_here = VmState::absent;    ///< of the machine with this UUID
  HostAnswer old_host{};                   ///< whether the old host answers
  std::optional<AskedHost> old_libvirt{};  ///< asked where it answers, or where its URI was given
  std::vector<AskedHost> others{};
  std::vector<EvacuatedDisk> disks{};  ///< those that have a medium
  bool has_fence_command = false;
  std::string recorded_host{};  ///< where this gateway sent the machine last; empty: nowhere
};

/// Every finding, blockers first. A machine that runs here already has nothing but that as a note.
std::vector<Finding> examine(const EvacuationFacts& facts);

/// What a disk that the request names is in: what it says, else what the name's ending says, else what the
/// definition says.
std::string format_of(const MoveDisk& named, const VmDisk& as_defined);

/// It was evacuated before: nothing is left to do.
bool runs_here(const EvacuationFacts& facts) noexcept;

}  // namespace diskferry
