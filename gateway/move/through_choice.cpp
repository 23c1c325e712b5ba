#include "gateway/move/through_choice.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/hypervisor/libvirt.hpp"
#include "gateway/move/qmp_request.hpp"

#include <algorithm>

namespace diskferry {

std::string own_export_of(const VmDisk& disk, const DiskExports& exports) {
  const auto uri = ImageUri::parse(disk.source);
  if (!uri || uri->is_file()) return {};
  std::string name = exports.export_at(*uri);
  const std::vector<std::string> disks = exports.disk_names();
  return std::ranges::find(disks, name) == disks.end() ? std::string() : name;
}

bool goes_through(const MoveRequest& request, const VmDescription& machine, const DiskExports* exports) {
  if (exports == nullptr || request.cold || request.disks.empty() || !is_alive(machine.state)) return false;
  return std::ranges::all_of(request.disks, [&](const MoveDisk& wanted) {
    const auto uri = ImageUri::parse(wanted.uri);
    const std::string format = format_there(wanted);
    if (!uri || format != "raw" || route_of(uri->scheme(), format, true) != DiskRoute::direct) return false;
    const auto disk = std::ranges::find(machine.disks, wanted.target, &VmDisk::target);
    return disk != machine.disks.end() && !own_export_of(*disk, *exports).empty();
  });
}

void rehome(std::vector<MoveDiskState>& disks, const PreflightFacts& facts) {
  if (!facts.goes_through) return;
  for (MoveDiskState& disk : disks) {
    const auto known = std::ranges::find(
        facts.disks, disk.target, [](const DiskFacts& each) { return std::string_view(each.disk.target); });
    if (disk.route == DiskRoute::shared || known == facts.disks.end()) continue;
    disk.route = DiskRoute::rehomed;
    disk.own_export = known->own_export;
    disk.source = known->export_storage;
    disk.own_storage = known->is_in_place ? known->export_storage : disk.uri;
    disk.reason = known->is_in_place
                      ? "the export " + known->own_export + " is there already"
                      : "the storage of the export " + known->own_export + " is replaced by it";
  }
}

bool takes_over(const JobRecord& job, const std::string& export_name) {
  if (job.kind != migrate_kind || job.state.empty()) return false;
  const auto move = parse_move_state(job.state);
  if (!move || move->phase > Phase::switching) return false;
  return std::ranges::find(move->disks, export_name, &MoveDiskState::own_export) != move->disks.end();
}

Task<Result<std::string>> job_taking_over(JobStore& jobs, std::string export_name, std::string but) {
  const std::string machine = export_name.substr(0, export_name.rfind(':'));
  DISKFERRY_CO_TRY(const auto found, co_await jobs.list({.subject = machine}));
  for (const JobRecord& job : found)
    if (job.id != but && takes_over(job, export_name)) co_return job.id;
  co_return std::string();
}

Task<void> choose_way(MoveContext& move) {
  if (move.environment.disk_exports == nullptr || is_by_qmp(move.request)) co_return;
  auto libvirt =
      co_await Libvirt::connect(move.environment.drivers, source_uri(move.environment, move.request));
  if (!libvirt) co_return;
  const auto machine = co_await (*libvirt)->describe(move.request.domain);
  co_await (*libvirt)->close();
  if (machine && goes_through(move.request, *machine, move.environment.disk_exports))
    move.state.way = MoveWayKind::through;
}

}  // namespace diskferry
