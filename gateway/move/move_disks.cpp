// See the header.
#include "gateway/move/move_disks.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/image/image.hpp"
#include "gateway/move/machine_fit.hpp"
#include "gateway/move/preflight_rules.hpp"

#include <algorithm>

namespace diskferry {
namespace {

/// Of a machine that is shut off, the image itself says how large the disk is.
Task<Result<std::uint64_t>> size_of(DriverContext& context, Libvirt& source, const VmDescription& machine,
                                    const VmDisk& disk) {
  if (is_alive(machine.state)) co_return co_await source.disk_bytes(machine.name, disk.target);
  if (disk.slice) co_return disk.slice->length;
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(disk.source));
  DISKFERRY_CO_TRY(Image image, co_await open_image(context, uri, {.format = disk.format}));
  const std::uint64_t size_bytes = image.device().size_bytes();
  DISKFERRY_CO_CHECK(co_await image.close());
  co_return size_bytes;
}

Result<DomainRewrite> changes_for(const PreflightFacts& facts, const std::vector<MoveDiskState>& disks) {
  const MoveRequest& request = facts.request;
  DomainRewrite changes{.networks = request.networks, .name = request.new_name};
  for (const MoveDiskState& disk : disks) {
    if (disk.route == DiskRoute::shared) {
      changes.keep_disks.push_back(disk.target);
      continue;
    }
    DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(disk.uri));
    const auto wanted = std::ranges::find(request.disks, disk.target, &MoveDisk::target);
    const std::string secret = wanted == request.disks.end() ? std::string() : wanted->secret;
    DISKFERRY_TRY(DiskSource place, disk_source(uri, disk.format, disk.is_block_device, secret));
    const auto looked_at = std::ranges::find(
        facts.disks, disk.target, [](const DiskFacts& each) { return std::string_view(each.disk.target); });
    const std::uint64_t slice = looked_at == facts.disks.end() ? 0 : slice_of_target(facts, *looked_at);
    changes.disks.push_back({.target = disk.target, .source = std::move(place), .slice_bytes = slice});
  }
  return changes;
}

std::string reason_of(DiskRoute route) {
  switch (route) {
    case DiskRoute::gateway:
      return "the gateway there writes it";
    case DiskRoute::through:
      return "only the hypervisor there may have it open";
    case DiskRoute::direct:
      return "this gateway reaches it over the network";
    case DiskRoute::rehomed:
    case DiskRoute::shared:
      break;
  }
  return "both hosts have it";
}

}  // namespace

std::vector<MoveDiskState> shared_disks(const PreflightFacts& facts) {
  std::vector<MoveDiskState> shared;
  for (const DiskFacts& each : facts.disks) {
    if (!each.is_shared || each.move || !has_medium(each.disk)) continue;
    shared.push_back({.target = each.disk.target,
                      .source = each.disk.source,
                      .source_format = each.disk.format,
                      .uri = each.disk.source,
                      .format = each.disk.format,
                      .route = DiskRoute::shared,
                      .reason = each.share_reason.empty() ? reason_of(DiskRoute::shared) : each.share_reason,
                      .size_bytes = each.size_bytes});
  }
  return shared;
}

Task<Result<std::vector<MoveDiskState>>> choose_disks(DriverContext& context, Libvirt& source,
                                                      const VmDescription& machine,
                                                      const MoveRequest& request) {
  std::vector<MoveDiskState> chosen;
  for (const MoveDisk& wanted : request.disks) {
    const auto disk = std::ranges::find(machine.disks, wanted.target, &VmDisk::target);
    if (disk == machine.disks.end())
      co_return unexpected(fail(ErrorKind::not_found, "find the disk", printable(wanted.target))
                               .why("the machine has no such disk")
                               .remedy("virsh domblklist shows those it has"));
    DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(wanted.uri));
    MoveDiskState state{.target = wanted.target,
                        .source = disk->source,
                        .source_format = disk->format,
                        .uri = wanted.uri,
                        .format = wanted.format.empty() ? format_for_target(uri) : wanted.format,
                        .drive = drive_export_name(*disk),
                        .source_part = disk->slice.value_or(Range{})};
    state.route = route_of(uri.scheme(), state.format, is_alive(machine.state));
    if (state.route == DiskRoute::direct && state.format != "raw")
      co_return unexpected(fail(ErrorKind::unsupported, "migrate", printable(wanted.uri))
                               .why("on network storage a disk is written raw")
                               .remedy("say raw, or name a file"));
    state.reason = reason_of(state.route);
    DISKFERRY_CO_TRY(state.size_bytes, co_await size_of(context, source, machine, *disk));
    chosen.push_back(std::move(state));
  }
  co_return chosen;
}

Task<bool> has_emulator(Libvirt& host, VmDescription machine) {
  if (machine.emulator.empty()) co_return true;
  co_return (co_await host.domain_capabilities(std::move(machine))).has_value();
}

Task<Result<MoveDefinitions>> rewrite_definitions(Libvirt& source, const PreflightFacts& facts,
                                                  const std::vector<MoveDiskState>& disks) {
  const VmDescription& machine = facts.machine;
  DISKFERRY_CO_TRY(DomainRewrite changes, changes_for(facts, disks));
  if (facts.target)
    DISKFERRY_CO_CHECK(fit_to_host(machine, *facts.target,
                                   {.machine_type = facts.request.machine_type,
                                    .cpu = facts.request.cpu,
                                    .keeps_emulator = facts.has_emulator_there},
                                   changes));
  MoveDefinitions made;
  if (is_alive(machine.state)) {
    DISKFERRY_CO_TRY(const std::string live, co_await source.xml(machine.name, Libvirt::Xml::migratable));
    DISKFERRY_CO_TRY(RewrittenDomain running, rewrite_domain(live, changes));
    made.diff = xml_diff(live, running.xml);
    made.running = std::move(running.xml);
    made.warnings = std::move(running.warnings);
  }
  if (!machine.is_persistent) co_return made;
  changes.is_persistent_form = true;
  DISKFERRY_CO_TRY(const std::string inactive, co_await source.xml(machine.name, Libvirt::Xml::inactive));
  DISKFERRY_CO_TRY(RewrittenDomain defined, rewrite_domain(inactive, changes));
  made.diff = xml_diff(inactive, defined.xml);
  made.persistent = std::move(defined.xml);
  if (made.warnings.empty()) made.warnings = std::move(defined.warnings);
  co_return made;
}

}  // namespace diskferry
