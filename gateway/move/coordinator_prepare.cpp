// Everything before the hypervisor is asked: connections, which disk goes where, targets, sockets,
// definitions.
#include "diskferry/image_uri.hpp"
#include "drivers/image/image.hpp"
#include "gateway/hypervisor/domain_xml.hpp"
#include "gateway/move/coordinator.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>

namespace diskferry {

Task<Result<void>> Coordinator::connect() {
  DriverContext& context = environment_.drivers;
  const std::string here = request_.source.empty() ? environment_.libvirt_uri : request_.source;
  auto source = co_await Libvirt::connect(context, here);
  if (!source) co_return unexpected(std::move(source).error().in("reach the hypervisor of this host"));
  source_ = *std::move(source);
  auto target = co_await Libvirt::connect(context, request_.destination);
  if (!target) co_return unexpected(std::move(target).error().in("reach the hypervisor of the other host"));
  target_ = *std::move(target);
  std::string address = request_.gateway;
  if (address.empty()) {
    DISKFERRY_CO_TRY(address, gateway_beside(request_.destination));
  }
  auto gateway = co_await environment_.connect_gateway(std::move(address));
  if (!gateway) co_return unexpected(std::move(gateway).error().in("reach the other gateway"));
  gateway_ = *std::move(gateway);
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::prepare() {
  DISKFERRY_CO_TRY(const VmDescription vm, co_await source_->describe(request_.domain));
  if (vm.state != VmState::running && vm.state != VmState::paused)
    co_return unexpected(fail(ErrorKind::unsupported, "migrate", printable(vm.name))
                             .why("the machine is not running")
                             .remedy("a machine that is shut off is moved with --cold"));
  state_.machine = vm.uuid;
  state_.was_paused = vm.state == VmState::paused;
  state_.is_persistent = vm.is_persistent;
  DISKFERRY_CO_CHECK(co_await choose_disks(vm));
  DISKFERRY_CO_CHECK(co_await prepare_targets());
  DISKFERRY_CO_CHECK(co_await rewrite(vm));
  DISKFERRY_CO_CHECK(co_await open_sources());
  co_return co_await enter(Phase::prepared);
}

Task<Result<void>> Coordinator::choose_disks(const VmDescription& vm) {
  state_.disks.clear();
  for (const MoveDisk& wanted : request_.disks) {
    const auto disk = std::ranges::find(vm.disks, wanted.target, &VmDisk::target);
    if (disk == vm.disks.end())
      co_return unexpected(fail(ErrorKind::not_found, "find the disk", printable(wanted.target))
                               .why("the machine has no such disk")
                               .remedy("virsh domblklist shows those it has"));
    DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(wanted.uri));
    MoveDiskState state{.target = wanted.target,
                        .source = disk->source,
                        .uri = wanted.uri,
                        .format = wanted.format.empty() ? format_for_target(uri) : wanted.format,
                        .drive = drive_export_name(*disk)};
    state.route = route_of(uri.scheme(), state.format);
    if (state.route == DiskRoute::direct && state.format != "raw")
      co_return unexpected(fail(ErrorKind::unsupported, "migrate", printable(wanted.uri))
                               .why("on network storage a running machine's disk is written raw")
                               .remedy("say raw, or name a file"));
    DISKFERRY_CO_TRY(state.size_bytes, co_await source_->disk_bytes(vm.name, wanted.target));
    state_.disks.push_back(std::move(state));
  }
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::rewrite(const VmDescription& vm) {
  DomainRewrite changes{.networks = request_.networks, .name = request_.new_name};
  for (const MoveDiskState& disk : state_.disks) {
    if (disk.route == DiskRoute::shared) {
      changes.keep_disks.push_back(disk.target);
      continue;
    }
    DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(disk.uri));
    DISKFERRY_CO_TRY(DiskSource place, disk_source(uri, disk.format, disk.is_block_device));
    changes.disks.push_back({.target = disk.target, .source = std::move(place)});
  }
  DISKFERRY_CO_TRY(const std::string live, co_await source_->xml(vm.name, Libvirt::Xml::migratable));
  DISKFERRY_CO_TRY(RewrittenDomain running, rewrite_domain(live, changes));
  state_.destination_xml = std::move(running.xml);
  state_.warnings = std::move(running.warnings);
  if (!vm.is_persistent) co_return Result<void>{};
  changes.is_persistent_form = true;
  DISKFERRY_CO_TRY(const std::string inactive, co_await source_->xml(vm.name, Libvirt::Xml::inactive));
  DISKFERRY_CO_TRY(RewrittenDomain defined, rewrite_domain(inactive, changes));
  state_.persistent_xml = std::move(defined.xml);
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::prepare_targets() {
  // Written down first: what a crash leaves at the other gateway is found by this move's id.
  DISKFERRY_CO_CHECK(co_await save({}));
  for (MoveDiskState& disk : state_.disks) {
    if (disk.route == DiskRoute::direct || disk.route == DiskRoute::shared) continue;
    auto prepared = co_await gateway_->prepare({.move = job_.id,
                                                .machine = state_.machine,
                                                .disk = disk.target,
                                                .uri = disk.uri,
                                                .format = disk.format,
                                                .size_bytes = disk.size_bytes,
                                                .overwrite = request_.overwrite,
                                                .through_hypervisor = disk.route == DiskRoute::through,
                                                .hypervisor_export = disk.drive});
    if (!prepared)
      co_return unexpected(std::move(prepared).error().in("prepare the target of " + disk.target));
    disk.export_name = prepared->export_name;
    disk.was_created = prepared->was_created;
    disk.is_taken_up = prepared->is_taken_up;
    disk.is_block_device = prepared->is_block_device;
    DISKFERRY_CO_CHECK(co_await save({}));
  }
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::open_sources() {
  barrier_ = std::make_unique<Barrier>(environment_.drivers.clock,
                                       barrier_hooks(co_await boost::asio::this_coro::executor));
  SourceDisksOptions options{.socket = socket(),
                             .hypervisor_uid = environment_.hypervisor_uid,
                             .hypervisor_gid = environment_.hypervisor_gid,
                             .window_bytes = environment_.window_bytes,
                             .bytes_per_s = bytes_per_s_,
                             .flushed = [this] { return barrier_->flushed(); }};
  disks_ = std::make_unique<SourceDisks>(environment_.drivers, std::move(options));
  std::vector<SourceDisk> wanted;
  const unsigned connections = request_.connections != 0 ? request_.connections : environment_.connections;
  for (const MoveDiskState& disk : state_.disks) {
    if (disk.route == DiskRoute::shared) continue;
    SourceDisk source{.target = disk.target,
                      .export_name = disk.drive,
                      .size_bytes = disk.size_bytes,
                      .target_uri = disk.uri,
                      .connections = connections,
                      .table_path = fmt::format("{}/tables/{}-{}.table", environment_.state_folder,
                                                state_.machine, disk.target),
                      .target_identity = request_.destination + " " + disk.uri,
                      .is_taken_up = disk.is_taken_up};
    if (disk.route != DiskRoute::direct) {
      DISKFERRY_CO_TRY(source.target_uri,
                       gateway_->export_uri({.export_name = disk.export_name}, connections));
    }
    wanted.push_back(std::move(source));
  }
  co_return co_await disks_->start(std::move(wanted));
}

}  // namespace diskferry
