// Which machines go to another host by way of storage that both hosts reach: those whose disks are exports of
// this gateway and go to network storage. Pure, but for asking for the names of exports.
#pragma once

#include "gateway/hypervisor/virtual_machine.hpp"
#include "gateway/move/disk_exports.hpp"
#include "gateway/move/move_context.hpp"
#include "gateway/move/preflight.hpp"

#include <string>
#include <vector>

namespace diskferry {

/// The export of a machine's disk that this one is, not one of the configuration; empty: none.
std::string own_export_of(const VmDisk& disk, const DiskExports& exports);

/// Whether all disks that are named are such exports and go where the hypervisors open them by themselves.
/// `exports`: null: there are none.
bool goes_through(const MoveRequest& request, const VmDescription& machine, const DiskExports* exports);

/// The disks of the request as they go then: chosen for another way, with what `facts` tell of their exports.
void rehome(std::vector<MoveDiskState>& disks, const PreflightFacts& facts);

/// Whether that job moves a machine with this export, and has not handed it over: the other host may have
/// opened its storage, and will go on with that.
bool takes_over(const JobRecord& job, const std::string& export_name);

/// The first such job, also one that has failed to find out what became of the machine; empty: there is none.
/// `but`: a job that does not count. Errors: those of the job store.
Task<Result<std::string>> job_taking_over(JobStore& jobs, std::string export_name, std::string but = {});

/// Asks the hypervisor here and notes the way of a new move. One that cannot be asked says so again later.
Task<void> choose_way(MoveContext& move);

}  // namespace diskferry
