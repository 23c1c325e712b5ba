// Everything before the hypervisor is asked: connections, which disk goes where, targets, sockets,
// definitions.
#include "diskferry/image_uri.hpp"
#include "gateway/move/coordinator.hpp"
#include "gateway/move/move_disks.hpp"
#include "gateway/move/preflight_collect.hpp"
#include "gateway/move/preflight_report.hpp"
#include "gateway/move/qmp_request.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>

#include <boost/asio/this_coro.hpp>

namespace diskferry {

Task<Result<void>> Coordinator::connect() {
  if (is_by_qmp(request_)) co_return co_await connect_by_qmp();
  DriverContext& context = environment_.drivers;
  const std::string here = request_.source.empty() ? environment_.libvirt_uri : request_.source;
  auto source = co_await Libvirt::connect(context, here);
  if (!source) co_return unexpected(std::move(source).error().in("reach the hypervisor of this host"));
  source_ = *std::move(source);
  auto target = co_await Libvirt::connect(context, request_.destination);
  if (!target) co_return unexpected(std::move(target).error().in("reach the hypervisor of the other host"));
  target_ = *std::move(target);
  co_return co_await connect_gateway();
}

Task<Result<void>> Coordinator::connect_gateway() {
  std::string address = request_.gateway;
  if (address.empty()) {
    DISKFERRY_CO_TRY(address, gateway_beside(request_.destination));
  }
  auto gateway = co_await environment_.connect_gateway(std::move(address));
  if (!gateway) co_return unexpected(std::move(gateway).error().in("reach the other gateway"));
  gateway_ = *std::move(gateway);
  co_return Result<void>{};
}

Task<Result<PreflightFacts>> Coordinator::refuse_blockers_now() {
  PreflightPeers peers{
      .source = *source_, .target = target_.get(), .gateway = gateway_.get(), .here = environment_.here};
  DISKFERRY_CO_TRY(PreflightFacts facts, co_await collect_preflight(environment_.drivers, std::move(peers),
                                                                    request_, request_.cold));
  state_.disks = shared_disks(facts);
  const auto findings = examine(facts);
  for (const Finding& finding : findings)
    if (finding.severity == Severity::warning) state_.warnings.push_back(finding.text);
  DISKFERRY_CO_CHECK(refuse_blockers(findings));
  co_return facts;
}

Task<Result<void>> Coordinator::prepare() {
  if (ends_) co_return co_await prepare_by_qmp();
  DISKFERRY_CO_TRY(const VmDescription vm, co_await source_->describe(request_.domain));
  state_.machine = vm.uuid;
  state_.was_paused = vm.state == VmState::paused;
  state_.is_persistent = vm.is_persistent;
  state_.is_cold = request_.cold;
  DISKFERRY_CO_TRY(const PreflightFacts facts, co_await refuse_blockers_now());
  DISKFERRY_CO_TRY(auto copied, co_await choose_disks(environment_.drivers, *source_, vm, request_));
  std::ranges::move(copied, std::back_inserter(state_.disks));
  DISKFERRY_CO_CHECK(co_await prepare_targets());
  DISKFERRY_CO_CHECK(co_await rewrite(facts));
  if (!request_.cold) DISKFERRY_CO_CHECK(co_await open_sources());
  co_return co_await enter(Phase::prepared);
}

Task<Result<void>> Coordinator::rewrite(const PreflightFacts& facts) {
  DISKFERRY_CO_TRY(MoveDefinitions made, co_await rewrite_definitions(*source_, facts, state_.disks));
  state_.destination_xml = std::move(made.running);
  state_.persistent_xml = std::move(made.persistent);
  for (std::string& warning : made.warnings) state_.warnings.push_back(std::move(warning));
  co_return Result<void>{};
}

unsigned Coordinator::connections() const {
  return request_.connections != 0 ? request_.connections : environment_.connections;
}

Task<Result<void>> Coordinator::prepare_targets() {
  // Written down first: what a crash leaves at the other gateway is found by this move's id.
  DISKFERRY_CO_CHECK(co_await save({}));
  const bool copies = std::ranges::any_of(
      state_.disks, [](const MoveDiskState& disk) { return disk.route != DiskRoute::shared; });
  // The folder for the socket of the hypervisor there, which listens only where something is copied.
  if (!request_.cold && copies) DISKFERRY_CO_CHECK(co_await gateway_->prepare({.move = job_.id}));
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
                                                .hypervisor_export = disk.drive,
                                                .monitor = target_monitor_});
    if (!prepared)
      co_return unexpected(std::move(prepared).error().in("prepare the target of " + disk.target));
    disk.export_name = prepared->export_name;
    disk.was_created = prepared->was_created;
    disk.is_taken_up = prepared->is_taken_up;
    disk.starts_zeroed = prepared->starts_zeroed;
    disk.is_block_device = prepared->is_block_device;
    DISKFERRY_CO_CHECK(co_await save({}));
  }
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::open_sources() {
  const Executor own = co_await boost::asio::this_coro::executor;
  guest_ = std::make_unique<GuestWatch>(own, [this] { return ask_whether_stopped(); });
  barrier_ = std::make_unique<Barrier>(environment_.drivers.clock, barrier_hooks(own));
  SourceDisksOptions options{.socket = socket(),
                             .hypervisor_uid = environment_.hypervisor_uid,
                             .hypervisor_gid = environment_.hypervisor_gid,
                             .window_bytes = environment_.window_bytes,
                             .bytes_per_s = bytes_per_s_,
                             .flushed = [this] { return barrier_->flushed(); },
                             .verify = request_.verify_running,
                             .drop_caches = drop_caches_hook(co_await boost::asio::this_coro::executor)};
  disks_ = std::make_unique<SourceDisks>(environment_.drivers, std::move(options));
  std::vector<SourceDisk> wanted;
  for (const MoveDiskState& disk : state_.disks) {
    if (disk.route == DiskRoute::shared) continue;
    SourceDisk source{.target = disk.target,
                      .export_name = disk.drive,
                      .size_bytes = disk.size_bytes,
                      .target_uri = disk.uri,
                      .connections = connections(),
                      .table_path = fmt::format("{}/tables/{}-{}.table", environment_.state_folder,
                                                state_.machine, disk.target),
                      .target_identity = request_.destination + " " + disk.uri,
                      .is_taken_up = disk.is_taken_up,
                      .starts_zeroed = disk.starts_zeroed};
    if (disk.route != DiskRoute::direct) {
      DISKFERRY_CO_TRY(source.target_uri,
                       gateway_->export_uri({.export_name = disk.export_name}, connections()));
    }
    wanted.push_back(std::move(source));
  }
  // With all disks shared the memory goes over alone, and nobody connects here.
  if (wanted.empty()) co_return Result<void>{};
  co_return co_await disks_->start(std::move(wanted));
}

}  // namespace diskferry
