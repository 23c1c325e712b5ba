// QEMU's NBD client waits for a server that comes back only where it was told to (reconnect-delay), and
// libvirt 9.0 has no word for that. So QEMU is given a second connection that waits, and the disk's node is
// opened anew over it, past libvirt: it goes on using the names of its own nodes, which stay. Works for the
// target of a copy too, so that no moment is left in which a guest would see an error.
//
// libvirt's connection, without use from then on, would die with the first server: QEMU flushes every node
// when it stops a guest to migrate it, and that would fail. So the one that waits takes its name.
#pragma once

#include "gateway/hypervisor/libvirt.hpp"

#include <string>

namespace diskferry {

struct NbdReconnect {
  unsigned node_index = 0;  ///< of the disk, or of the mirror (VmDisk, VmMirror)
  std::string socket{};
  std::string export_name{};
  unsigned delay_s = 0;
  bool discards = false;
};

/// Can be repeated. Errors: those of Libvirt::monitor_command(), and of QEMU; protocol.
Task<Result<void>> have_nbd_reconnect(Libvirt& libvirt, std::string domain, NbdReconnect wanted);
/// Takes the second connection away where no disk uses it any more. Errors: in_use (one does), as above.
Task<Result<void>> forget_nbd_reconnect(Libvirt& libvirt, std::string domain, unsigned node_index);

// The commands, and what is read of answers. Pure.

/// Of QEMU's node of a disk.
struct QemuNode {
  bool is_direct = false;
  bool ignores_flushes = false;
  bool is_read_only = false;
  std::string detect_zeroes = "off";
  std::string driver{};  ///< "nbd", "raw"
};
/// In the answer to query-named-block-nodes. Errors: not_found, protocol.
Result<QemuNode> find_qemu_node(std::string_view answer, std::string_view name);
/// libvirt's nodes of a disk, and ours.
std::string format_node_name(unsigned node_index);
std::string connection_node_name(unsigned node_index);
std::string reconnecting_node_name(unsigned node_index);
std::string add_node_command(const NbdReconnect& wanted, const QemuNode& like);
std::string reopen_command(const NbdReconnect& wanted, const QemuNode& like);
/// libvirt's connection is ended, and its name given to ours.
std::string end_connection_command(unsigned node_index);
std::string take_name_command(unsigned node_index, const QemuNode& like, bool discards);

}  // namespace diskferry
