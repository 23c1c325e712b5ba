// The exports of the machine's disks: they come to be on storage that both hosts reach, and are closed when
// the guest has arrived on the other host.
#include "diskferry/image_uri.hpp"
#include "gateway/move/disk_exports.hpp"
#include "gateway/move/persistence.hpp"
#include "gateway/move/replace_service.hpp"
#include "gateway/move/shared_proof.hpp"
#include "gateway/move/through_way.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

constexpr Duration look_pause = std::chrono::milliseconds(100);
constexpr Duration proof_limit = std::chrono::seconds(15);
/// A replacement that was cancelled removes its target, which its storage may hold up.
constexpr Patience until_replacement_ends{.limit = std::chrono::minutes(1),
                                          .pause = std::chrono::milliseconds(100)};
/// The guest waits for it, and there is no way back.
constexpr Patience until_closed{.limit = std::chrono::minutes(15), .pause = std::chrono::milliseconds(200)};

bool is_in_place(const MoveDiskState& disk) {
  return disk.source == disk.own_storage;
}

/// Those of this move's exports, as a replacement asks for them.
ReplaceRequest request_for(const std::vector<MoveDiskState*>& disks, const MoveContext& move) {
  ReplaceRequest request{.overwrite = true,  // as of all network storage that a move goes to
                         .bytes_per_s = move.bytes_per_s,
                         .max_pause_ms = move.max_pause_ms,
                         .on_read_error = OnReadError::abort,
                         .connections = move.request.connections};
  for (const MoveDiskState* disk : disks)
    if (!is_in_place(*disk))
      request.disks.push_back({.name = disk->own_export, .uri = disk->uri, .format = disk->format});
  return request;
}

bool has_ended(const JobRecord& job) {
  // One that is paused waits for an operator, and this move for nobody.
  return is_final(job.status) || job.status == JobStatus::paused;
}

}  // namespace

std::vector<MoveDiskState*> ThroughWay::rehomed() {
  std::vector<MoveDiskState*> all;
  for (MoveDiskState& disk : move_.state.disks)
    if (disk.route == DiskRoute::rehomed) all.push_back(&disk);
  return all;
}

// --- onto storage of both hosts ---------------------------------------------------------------------------

Task<Result<void>> ThroughWay::replace_storage() {
  const ReplaceRequest request = request_for(rehomed(), move_);
  if (request.disks.empty()) co_return Result<void>{};
  auto job = co_await move_.environment.replacements->begin(to_json(request), move_.job.id);
  if (!job) co_return unexpected(std::move(job).error().in("bring its disks to storage of both hosts"));
  move_.state.replacement = job->id;
  DISKFERRY_CO_CHECK(co_await move_.save({}));
  spdlog::info("move {}: its disks come to storage of both hosts by {}", move_.job.id, job->id);
  co_return co_await follow_replacement();
}

Task<Result<void>> ThroughWay::follow_replacement() {
  const TimePoint began = move_.clock().now();
  const auto limit = std::chrono::seconds(move_.request.timeout_s);
  const bool may_time_out =
      move_.request.timeout_s != 0 && move_.request.timeout_action == TimeoutAction::abort;
  std::uint64_t told_bytes_per_s = move_.bytes_per_s;
  while (true) {
    DISKFERRY_CO_TRY(const JobRecord job, co_await move_.environment.jobs.load(move_.state.replacement));
    if (job.status == JobStatus::done) co_return Result<void>{};
    if (has_ended(job))
      co_return unexpected(
          fail(ErrorKind::io, "bring its disks to storage of both hosts", job.id).why(job.error));
    if (may_time_out && move_.clock().now() - began > limit)
      co_return unexpected(took_too_long("allow more time"));
    DISKFERRY_CO_CHECK(co_await pass_on_limits(told_bytes_per_s));
    tell_copied();
    DISKFERRY_CO_CHECK(co_await move_.clock().sleep_for(look_pause));
  }
}

Task<Result<void>> ThroughWay::pass_on_limits(std::uint64_t& told_bytes_per_s) {
  const std::uint64_t wanted = move_.bytes_per_s;
  if (wanted == told_bytes_per_s) co_return Result<void>{};
  told_bytes_per_s = wanted;
  // One that has just ended needs no limit.
  if (auto set = move_.environment.replacements->set(move_.state.replacement, {.bytes_per_s = wanted}); !set)
    spdlog::debug("move {}: {}", move_.job.id, set.error().message());
  co_return Result<void>{};
}

void ThroughWay::tell_copied() {
  const auto progress = move_.environment.bus.last_progress(move_.state.replacement);
  if (!progress) return;
  boost::system::error_code failed;
  const auto told = boost::json::parse(progress->text, failed);
  const auto* fields = failed ? nullptr : told.if_object();
  const auto* done = fields == nullptr ? nullptr : fields->if_contains("done");
  if (done != nullptr && done->is_number()) move_.copied_bytes = done->to_number<std::uint64_t>(failed);
  move_.tell_progress(move_.progress());
}

/// By now there is something to compare. A name that leads elsewhere from the other host would give the guest
/// another disk.
Task<Result<void>> ThroughWay::prove_storage() {
  for (const MoveDiskState* disk : rehomed()) {
    DISKFERRY_CO_TRY(ImageUri uri, ImageUri::parse(disk->uri));
    DISKFERRY_CO_TRY(const ShareVerdict verdict,
                     co_await with_deadline(
                         move_.clock(), proof_limit, "compare the storage",
                         prove_shared(move_.environment.drivers, *move_.gateway, std::move(uri), disk->uri)));
    if (!verdict.is_shared)
      co_return unexpected(
          fail(ErrorKind::mismatch, "find the storage on both hosts", printable(disk->uri))
              .why(verdict.reason)
              .remedy("see to it that the name leads to the same storage from both hosts, and move again"));
  }
  co_return Result<void>{};
}

// --- back -------------------------------------------------------------------------------------------------

Task<void> ThroughWay::end_replacement() {
  const ReplaceRequest request = request_for(rehomed(), move_);
  if (request.disks.empty()) co_return;
  // By its subject: a process may have ended between beginning it and noting which it is.
  const auto jobs =
      co_await move_.environment.jobs.list({.active_only = true, .subject = subject_of(request)});
  if (!jobs) co_return;
  for (const JobRecord& job : *jobs) {
    if (job.kind != replace_kind || job.created_ms < move_.job.created_ms) continue;
    // One that has committed ends by itself.
    if (auto told = co_await move_.environment.replacements->cancel(job.id); !told)
      spdlog::info("move {}: {}", move_.job.id, told.error().message());
    const auto ended = co_await persist(move_.clock(), until_replacement_ends,
                                        [this, id = job.id] { return expect_ended(id); });
    if (!ended) move_.state.warnings.push_back("the job " + job.id + " goes on: " + ended.error().message());
  }
}

Task<Result<void>> ThroughWay::expect_ended(std::string id) {
  DISKFERRY_CO_TRY(const JobRecord job, co_await move_.environment.jobs.load(id));
  if (has_ended(job)) co_return Result<void>{};
  co_return unexpected(fail(ErrorKind::timed_out, "end the replacement", id).why("it has not ended yet"));
}

void ThroughWay::note_places() {
  for (const MoveDiskState* disk : rehomed()) {
    if (is_in_place(*disk)) continue;
    if (disk_storage(*move_.environment.disk_exports, disk->own_export) != disk->own_storage) continue;
    move_.state.warnings.push_back(fmt::format(
        "{} is on {} now, by way of this gateway, and the guest goes on with that; what it was on before is "
        "left: {}",
        printable(disk->target), printable(disk->own_storage), printable(disk->source)));
  }
}

// --- closed for good --------------------------------------------------------------------------------------

Task<Result<void>> ThroughWay::expect_in_place(const MoveDiskState& disk) {
  const DiskExports& exports = *move_.environment.disk_exports;
  // Closed already.
  if (!exports.has_export(disk.own_export)) co_return Result<void>{};
  const std::string storage = disk_storage(exports, disk.own_export);
  if (storage == disk.own_storage) co_return Result<void>{};
  if (storage.empty())
    co_return unexpected(fail(ErrorKind::timed_out, "close the storage", printable(disk.own_export))
                             .why("a job is changing the export"));
  co_return unexpected(
      fail(ErrorKind::mismatch, "close the storage", printable(disk.own_export))
          .why(fmt::format("it is on {} now, and the other host has opened {}", printable(storage),
                           printable(disk.own_storage)))
          .remedy(fmt::format("bring it back with diskferry replace {} {} --overwrite, then "
                              "diskferry resume {}",
                              printable(disk.own_export), printable(disk.own_storage), move_.job.id)));
}

/// After this no process of this gateway opens the storage again.
Task<Result<void>> ThroughWay::close_storage() {
  for (const MoveDiskState* disk : rehomed())
    DISKFERRY_CO_CHECK(
        co_await persist(move_.clock(), until_closed, [this, disk] { return expect_in_place(*disk); }));
  for (const MoveDiskState* disk : rehomed()) {
    const auto forgotten = co_await persist(
        move_.clock(), until_closed,
        [this, disk] { return move_.environment.jobs.forget_endpoint(disk->own_export); },
        [](const Error&) { return true; });
    if (!forgotten) co_return forgotten;
    DISKFERRY_CO_CHECK(co_await persist(
        move_.clock(), until_closed, [this, disk] { return withdraw(*disk); },
        [](const Error&) { return true; }));
  }
  co_return Result<void>{};
}

Task<Result<void>> ThroughWay::withdraw(const MoveDiskState& disk) {
  DiskExports& exports = *move_.environment.disk_exports;
  if (!exports.has_export(disk.own_export)) co_return Result<void>{};
  auto withdrawn = co_await exports.withdraw_disk(disk.own_export);
  if (withdrawn || exports.has_export(disk.own_export)) co_return withdrawn;
  // It is closed. The guest had flushed before it went over, and nothing was written since.
  spdlog::warn("move {}: {}: {}", move_.job.id, printable(disk.own_export), withdrawn.error().message());
  co_return Result<void>{};
}

}  // namespace diskferry
