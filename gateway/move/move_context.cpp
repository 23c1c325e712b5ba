// The record of a move, and what the two gateways have of it.
#include "gateway/move/move_context.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/registry.hpp"
#include "drivers/support/wall_clock.hpp"
#include "gateway/copy/target.hpp"
#include "gateway/move/persistence.hpp"
#include "gateway/move/preflight_report.hpp"
#include "gateway/move/target_disks.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fmt/format.h>

#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
constexpr Duration finish_pause = std::chrono::seconds(1);

bool is_mirrored(const MoveDiskState& disk) {
  return disk.route != DiskRoute::shared && disk.route != DiskRoute::rehomed;
}
}  // namespace

MoveContext::MoveContext(MoveEnvironment& of, JobRecord record)
    : environment(of), job(std::move(record)), socket(move_socket(of.run_folder, job.id)) {}

unsigned MoveContext::connections() const {
  return request.connections != 0 ? request.connections : environment.connections;
}

Task<Result<void>> MoveContext::load(Duration lease) {
  DISKFERRY_CO_TRY(job, co_await environment.jobs.take_lease(job.id, environment.controller, lease));
  DISKFERRY_CO_TRY(request, parse_move_request(job.request));
  DISKFERRY_CO_TRY(state, parse_move_state(job.state.empty() ? "{}" : job.state));
  bytes_per_s = request.bytes_per_s;
  max_pause_ms = request.max_pause_ms;
  co_return Result<void>{};
}

Task<Result<void>> MoveContext::save(JobChanges changes) {
  changes.state = to_json(state);
  auto saved = co_await environment.jobs.update(job.id, job.generation, std::move(changes));
  if (!saved) co_return unexpected(std::move(saved).error().in("write the job down"));
  co_return Result<void>{};
}

Task<Result<void>> MoveContext::enter(Phase next) {
  if (state.phase == next) co_return Result<void>{};
  if (!may_follow(state.phase, next))
    co_return unexpected(fail(ErrorKind::internal, "go on with the move")
                             .why(fmt::format("from {} to {}", to_string(state.phase), to_string(next))));
  die_at("before:", next);
  const Phase before = state.phase;
  state.phase = next;
  state.timeline.push_back({.phase = next, .at_ms = now_ms()});
  auto saved =
      co_await save({.phase = std::string(to_string(next)),
                     .event = NewJobEvent{.kind = std::string(phase_event),
                                          .text = fmt::format(R"({{"phase":"{}","word":"{}"}})",
                                                              to_string(next), operators_word(next))}});
  if (saved) {
    spdlog::info("move {} of {}: {}", job.id, printable(job.subject), to_string(next));
    die_at("", next);
    co_return saved;
  }
  state.phase = before;
  state.timeline.pop_back();
  co_return saved;
}

void MoveContext::die_at(std::string_view prefix, Phase phase) const {
  if (environment.dies_at == fmt::format("{}{}", prefix, to_string(phase))) (void)std::raise(SIGKILL);
}

Result<void> MoveContext::take_findings(const std::vector<Finding>& findings) {
  for (const Finding& finding : findings)
    if (finding.severity == Severity::warning) state.warnings.push_back(finding.text);
  return refuse_blockers(findings);
}

void MoveContext::tell_progress(std::string text) {
  environment.bus.publish(
      {.job = job.id, .sequence = 0, .kind = std::string(progress_event), .text = std::move(text)});
}

Task<Result<void>> MoveContext::connect_gateway() {
  auto reached = co_await connect_other_gateway(environment, request);
  if (!reached) co_return unexpected(std::move(reached).error().in("reach the other gateway"));
  gateway = *std::move(reached);
  co_return Result<void>{};
}

Task<Result<void>> MoveContext::prepare_targets(std::string monitor) {
  // Written down first: what a crash leaves at the other gateway is found by this move's id.
  DISKFERRY_CO_CHECK(co_await save({}));
  const bool copies = std::ranges::any_of(state.disks, is_mirrored);
  // The folder for the socket of the hypervisor there, which listens only where something is copied.
  if (!request.cold && copies) DISKFERRY_CO_CHECK(co_await gateway->prepare({.move = job.id}));
  for (MoveDiskState& disk : state.disks) {
    if (disk.route == DiskRoute::direct) DISKFERRY_CO_CHECK(co_await make_network_target(disk));
    if (disk.route == DiskRoute::direct || !is_mirrored(disk)) continue;
    auto prepared = co_await gateway->prepare({.move = job.id,
                                               .machine = state.machine,
                                               .disk = disk.target,
                                               .uri = disk.uri,
                                               .format = disk.format,
                                               .size_bytes = disk.size_bytes,
                                               .overwrite = request.overwrite,
                                               .through_hypervisor = disk.route == DiskRoute::through,
                                               .hypervisor_export = disk.drive,
                                               .monitor = monitor});
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

Task<Result<void>> MoveContext::make_network_target(MoveDiskState& disk) {
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(disk.uri));
  DISKFERRY_CO_TRY(const VolumeFacts volume, co_await look_at_volume(environment.drivers, uri, {}));
  if (volume.exists) co_return Result<void>{};
  // Written down first, so that a crash leaves nothing behind that nobody knows of.
  disk.was_created = true;
  DISKFERRY_CO_CHECK(co_await save({}));
  auto made = co_await create_storage(environment.drivers, uri, {.size_bytes = disk.size_bytes});
  if (made) {
    disk.starts_zeroed = true;
    co_return made;
  }
  disk.was_created = false;
  DISKFERRY_CO_CHECK(co_await save({}));
  co_return unexpected(std::move(made).error().in("make the target of " + disk.target));
}

Task<Result<void>> MoveContext::remove_network_targets() {
  for (MoveDiskState& disk : state.disks) {
    if (disk.route != DiskRoute::direct || !disk.was_created) continue;
    DISKFERRY_CO_TRY(ImageUri uri, ImageUri::parse(disk.uri));
    DISKFERRY_CO_CHECK(co_await remove_created_target(environment.drivers, std::move(uri)));
    disk.was_created = false;
    DISKFERRY_CO_CHECK(co_await save({}));
  }
  co_return Result<void>{};
}

Result<SourceDisk> MoveContext::source_disk(const MoveDiskState& disk) const {
  SourceDisk source{.target = disk.target,
                    .export_name = disk.drive,
                    .size_bytes = disk.size_bytes,
                    .target_uri = disk.uri,
                    .connections = connections(),
                    .table_path = fmt::format("{}/tables/{}-{}.table", environment.state_folder,
                                              state.machine, disk.target),
                    .target_identity = request.destination + " " + disk.uri,
                    .is_taken_up = disk.is_taken_up,
                    .starts_zeroed = disk.starts_zeroed};
  if (disk.route != DiskRoute::direct) {
    DISKFERRY_TRY(source.target_uri, gateway->export_uri({.export_name = disk.export_name}, connections()));
  }
  return source;
}

Task<Result<void>> MoveContext::open_sources(SourceDisksHooks hooks) {
  SourceDisksOptions options{.socket = socket,
                             .hypervisor_uid = environment.hypervisor_uid,
                             .hypervisor_gid = environment.hypervisor_gid,
                             .window_bytes = environment.window_bytes,
                             .bytes_per_s = bytes_per_s,
                             .flushed = std::move(hooks.flushed),
                             .verify = request.verify_running,
                             .drop_caches = std::move(hooks.drop_caches)};
  disks = std::make_unique<SourceDisks>(environment.drivers, std::move(options));
  std::vector<SourceDisk> wanted;
  for (const MoveDiskState& disk : state.disks) {
    if (!is_mirrored(disk)) continue;
    DISKFERRY_CO_TRY(SourceDisk source, source_disk(disk));
    wanted.push_back(std::move(source));
  }
  // With all disks shared the memory goes over alone, and nobody connects here.
  if (wanted.empty()) co_return Result<void>{};
  co_return co_await disks->start(std::move(wanted));
}

Task<Result<void>> MoveContext::finish_target(TargetEnd end, Duration limit) {
  co_return co_await persist(clock(), {.limit = limit, .pause = finish_pause},
                             [this, end] { return finish_once(end); });
}

Task<Result<void>> MoveContext::finish_once(TargetEnd end) {
  if (end == TargetEnd::remove) DISKFERRY_CO_CHECK(co_await remove_network_targets());
  if (!gateway) {
    if (auto again = co_await connect_gateway(); !again)
      spdlog::debug("move {}: {}", job.id, again.error().message());
  }
  if (gateway) co_return co_await gateway->finish(job.id, end);
  // Before anything was prepared there is nothing to end.
  const bool has_any =
      std::ranges::any_of(state.disks, [](const MoveDiskState& disk) { return !disk.export_name.empty(); });
  if (!has_any) co_return Result<void>{};
  co_return unexpected(
      fail(ErrorKind::gone, "end the move at the other gateway", job.id).why("it cannot be reached"));
}

std::vector<SourceDisks::DiskStats> MoveContext::disk_stats() const {
  return disks ? disks->stats() : last_stats_;
}

Task<void> MoveContext::stop_disks(bool keep_tables) {
  if (!disks) co_return;
  last_stats_ = disks->stats();
  if (auto stopped = co_await disks->stop(keep_tables); !stopped)
    spdlog::debug("move {}: {}", job.id, stopped.error().message());
  disks.reset();
}

}  // namespace diskferry
