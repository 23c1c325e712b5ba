#include "gateway/move/adoption_plan.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/disk_exports.hpp"
#include "gateway/move/preflight_collector.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry {
namespace {

/// "web1:vda"; a machine's name may have a colon, a disk's has none.
bool split_name(const std::string& name, ReplaceDisk& into) {
  const auto colon = name.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == name.size()) return false;
  into.domain = name.substr(0, colon);
  into.disk = name.substr(colon + 1);
  return true;
}

Error not_there(const ReplaceDisk& wanted, std::string why) {
  return fail(ErrorKind::not_found, "replace the storage of", printable(wanted.name))
      .why(std::move(why))
      .remedy("'diskferry exports' lists exports, and 'virsh domblklist' a machine's disks");
}

/// The machine's disk as libvirt has it now.
Task<Result<VmDisk>> find_disk(DomainDisk& disk, const ReplaceDisk& wanted) {
  auto machine = co_await disk.machine();
  if (!machine && machine.error().kind() == ErrorKind::not_found)
    co_return unexpected(not_there(wanted, "there is neither an export nor a machine of this name"));
  if (!machine) co_return unexpected(std::move(machine).error());
  const auto found = std::ranges::find(machine->disks, wanted.disk, &VmDisk::target);
  if (found == machine->disks.end()) co_return unexpected(not_there(wanted, "the machine has no such disk"));
  co_return *found;
}

}  // namespace

Result<DomainDiskNames> names_of(const ReplaceEnvironment& environment, const ReplaceRequest& request) {
  const ReplaceDisk& wanted = request.disks.front();
  DomainDiskNames names{.hypervisor = environment.libvirt_uri, .domain = wanted.domain, .disk = wanted.disk};
  if (request.rehome) {
    DISKFERRY_TRY(names.target, target_for_qemu(wanted));
  } else {
    names.target =
        NbdDiskSource{.socket = environment.disk_exports->disk_socket(), .export_name = wanted.name};
  }
  return names;
}

namespace {

/// Who they are is the gateway's to find out.
Task<Result<void>> find_machine_disk(ReplaceEnvironment& environment, ReplaceRequest& request,
                                     ReplaceDisk& wanted) {
  DiskExports* const exports = environment.disk_exports;
  wanted.domain.clear();
  wanted.disk.clear();
  const bool is_export = exports == nullptr || (exports->has_export(wanted.name) && !request.rehome);
  if (is_export || !split_name(wanted.name, wanted)) co_return Result<void>{};
  DISKFERRY_CO_TRY(DomainDiskNames names,
                   names_of(environment, {.disks = {wanted}, .rehome = request.rehome}));
  DomainDisk disk(environment.drivers, std::move(names));
  const auto found = co_await find_disk(disk, wanted);
  co_await disk.close();
  if (!found) co_return unexpected(found.error());
  const auto source = source_uri(*found);
  const std::string name = source && !request.rehome ? exports->export_at(*source) : std::string();
  if (!name.empty()) wanted = {.name = name, .uri = wanted.uri, .format = wanted.format};
  co_return Result<void>{};
}

}  // namespace

Task<Result<ReplaceRequest>> find_machine_disks(ReplaceEnvironment& environment, ReplaceRequest request) {
  for (ReplaceDisk& wanted : request.disks)
    DISKFERRY_CO_CHECK(co_await find_machine_disk(environment, request, wanted));
  if (request.rehome && !is_adoption(request))
    co_return unexpected(fail(ErrorKind::invalid_argument, "re-home", printable(request.disks.front().name))
                             .why("what is re-homed is the disk of a machine")
                             .remedy("name it MACHINE:DISK, as virsh domblklist MACHINE shows it"));
  DISKFERRY_CO_CHECK(check(request));
  co_return request;
}

namespace {
/// The export of this gateway that the disk is on.
std::optional<ExportStorage> export_of(const VmDescription& machine, const std::string& disk,
                                       const DiskExports& exports) {
  const auto found = std::ranges::find(machine.disks, disk, &VmDisk::target);
  if (found == machine.disks.end()) return std::nullopt;
  const auto source = source_uri(*found);
  const std::string name = source ? exports.export_at(*source) : std::string();
  return name.empty() ? std::nullopt : exports.storage_of(name);
}
}  // namespace

Task<Result<AdoptionFacts>> collect_adoption(DomainDisk& disk, const DiskExports& exports,
                                             const ReplaceRequest& request) {
  AdoptionFacts facts{.request = request, .disk = disk.names().disk};
  DISKFERRY_CO_TRY(facts.machine, co_await disk.machine());
  facts.on_export = export_of(facts.machine, facts.disk, exports);
  DISKFERRY_CO_TRY(facts.libvirt_version, co_await disk.libvirt_version());
  if (!is_alive(facts.machine.state)) co_return facts;
  DISKFERRY_CO_TRY(facts.is_in_job, co_await disk.is_machine_busy());
  const auto view = co_await disk.look();
  // That there is no such disk is a finding.
  if (!view && view.error().kind() != ErrorKind::not_found) co_return unexpected(view.error());
  facts.has_disk_job = view && view->job.has_value();
  co_return facts;
}

namespace {

void note_findings(const AdoptionFacts& facts, ReplacePlan& plan) {
  for (const Finding& each : examine(facts)) {
    std::string text = fmt::format("{}: {}{}{}", printable(facts.request.disks.front().name), each.text,
                                   each.remedy.empty() ? "" : " ", each.remedy);
    if (each.severity == Severity::blocker)
      plan.blockers.push_back(std::move(text));
    else
      plan.warnings.push_back(std::move(text));
  }
}

Task<Result<void>> look_at(ReplaceEnvironment& environment, DomainDisk& disk, const ReplaceRequest& request,
                           ReplacePlan& plan) {
  const ReplaceDisk& wanted = request.disks.front();
  DISKFERRY_CO_TRY(const AdoptionFacts facts,
                   co_await collect_adoption(disk, *environment.disk_exports, request));
  note_findings(facts, plan);
  ReplaceDiskState& state = plan.disks.emplace_back(
      ReplaceDiskState{.name = wanted.name, .uri = wanted.uri, .format = wanted.format});
  if (std::ranges::find(facts.machine.disks, facts.disk, &VmDisk::target) == facts.machine.disks.end())
    co_return Result<void>{};
  note_source(state, facts);
  if (const auto size = co_await disk.size_bytes()) state.size_bytes = *size;
  const auto makes = co_await look_at_adoption_target(
      environment.drivers, {.state = state, .overwrite = request.overwrite}, facts);
  state.was_created = makes && *makes;
  if (!makes)
    plan.blockers.push_back(fmt::format("{}: {}", printable(wanted.name), makes.error().message()));
  else if (!*makes)
    plan.warnings.push_back(
        fmt::format("{}: what is on {} is overwritten", printable(wanted.name), printable(wanted.uri)));
  co_return Result<void>{};
}

}  // namespace

Task<Result<ReplacePlan>> plan_adoption(ReplaceEnvironment& environment, ReplaceRequest request) {
  ReplacePlan plan;
  DISKFERRY_CO_TRY(DomainDiskNames names, names_of(environment, request));
  DomainDisk disk(environment.drivers, std::move(names));
  const auto looked = co_await look_at(environment, disk, request, plan);
  co_await disk.close();
  if (!looked) co_return unexpected(looked.error());
  co_return plan;
}

}  // namespace diskferry
