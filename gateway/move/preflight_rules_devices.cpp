// Rules about what a machine has besides CPU, memory and disks.
#include "gateway/move/preflight_rules.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace diskferry {
namespace {

bool is_shut_off(const PreflightFacts& facts) {
  return facts.machine.state == VmState::shut_off;
}

std::string mapping_hint(const std::string& name) {
  return fmt::format("make {} there, or name another one with --network OLD=NEW", name);
}

void check_interface(const VmInterface& interface, const PreflightFacts& facts, Findings& found) {
  const HostFacts& there = *facts.target;
  const std::string name = name_there(facts.request, interface.source);
  if (interface.type == "network") {
    if (contains(there.networks, name)) return;
    return found.block("no-such-network", interface.mac,
                       fmt::format("There is no active network {} at the target.", name),
                       mapping_hint("and start it"));
  }
  if (interface.type != "bridge" && interface.type != "direct") return;
  if (contains(there.interfaces, name)) return;
  const std::string kind = interface.type == "bridge" ? "bridge" : "host interface";
  if (!there.lists_interfaces)
    return found.warn("bridge-unknown", interface.mac,
                      fmt::format("libvirt does not say whether there is a {} {} at the target.", kind, name),
                      fmt::format("see ip link there; {}", mapping_hint("it")));
  found.block("no-such-bridge", interface.mac, fmt::format("There is no {} {} at the target.", kind, name),
              mapping_hint("it"));
}

void networks_are_there(const PreflightFacts& facts, Findings& found) {
  if (!facts.target) return;
  for (const VmInterface& interface : facts.machine.interfaces) check_interface(interface, facts, found);
}

void interfaces_may_move(const PreflightFacts& facts, Findings& found) {
  for (const VmInterface& interface : facts.machine.interfaces) {
    if (interface.type == "hostdev")
      found.block("host-interface", interface.mac, "A network card of this host is given to the machine.",
                  "detach it for the move (virsh detach-interface), or pair it with a virtio card");
    if (interface.type == "vdpa")
      found.block("vdpa-interface", interface.mac, "vDPA network devices cannot be migrated.",
                  "give the machine a virtio card instead");
    if (interface.type == "user" && !is_shut_off(facts))
      found.warn("user-network", interface.mac,
                 "QEMU itself is the network of this card: the guest's connections end with the move.",
                 "have the guest connect again, or use a network or a bridge");
    if (interface.type == "vhostuser")
      found.warn("vhostuser-interface", interface.mac,
                 "The card needs a vhost-user program at the target, at the same socket.",
                 fmt::format("start it there before the move; its socket is {}", interface.source));
  }
}

void mappings_are_used(const PreflightFacts& facts, Findings& found) {
  for (const auto& [from, to] : facts.request.networks) {
    const bool is_used = std::ranges::any_of(facts.machine.interfaces,
                                             [&](const VmInterface& each) { return each.source == from; });
    if (!is_used)
      found.warn("network-not-used", from,
                 fmt::format("No card of the machine is on {}, which was to become {}.", from, to),
                 "check the name in --network");
  }
}

void no_host_devices(const PreflightFacts& facts, Findings& found) {
  for (const std::string& device : facts.machine.host_devices)
    found.block("host-device", device, fmt::format("The machine uses a device of this host: {}.", device),
                "detach it for the move (virsh detach-device), or move the machine while it is shut off "
                "after taking the device out of its definition");
}

void no_shared_folders(const PreflightFacts& facts, Findings& found) {
  for (const std::string& folder : facts.machine.filesystems) {
    if (is_shut_off(facts))
      found.warn("shared-folder", folder,
                 fmt::format("The machine shares the folder {} with this host.", folder),
                 "have the same folder at the target");
    else
      found.block("shared-folder", folder,
                  fmt::format("The machine shares the folder {} with this host; such machines cannot be "
                              "migrated while they run.",
                              folder),
                  "unmount it in the guest and detach it, or move the machine while it is shut off");
  }
}

void tpm_state_goes_along(const PreflightFacts& facts, Findings& found) {
  if (!facts.machine.has_emulated_tpm) return;
  if (is_shut_off(facts))
    return found.warn(
        "tpm-state", "tpm",
        "The state of the emulated TPM is not moved while the machine is shut off; disks that "
        "it unlocks would stay locked.",
        fmt::format("copy /var/lib/libvirt/swtpm/{} to the target by hand", facts.machine.uuid));
  found.warn("tpm-state", "tpm",
             "The emulated TPM needs swtpm at the target, and the libvirt secret its state is encrypted with "
             "if there is one. Its state goes along with the memory.",
             "install swtpm there and define the same secret (virsh secret-list)");
}

void firmware_variables_go_along(const PreflightFacts& facts, Findings& found) {
  const VmDescription& machine = facts.machine;
  if (machine.nvram.empty()) return;
  if (is_shut_off(facts))
    return found.warn("nvram", "firmware",
                      "The file of the firmware's variables is not moved while the machine is shut off.",
                      fmt::format("copy {} to the target by hand", machine.nvram));
  found.note("nvram", "firmware",
             fmt::format("The firmware's variables go along with the memory; libvirt makes {} there anew.",
                         machine.nvram));
}

void firmware_is_there(const PreflightFacts& facts, Findings& found) {
  const std::string& loader = facts.machine.loader;
  if (!facts.target || loader.empty() || facts.target->firmwares.empty() ||
      contains(facts.target->firmwares, loader))
    return;
  found.warn("no-such-firmware", "firmware",
             fmt::format("libvirt at the target does not list the firmware {}.", loader),
             "install the same firmware there, under the same name");
}

void no_shared_memory(const PreflightFacts& facts, Findings& found) {
  if (!facts.machine.has_shared_memory_device || is_shut_off(facts)) return;
  found.warn("shared-memory", "memory",
             "The machine shares memory with programs of this host; libvirt refuses to migrate it unless the "
             "device is an ivshmem-plain one with the role master.",
             "detach the device (virsh detach-device), or start its programs at the target too");
}

void nothing_libvirt_does_not_understand(const PreflightFacts& facts, Findings& found) {
  if (!facts.machine.has_qemu_arguments) return;
  found.warn("qemu-arguments", "machine",
             "The machine has arguments for QEMU that libvirt only passes on; what they name must be at the "
             "target, too.",
             "look at <qemu:commandline> in its definition");
}

void memory_is_not_encrypted(const PreflightFacts& facts, Findings& found) {
  if (facts.machine.launch_security.empty() || is_shut_off(facts)) return;
  found.block("encrypted-memory", "memory",
              fmt::format("The machine's memory is encrypted by its CPU ({}), which cannot be migrated.",
                          facts.machine.launch_security),
              "shut it down and move it with --cold");
}

constexpr std::array<Rule, 11> rules{nothing_libvirt_does_not_understand,
                                     memory_is_not_encrypted,

                                     networks_are_there,
                                     interfaces_may_move,
                                     mappings_are_used,
                                     no_host_devices,
                                     no_shared_folders,
                                     tpm_state_goes_along,
                                     firmware_variables_go_along,
                                     firmware_is_there,
                                     no_shared_memory};
}  // namespace

std::span<const Rule> device_rules() noexcept {
  return rules;
}

}  // namespace diskferry
