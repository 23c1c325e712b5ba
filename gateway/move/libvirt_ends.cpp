#include "gateway/move/libvirt_ends.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/move_disks.hpp"
#include "gateway/move/preflight_collect.hpp"
#include "gateway/move/through_choice.hpp"

#include <algorithm>
#include <iterator>

#include <spdlog/spdlog.h>

namespace diskferry {

Task<Result<void>> LibvirtEnds::connect_here(MoveContext& move) {
  auto here = co_await Libvirt::connect(move.environment.drivers, source_uri(move.environment, move.request));
  if (!here) co_return unexpected(std::move(here).error().in("reach the hypervisor of this host"));
  source = *std::move(here);
  co_return Result<void>{};
}

Task<Result<void>> LibvirtEnds::connect(MoveContext& move) {
  DISKFERRY_CO_CHECK(co_await connect_here(move));
  auto there = co_await Libvirt::connect(move.environment.drivers, move.request.destination);
  if (!there) co_return unexpected(std::move(there).error().in("reach the hypervisor of the other host"));
  target = *std::move(there);
  co_return co_await move.connect_gateway();
}

Task<Result<PreflightFacts>> LibvirtEnds::refuse_blockers_now(MoveContext& move) {
  PreflightPeers peers{.source = *source,
                       .target = target.get(),
                       .gateway = move.gateway.get(),
                       .here = move.environment.here,
                       .disk_exports = move.environment.disk_exports};
  DISKFERRY_CO_TRY(PreflightFacts facts,
                   co_await collect_preflight(move.environment.drivers, std::move(peers), move.request,
                                              move.request.cold));
  move.state.disks = shared_disks(facts);
  DISKFERRY_CO_CHECK(move.take_findings(examine(facts)));
  co_return facts;
}

Task<Result<void>> LibvirtEnds::prepare(MoveContext& move) {
  MoveState& state = move.state;
  DISKFERRY_CO_TRY(const PreflightFacts facts, co_await refuse_blockers_now(move));
  if (facts.goes_through != (state.way == MoveWayKind::through))
    co_return unexpected(fail(ErrorKind::in_use, "migrate", printable(move.job.subject))
                             .why("its disks have come to this gateway, or left it, since the move began")
                             .remedy("begin again"));
  state.machine = facts.machine.uuid;
  state.was_paused = facts.machine.state == VmState::paused;
  state.is_persistent = facts.machine.is_persistent;
  state.is_cold = move.request.cold;
  DISKFERRY_CO_TRY(auto copied,
                   co_await choose_disks(move.environment.drivers, *source, facts.machine, move.request));
  if (state.way == MoveWayKind::through) rehome(copied, facts);
  std::ranges::move(copied, std::back_inserter(state.disks));
  DISKFERRY_CO_CHECK(co_await move.prepare_targets({}));
  DISKFERRY_CO_TRY(MoveDefinitions made, co_await rewrite_definitions(*source, facts, state.disks));
  state.destination_xml = std::move(made.running);
  state.persistent_xml = std::move(made.persistent);
  std::ranges::move(made.warnings, std::back_inserter(state.warnings));
  co_return Result<void>{};
}

Task<void> LibvirtEnds::undefine_source(MoveContext& move) {
  if (!move.state.is_persistent) co_return;
  Result<void> gone;
  if (!source) gone = co_await connect_here(move);
  if (gone) gone = co_await source->undefine(move.job.subject);
  if (gone || gone.error().kind() == ErrorKind::not_found) co_return;
  // The machine runs where it should: that this one is still defined is told, and no failure of the move.
  move.state.leftovers.push_back("the definition of " + move.job.subject + " on the source host");
  spdlog::warn("move {}: {}", move.job.id, gone.error().message());
}

Task<std::optional<VmCondition>> LibvirtEnds::ask_source(MoveContext& move) {
  return ask(move, {source, has_lost_source}, source_uri(move.environment, move.request));
}

Task<std::optional<VmCondition>> LibvirtEnds::ask_target(MoveContext& move) {
  return ask(move, {target, has_lost_target}, move.request.destination);
}

Task<std::optional<VmCondition>> LibvirtEnds::ask(MoveContext& move, Host host, std::string uri) {
  if (host.libvirt) {
    auto now = co_await host.libvirt->condition(move.job.subject);
    if (now) co_return *now;
    if (now.error().kind() != ErrorKind::gone) co_return std::nullopt;
    host.has_lost = true;
    co_await host.libvirt->close();
    lost_.push_back(std::move(host.libvirt));
  }
  auto again = co_await Libvirt::connect(move.environment.drivers, std::move(uri));
  if (!again) co_return std::nullopt;
  host.libvirt = *std::move(again);
  auto now = co_await host.libvirt->condition(move.job.subject);
  if (!now) co_return std::nullopt;
  co_return *now;
}

Task<void> LibvirtEnds::close() {
  if (source) co_await source->close();
  if (target) co_await target->close();
  source.reset();
  target.reset();
  lost_.clear();
}

}  // namespace diskferry
