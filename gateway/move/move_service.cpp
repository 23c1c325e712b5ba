// Each move has a task group of its own on one reactor, so that it can be cancelled alone. Those that have
// ended are joined when the next one begins, and at the end.
#include "gateway/move/move_service.hpp"

#include "diskferry/task_group.hpp"

#include <fmt/format.h>
#include <vector>

#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
constexpr std::size_t moves_max = 64;
}

struct MoveService::Running {
  Running(MoveEnvironment& environment, JobRecord job, const Executor& executor)
      : id(job.id), coordinator(environment, std::move(job)), group(executor) {}
  const std::string id;
  Coordinator coordinator;
  TaskGroup group;
  std::atomic<bool> is_done = false;
};

MoveService::MoveService(MoveEnvironment environment) : environment_(std::move(environment)) {}
MoveService::~MoveService() = default;

std::shared_ptr<MoveService::Running> MoveService::find(const std::string& id) const {
  std::lock_guard lock(guard_);
  const auto found = running_.find(id);
  return found == running_.end() ? nullptr : found->second;
}

Task<Result<void>> MoveService::run(std::shared_ptr<Running> running) {
  if (auto ended = co_await running->coordinator.run(); !ended)
    spdlog::warn("move {}: {}", running->id, ended.error().message());
  running->is_done = true;
  co_return Result<void>{};
}

Task<void> MoveService::reap() {
  std::vector<std::shared_ptr<Running>> ended;
  {
    std::lock_guard lock(guard_);
    for (auto at = running_.begin(); at != running_.end();) {
      if (at->second->is_done) ended.push_back(at->second);
      at = at->second->is_done ? running_.erase(at) : std::next(at);
    }
  }
  for (const auto& running : ended) (void)co_await running->group.join();
}

Task<Result<void>> MoveService::launch(JobRecord job) {
  co_await reap();
  std::lock_guard lock(guard_);
  if (is_stopping_) co_return unexpected(cancelled_error("begin a move"));
  if (running_.size() >= moves_max)
    co_return unexpected(
        fail(ErrorKind::too_large, "begin a move").why(fmt::format("{} moves run already", moves_max)));
  const Executor& executor =
      environment_.drivers.reactors[next_reactor_++ % environment_.drivers.reactors.size()];
  auto running = std::make_shared<Running>(environment_, std::move(job), executor);
  running_[running->id] = running;
  running->group.spawn(run(running));
  co_return Result<void>{};
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
  DISKFERRY_CO_CHECK(co_await launch(job));
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
  if (const auto running = find(id)) running->group.cancel();
  co_return Result<void>{};
}

/// A coordinator of a move that nobody works at.
Task<Result<std::unique_ptr<Coordinator>>> MoveService::idle(std::string id) {
  DISKFERRY_CO_TRY(JobRecord job, co_await environment_.jobs.load(id));
  co_await reap();
  if (find(id)) co_return unexpected(fail(ErrorKind::in_use, "end the move", id).why("it is at work"));
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
  co_await reap();
  if (find(id)) co_return unexpected(fail(ErrorKind::in_use, "resume", id).why("the move runs"));
  const auto phase = phase_named(job.phase);
  if (!phase || is_final(*phase))
    co_return unexpected(fail(ErrorKind::in_use, "resume", id).why("the move has ended"));
  co_return co_await launch(std::move(job));
}

Result<void> MoveService::set_bytes_per_s(const std::string& id, std::uint64_t bytes_per_s) {
  const auto running = find(id);
  if (!running) return unexpected(fail(ErrorKind::not_found, "change the move", id).why("no such move runs"));
  running->coordinator.set_bytes_per_s(bytes_per_s);
  return {};
}

Result<void> MoveService::set_max_pause_ms(const std::string& id, std::uint64_t ms) {
  const auto running = find(id);
  if (!running) return unexpected(fail(ErrorKind::not_found, "change the move", id).why("no such move runs"));
  running->coordinator.set_max_pause_ms(ms);
  return {};
}

Task<void> MoveService::stop() {
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  std::vector<std::shared_ptr<Running>> all;
  {
    std::lock_guard lock(guard_);
    is_stopping_ = true;
    for (const auto& [id, running] : running_) all.push_back(running);
    running_.clear();
  }
  for (const auto& running : all) {
    running->coordinator.gateway_stops();
    running->group.cancel();
  }
  for (const auto& running : all) (void)co_await running->group.join();
}

}  // namespace diskferry
