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

DomainDiskNames names_of(const ReplaceEnvironment& environment, const ReplaceDisk& wanted) {
  return {.hypervisor = environment.libvirt_uri,
          .domain = wanted.domain,
          .disk = wanted.disk,
          .socket = environment.disk_exports->disk_socket(),
          .export_name = wanted.name};
}

Task<Result<ReplaceRequest>> find_machine_disks(ReplaceEnvironment& environment, ReplaceRequest request) {
  DiskExports* const exports = environment.disk_exports;
  for (ReplaceDisk& wanted : request.disks) {
    // Who they are is the gateway's to find out.
    wanted.domain.clear();
    wanted.disk.clear();
    if (exports == nullptr || exports->has_export(wanted.name) || !split_name(wanted.name, wanted)) continue;
    DomainDisk disk(environment.drivers, names_of(environment, wanted));
    const auto found = co_await find_disk(disk, wanted);
    co_await disk.close();
    if (!found) co_return unexpected(found.error());
    const auto source = source_uri(*found);
    const std::string name = source ? exports->export_at(*source) : std::string();
    if (name.empty()) continue;
    wanted = {.name = name, .uri = wanted.uri, .format = wanted.format};
  }
  DISKFERRY_CO_CHECK(check(request));
  co_return request;
}

Task<Result<AdoptionFacts>> collect_adoption(DomainDisk& disk, const ReplaceRequest& request) {
  AdoptionFacts facts{.request = request, .disk = disk.names().disk};
  DISKFERRY_CO_TRY(facts.machine, co_await disk.machine());
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

Task<Result<void>> note_findings(DomainDisk& disk, const ReplaceRequest& request, ReplacePlan& plan,
                                 VmDisk& found) {
  DISKFERRY_CO_TRY(const AdoptionFacts facts, co_await collect_adoption(disk, request));
  for (const Finding& each : examine(facts)) {
    std::string text = fmt::format("{}: {}{}{}", printable(request.disks.front().name), each.text,
                                   each.remedy.empty() ? "" : " ", each.remedy);
    if (each.severity == Severity::blocker)
      plan.blockers.push_back(std::move(text));
    else
      plan.warnings.push_back(std::move(text));
  }
  const auto named = std::ranges::find(facts.machine.disks, facts.disk, &VmDisk::target);
  if (named != facts.machine.disks.end()) found = *named;
  co_return Result<void>{};
}

Task<Result<void>> look_at(ReplaceEnvironment& environment, DomainDisk& disk, const ReplaceRequest& request,
                           ReplacePlan& plan) {
  const ReplaceDisk& wanted = request.disks.front();
  VmDisk found;
  DISKFERRY_CO_CHECK(co_await note_findings(disk, request, plan, found));
  ReplaceDiskState& state = plan.disks.emplace_back(ReplaceDiskState{.name = wanted.name,
                                                                     .source = found.source_text,
                                                                     .source_format = found.format,
                                                                     .uri = wanted.uri,
                                                                     .format = wanted.format});
  if (found.target.empty()) co_return Result<void>{};
  if (const auto size = co_await disk.size_bytes()) state.size_bytes = *size;
  const auto makes = co_await look_at_adoption_target(
      environment.drivers, {.state = state, .overwrite = request.overwrite}, found);
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
  DomainDisk disk(environment.drivers, names_of(environment, request.disks.front()));
  const auto looked = co_await look_at(environment, disk, request, plan);
  co_await disk.close();
  if (!looked) co_return unexpected(looked.error());
  co_return plan;
}

}  // namespace diskferry
