// A disk of a machine under libvirt, copied to another place (an export of this gateway, or storage that QEMU
// opens itself) and gone over to it: what is asked of libvirt and of QEMU for that. A connection that is lost
// is made anew with the next question.
#pragma once

#include "gateway/hypervisor/domain_xml.hpp"
#include "gateway/hypervisor/libvirt.hpp"

#include <memory>
#include <optional>
#include <string>

namespace diskferry {

/// Which storage a machine's disk is on, as the hypervisor tells.
enum class DiskPlace : std::uint8_t {
  source,   ///< where it was, and nothing is copied
  copying,  ///< where it was, and being copied to the target, or just going over to it
  target,   ///< on the target
};

struct DomainDiskNames {
  std::string hypervisor{};  ///< libvirt's URI
  std::string domain{};
  std::string disk{};  ///< "vda"
  DiskSource target{};
};

/// `target` as VmDisk::source has it. Pure.
DiskPlace place_of(const VmDisk& disk, const std::string& target);

/// How the disk stands.
struct DomainDiskView {
  DiskPlace place = DiskPlace::source;
  VmState machine = VmState::shut_off;
  VmDisk disk{};
  std::optional<LibvirtBlockJob> job{};
};

/// Thread: one reactor. Lifetime: close() before destruction. Errors of all: those of Libvirt; not_found
/// where the machine or its disk is not there.
class DomainDisk {
 public:
  DomainDisk(DriverContext& context, DomainDiskNames names);
  ~DomainDisk();
  DomainDisk(const DomainDisk&) = delete;
  DomainDisk& operator=(const DomainDisk&) = delete;

  const DomainDiskNames& names() const noexcept { return names_; }
  Task<Result<VmDescription>> machine();
  Task<Result<std::uint64_t>> size_bytes();
  Task<Result<std::uint64_t>> libvirt_version();
  /// libvirt moves, saves or dumps it.
  Task<Result<bool>> is_machine_busy();
  /// The job where `asks_job`: libvirt answers that only when QEMU does.
  Task<Result<DomainDiskView>> look(bool asks_job = true);
  /// Copies all of it, backing images included; each write of the guest goes to both from the first moment
  /// on, so that it comes to be in step however the guest writes. Errors also: in_use (it has a job).
  /// `part_bytes`: the disk is so much of the target's beginning; 0: all of it.
  Task<Result<void>> start_copy(std::uint64_t bytes_per_s, std::uint64_t part_bytes = 0);
  Task<Result<void>> set_bytes_per_s(std::uint64_t bytes_per_s);
  /// From now on QEMU waits where the gateway is away, for minutes. While the disk is copied to an export or
  /// on it.
  Task<Result<void>> wait_for_gateway();
  /// Takes away what wait_for_gateway() made of a node (VmDisk::node_index) that the disk is not on any more.
  Task<void> forget_connection(unsigned node_index);
  /// Goes over to the target. Errors also: in_use (not in step yet); others say nothing about where it is.
  Task<Result<void>> go_over();
  /// Ends the copying; the disk stays where it was.
  Task<Result<void>> end_copy();
  /// The same where it is copied, else nothing; says where it was found.
  Task<Result<void>> end_copy_if_any(DiskPlace& found);
  /// Has the definition that outlives the machine name the target, too.
  Task<Result<void>> keep_definition(std::uint64_t part_bytes = 0);
  Task<void> close();

 private:
  template <class T, class Call>
  Task<Result<T>> ask(Call call);

  DriverContext& context_;
  const DomainDiskNames names_;
  const std::string target_name_;  // as VmDisk::source has it; empty: libvirt cannot have such a target
  std::unique_ptr<Libvirt> libvirt_{};
};

}  // namespace diskferry
