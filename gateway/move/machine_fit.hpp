// What of a machine's definition belongs to the host it was made for, and what it is on another one: the path
// of its QEMU, and, for one that starts anew, its machine type and CPU. Pure.
#pragma once

#include "diskferry/error.hpp"
#include "gateway/hypervisor/domain_xml.hpp"
#include "gateway/move/host_facts.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

/// The <cpu> element for "host-model", "host-passthrough", "maximum" or the name of a model; empty for
/// nothing. Errors: invalid_argument (no such word can be a model's name).
Result<std::string> cpu_xml_of(std::string_view cpu);

/// Machine types of `known` that are of the same kind as `machine` ("pc-q35-7.2": the others of q35), newest
/// last. Aliases ("q35") are left out.
std::vector<std::string> related_machine_types(std::string_view machine, const GuestSupport& known);

/// What a machine that starts anew on `host` gets in place of what it had. Empty: as it was.
struct MachineChoice {
  std::string machine_type{};
  std::string cpu{};            ///< as cpu_xml_of()
  bool keeps_emulator = false;  ///< the host there has the QEMU that the definition names
};
/// Notes in `changes` what the host there demands: the emulator, the machine type, the CPU and its number of
/// processors. A host that does not say what it can run changes nothing but what was chosen.
/// Errors: invalid_argument (the CPU).
Result<void> fit_to_host(const VmDescription& machine, const HostFacts& host, const MachineChoice& choice,
                         DomainRewrite& changes);

}  // namespace diskferry
