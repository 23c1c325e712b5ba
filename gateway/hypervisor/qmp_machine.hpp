// What a QEMU says of the machine it has: read from its monitor, changes nothing. For a move that is judged
// before it begins.
#pragma once

#include "gateway/hypervisor/qmp.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/value.hpp>

namespace diskferry {

struct QmpMachineDisk {
  /// What an operator may call it, the plainest first: the device's id, the drive's, the node's.
  std::vector<std::string> names{};
  std::string node{};      ///< what is mirrored; empty: no medium
  std::string filename{};  ///< as QEMU has it: a path, a URI, or "json:..."
  std::string format{};
  std::uint64_t size_bytes = 0;
  bool is_read_only = false;
};

struct QmpMachine {
  std::string name{};
  std::string uuid{};  ///< empty: none was given to it
  std::string version{};
  std::string status{};        ///< of query-status: "running", "inmigrate"
  std::string machine_type{};  ///< "pc-i440fx-7.2"
  std::string cpu_model{};     ///< "qemu64"
  std::string accelerator{};   ///< "kvm", else "tcg"
  std::uint64_t memory_bytes = 0;
  unsigned vcpus = 0;
  unsigned jobs = 0;        ///< block jobs and others
  std::string migration{};  ///< state of its migration; empty: none
  std::vector<QmpMachineDisk> disks{};
};

/// Errors: those of the monitor; protocol where an answer cannot be read.
Task<Result<QmpMachine>> describe_by_qmp(Qmp& monitor);

/// The answer of query-block as disks. Pure. Errors: protocol, too_large.
Result<std::vector<QmpMachineDisk>> read_qmp_disks(const boost::json::value& answer);

/// The disk of that name; null where there is none.
const QmpMachineDisk* disk_named(const QmpMachine& machine, std::string_view name) noexcept;

}  // namespace diskferry
