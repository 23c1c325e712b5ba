// What a host offers to the machines it runs, read from what libvirt says of it. Pure.
#pragma once

#include "diskferry/error.hpp"
#include "gateway/hypervisor/virtual_machine.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

/// One kind of machine that a host can run: an architecture with a way to run it.
struct GuestSupport {
  std::string architecture{};  ///< "x86_64"
  std::string domain_type{};   ///< "kvm", "qemu"
  std::string emulator{};      ///< path of its QEMU
  /// Machine types under all their names, each with the most virtual CPUs it takes; 0: not known.
  std::map<std::string, unsigned, std::less<>> machines{};
};

struct HostFacts {
  std::string hostname{};
  std::string uuid{};
  std::uint64_t libvirt_version = 0;     ///< 9000000 for 9.0.0; 0: not known, as everywhere here
  std::uint64_t hypervisor_version = 0;  ///< 7002022 for QEMU 7.2.22
  std::uint64_t memory_bytes = 0;
  std::uint64_t memory_free_bytes = 0;
  unsigned cpus = 0;
  std::vector<std::string> networks{};    ///< active ones
  std::vector<std::string> interfaces{};  ///< host interfaces and bridges
  /// libvirt lists the interfaces of this host. Without it only the bridges of networks are in `interfaces`.
  bool lists_interfaces = false;
  std::vector<std::string> security_models{};  ///< "apparmor", "selinux"; without "dac" and "none"
  std::string hypervisor_user{};               ///< "+64055:+64055": what QEMU runs as; empty: not said
  std::vector<GuestSupport> guests{};
  std::vector<std::string> firmwares{};  ///< for the machine that was asked about
};

/// Fills in uuid, security, user and guests from the text of virConnectGetCapabilities. Errors: corrupt.
Result<void> read_capabilities(std::string_view xml, HostFacts& host);
/// Fills in `firmwares` from the text of virConnectGetDomainCapabilities. Errors: corrupt.
Result<void> read_domain_capabilities(std::string_view xml, HostFacts& host);

/// What can run the machine on that host: of its architecture and domain type; the emulator it names is
/// preferred, then one that knows its machine type. Null: nothing can. Valid as long as `host` is.
const GuestSupport* support_for(const VmDescription& machine, const HostFacts& host) noexcept;

/// "7.2.22" for 7002022.
std::string version_text(std::uint64_t version);

}  // namespace diskferry
