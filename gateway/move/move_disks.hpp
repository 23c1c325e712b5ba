// Which disk of a machine goes where and how, and the definitions that say so to the other host. Used by the
// coordinator, which acts on it, and by the plan, which shows it.
#pragma once

#include "gateway/hypervisor/domain_xml.hpp"
#include "gateway/hypervisor/libvirt.hpp"
#include "gateway/move/move_state.hpp"
#include "gateway/move/preflight.hpp"

#include <string>
#include <vector>

namespace diskferry {

/// The disks of the request with their routes and sizes. Errors: not_found (no such disk), unsupported (a
/// format that cannot be written there), those of asking for the sizes.
Task<Result<std::vector<MoveDiskState>>> choose_disks(DriverContext& context, Libvirt& source,
                                                      const VmDescription& machine,
                                                      const MoveRequest& request);

/// The disks that stay where they are, because both hosts have them; pure.
std::vector<MoveDiskState> shared_disks(const PreflightFacts& facts);

struct MoveDefinitions {
  std::string running{};     ///< of the machine that runs there; empty for one that is shut off
  std::string persistent{};  ///< what stays defined there; empty for a transient machine
  std::string diff{};        ///< of the definition that stays (else of the running one), for people
  std::vector<std::string> warnings{};
};
/// Of the machine, request and hosts that `facts` are of. Where the hypervisor there could not be asked, the
/// definitions name the emulator of this host. Errors: those of the hypervisor here and of rewriting.
Task<Result<MoveDefinitions>> rewrite_definitions(Libvirt& source, const PreflightFacts& facts,
                                                  const std::vector<MoveDiskState>& disks);

/// Whether QEMU is at the host where the machine's definition says, and can be this machine.
Task<bool> has_emulator(Libvirt& host, VmDescription machine);

}  // namespace diskferry
