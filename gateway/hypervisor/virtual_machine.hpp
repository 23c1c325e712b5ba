// What a virtual machine is, as far as moving it goes: its disks, its state, what it needs of a host. Values
// only; domain_xml.hpp reads them from libvirt's XML, the hypervisors fill in what only a running machine
// knows.
#pragma once

#include "diskferry/extent.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

enum class VmState : std::uint8_t { absent, shut_off, running, paused, crashed };
std::string_view to_string(VmState state) noexcept;
/// It has memory and devices, whether its processors run or not.
constexpr bool is_alive(VmState state) noexcept {
  return state == VmState::running || state == VmState::paused;
}

/// The state, and whether a machine that is paused is so for a migration alone: at the source one that was
/// stopped to go over, at the target one that has not arrived. Whoever was paused by people, or by trouble,
/// is not.
struct VmCondition {
  VmState state = VmState::absent;
  bool is_in_migration = false;
};

/// A copy of a running disk to another place that goes on (<mirror>).
struct VmMirror {
  std::string source{};     ///< the place, as VmDisk::source
  unsigned node_index = 0;  ///< as VmDisk::node_index, of the place
  bool is_ready = false;    ///< the two are the same, and each write goes to both
};

/// One disk of a machine, as its definition names it.
struct VmDisk {
  std::string target{};  ///< what the guest's slot is called: "vda"; unique in the machine
  std::string alias{};   ///< libvirt's device alias ("virtio-disk0"); empty while shut off
  std::string device{};  ///< "disk", "cdrom", "floppy", "lun"
  std::string bus{};     ///< "virtio", "scsi", "sata", ...
  std::string
      source_type{};  ///< "file", "block", "network", "volume", "nvme", "vhostuser", ...; empty: no medium
  /// Where the active layer is: a path, or a URI as ImageUri reads it ("nbd://...", "rbd://..."). Empty: no
  /// medium, or a source that has no such name.
  std::string source{};
  /// The same in words where `source` is empty ("volume a.qcow2 of pool images"), else equal to it. For
  /// messages.
  std::string source_text{};
  std::string format{};  ///< of the active layer: "raw", "qcow2"; empty: not said
  std::string cache{};   ///< "none", "writeback", ...; empty: the default
  std::string serial{};
  std::string startup_policy{};  ///< "mandatory", "requisite", "optional"; empty: not said
  /// Layers below the active one, nearest first, as far as the definition lists them.
  std::vector<std::string> backing{};
  bool is_read_only = false;
  bool is_shareable = false;
  bool is_transient = false;
  bool is_encrypted = false;   ///< by QEMU, with LUKS: what lies in the source is not what the guest sees
  bool has_block_job = false;  ///< libvirt is mirroring or committing it right now
  std::uint32_t logical_block_bytes = 0;  ///< <blockio>; 0: the default (512)
  std::optional<Range> slice{};           ///< the disk is this part of its storage; none: all of it
  std::optional<VmMirror> mirror{};
  bool discards = false;    ///< what the guest discards is passed on (discard='unmap')
  unsigned node_index = 0;  ///< of a running machine: QEMU's node is "libvirt-INDEX-format"; 0: not said
};

/// What can keep a machine from going elsewhere, or must be mapped on the way.
struct VmInterface {
  std::string type{};    ///< "network", "bridge", "direct", "user", "hostdev", ...
  std::string source{};  ///< the network's, bridge's or host interface's name; the socket of a vhost-user one
  std::string mac{};
};

struct VmDescription {
  std::string name{};
  std::string uuid{};
  std::string domain_type{};  ///< "kvm", "qemu"
  std::string machine{};      ///< "pc-q35-7.2"
  std::string architecture{};
  std::string emulator{};
  std::uint64_t memory_bytes = 0;
  unsigned vcpus = 0;
  std::string cpu_xml{};   ///< the <cpu> element, for virConnectCompareHypervisorCPU; empty: none
  std::string cpu_mode{};  ///< "custom", "host-model", "host-passthrough", "maximum"; empty: none
  std::string cpu_model{};
  std::vector<VmDisk> disks{};
  std::vector<VmInterface> interfaces{};
  std::vector<std::string> host_devices{};  ///< each in words: "pci 0000:03:00.0"
  std::vector<std::string> filesystems{};   ///< shared folders: their targets
  std::string nvram{};                      ///< path of the UEFI variables; empty: none
  std::string loader{};
  bool has_emulated_tpm = false;
  bool has_shared_memory_device = false;
  bool has_qemu_arguments =
      false;  ///< arguments for QEMU that libvirt does not understand (<qemu:commandline>)
  std::string launch_security{};  ///< "sev", ...; empty: memory is not encrypted
  bool has_snapshots = false;     ///< filled in by the hypervisor
  bool has_checkpoints = false;   ///< filled in by the hypervisor
  bool is_persistent = true;      ///< filled in by the hypervisor
  VmState state = VmState::shut_off;
};

}  // namespace diskferry
