// What there is to do about moves, and their jobs.
#include "gateway/move/move_service.hpp"

#include <fmt/format.h>

#include <spdlog/spdlog.h>

namespace diskferry {

namespace {

Error no_such_move(const std::string& id) {
  return fail(ErrorKind::not_found, "change the move", id).why("no such move runs");
}

}  // namespace

MoveService::MoveService(MoveEnvironment environment)
    : environment_(std::move(environment)), running_(environment_.drivers, "begin a move", "moves") {}

Task<Result<void>> MoveService::act(Coordinator& coordinator, std::string id) {
  auto ended = co_await coordinator.run();
  if (!ended) spdlog::warn("move {}: {}", id, ended.error().message());
  co_return ended;
}

Task<Result<void>> MoveService::launch(JobRecord job) {
  co_await running_.reap();
  const std::string id = job.id;
  co_return running_.begin(
      id, [id](Coordinator& coordinator) { return act(coordinator, id); }, environment_, std::move(job));
}

Task<Result<void>> MoveService::start() {
  DISKFERRY_CO_CHECK(co_await environment_.jobs.end_leases());
  DISKFERRY_CO_TRY(const auto jobs,
                   co_await environment_.jobs.list({.active_only = true, .limit = JobLimits::list_max}));
  for (const JobRecord& job : jobs) {
    if (job.kind != migrate_kind || job.status == JobStatus::paused) continue;
    spdlog::info("move {} of {}: taken up at {}", job.id, job.subject, job.phase);
    DISKFERRY_CO_CHECK(co_await launch(job));
  }
  co_return Result<void>{};
}

Task<Result<MovePlan>> MoveService::plan(std::string request_json, unsigned watch_seconds) {
  DISKFERRY_CO_TRY(MoveRequest request, parse_move_request(request_json));
  co_return co_await plan_move(environment_, std::move(request), watch_seconds);
}

Task<Result<JobRecord>> MoveService::begin(std::string request_json) {
  DISKFERRY_CO_TRY(const MoveRequest request, parse_move_request(request_json));
  DISKFERRY_CO_TRY(JobRecord job,
                   co_await environment_.jobs.create({.kind = std::string(migrate_kind),
                                                      .subject = request.domain,
                                                      .request = to_json(request),
                                                      .phase = std::string(to_string(Phase::planned)),
                                                      .is_exclusive = true}));
  if (auto begun = co_await launch(job); !begun)
    co_return unexpected(co_await end_unbegun(environment_.jobs, job, std::move(begun).error()));
  co_return job;
}

Task<Result<void>> MoveService::cancel(std::string id) {
  DISKFERRY_CO_TRY(const JobRecord job, co_await environment_.jobs.load(id));
  const auto phase = phase_named(job.phase);
  if (is_final(job.status)) co_return Result<void>{};
  if (phase && !can_undo(*phase))
    co_return unexpected(fail(ErrorKind::in_use, "cancel", id)
                             .why("the machine runs on the other host already")
                             .remedy("move it back from there"));
  running_.cancel(id);
  co_return Result<void>{};
}

/// A coordinator of a move that nobody works at.
Task<Result<std::unique_ptr<Coordinator>>> MoveService::idle(std::string id) {
  DISKFERRY_CO_TRY(JobRecord job, co_await environment_.jobs.load(id));
  co_await running_.reap();
  if (running_.has(id))
    co_return unexpected(fail(ErrorKind::in_use, "end the move", id).why("it is at work"));
  co_return std::make_unique<Coordinator>(environment_, std::move(job));
}

Task<Result<void>> MoveService::release(std::string id) {
  DISKFERRY_CO_TRY(const auto coordinator, co_await idle(std::move(id)));
  co_return co_await coordinator->release();
}

Task<Result<void>> MoveService::revert(std::string id) {
  DISKFERRY_CO_TRY(const auto coordinator, co_await idle(std::move(id)));
  co_return co_await coordinator->revert();
}

Task<Result<void>> MoveService::take_up(std::string id) {
  DISKFERRY_CO_TRY(JobRecord job, co_await environment_.jobs.load(id));
  co_await running_.reap();
  if (running_.has(id)) co_return unexpected(fail(ErrorKind::in_use, "resume", id).why("the move runs"));
  const auto phase = phase_named(job.phase);
  if (!phase || is_final(*phase))
    co_return unexpected(fail(ErrorKind::in_use, "resume", id).why("the move has ended"));
  co_return co_await launch(std::move(job));
}

Result<void> MoveService::set_bytes_per_s(const std::string& id, std::uint64_t bytes_per_s) {
  if (running_.with(id, [=](Coordinator& coordinator) { coordinator.set_bytes_per_s(bytes_per_s); }))
    return {};
  return unexpected(no_such_move(id));
}

Result<void> MoveService::set_max_pause_ms(const std::string& id, std::uint64_t ms) {
  if (running_.with(id, [=](Coordinator& coordinator) { coordinator.set_max_pause_ms(ms); })) return {};
  return unexpected(no_such_move(id));
}

Task<void> MoveService::stop() {
  return running_.stop([](Coordinator& coordinator) { coordinator.gateway_stops(); });
}

}  // namespace diskferry
