// Machines' disks named in a request, and what would come of having the hypervisor move one: onto the
// gateway, or to storage that QEMU opens itself. Changes nothing.
#pragma once

#include "gateway/move/adoption_rules.hpp"
#include "gateway/move/domain_disk.hpp"
#include "gateway/move/replace_plan.hpp"

namespace diskferry {

/// Names that no export has, and that are "MACHINE:DISK": where that disk is on an export of this gateway the
/// request gets its name, else machine and disk; the latter always where it is to be re-homed. All else stays
/// as it is. Errors: not_found (no such machine or disk), those of reaching the hypervisor, invalid_argument,
/// unsupported (a target that QEMU cannot open by way of libvirt).
Task<Result<ReplaceRequest>> find_machine_disks(ReplaceEnvironment& environment, ReplaceRequest request);

/// For a request that is_adoption(). Errors: those of the hypervisor; cancelled.
Task<Result<AdoptionFacts>> collect_adoption(DomainDisk& disk, const DiskExports& exports,
                                             const ReplaceRequest& request);

/// Errors: those of the hypervisor; cancelled.
Task<Result<ReplacePlan>> plan_adoption(ReplaceEnvironment& environment, ReplaceRequest request);

/// How a job of this environment names the disk of a request that is_adoption(). Errors: as
/// target_for_qemu().
Result<DomainDiskNames> names_of(const ReplaceEnvironment& environment, const ReplaceRequest& request);

// adoption_target.cpp

/// Where a disk goes, looked at and made as the target of any copy.
/// The target as libvirt's XML names it. Errors: unsupported (QEMU cannot open it by way of libvirt),
/// invalid_argument (a user without a secret).
Result<DiskSource> target_for_qemu(const ReplaceDisk& wanted);
/// What the disk is on now.
void note_source(ReplaceDiskState& state, const AdoptionFacts& facts);

struct AdoptionTarget {
  ReplaceDiskState& state;
  bool overwrite = false;
  bool was_made = false;  ///< by an earlier process of this job
};
/// Whether it is to be made. `state` has the disk's size, and learns the target's format. Errors: those of
/// looking; already_exists, in_use (both are one storage), too_large.
Task<Result<bool>> look_at_adoption_target(DriverContext& context, AdoptionTarget target,
                                           const AdoptionFacts& facts);
/// Errors: no_space, permission, and those of the storage.
Task<Result<void>> make_adoption_target(DriverContext& context, AdoptionTarget target);

}  // namespace diskferry
