// Machines' disks named in a request, and what would come of bringing one onto the gateway. Changes nothing.
#pragma once

#include "gateway/move/adoption_rules.hpp"
#include "gateway/move/domain_disk.hpp"
#include "gateway/move/replace_plan.hpp"

namespace diskferry {

/// Names that no export has, and that are "MACHINE:DISK": where that disk is on an export of this gateway the
/// request gets its name, else machine and disk. All else stays as it is. Errors: not_found (no such machine
/// or disk), those of reaching the hypervisor, invalid_argument.
Task<Result<ReplaceRequest>> find_machine_disks(ReplaceEnvironment& environment, ReplaceRequest request);

/// For a request that is_adoption(). Errors: those of the hypervisor; cancelled.
Task<Result<AdoptionFacts>> collect_adoption(DomainDisk& disk, const ReplaceRequest& request);

/// Errors: those of the hypervisor; cancelled.
Task<Result<ReplacePlan>> plan_adoption(ReplaceEnvironment& environment, ReplaceRequest request);

/// How a job of this environment names the disk of a request.
DomainDiskNames names_of(const ReplaceEnvironment& environment, const ReplaceDisk& wanted);

// adoption_target.cpp

/// Where a disk goes, looked at and made as the target of any copy.
struct AdoptionTarget {
  ReplaceDiskState& state;
  bool overwrite = false;
  bool was_made = false;  ///< by an earlier process of this job
};
/// Whether it is to be made. `state` has the disk's size, and learns the target's format. Errors: those of
/// looking; already_exists, in_use (both are one storage), too_large.
Task<Result<bool>> look_at_adoption_target(DriverContext& context, AdoptionTarget target, VmDisk disk);
/// Errors: no_space, permission, and those of the storage.
Task<Result<void>> make_adoption_target(DriverContext& context, AdoptionTarget target);

}  // namespace diskferry
