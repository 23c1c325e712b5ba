// Each evacuation has a task group of its own, so that it can be cancelled alone.
#include "gateway/move/evacuation_service.hpp"

#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
constexpr std::size_t evacuations_max = 64;
constexpr Duration lease = std::chrono::minutes(1);
}  // namespace

struct EvacuationService::Running {
  Running(EvacuationEnvironment& environment, EvacuationRequest request, const Executor& executor)
      : evacuation(environment, std::move(request)), group(executor) {}
  Evacuation evacuation;
  TaskGroup group;
  std::atomic<bool> is_done = false;
};

EvacuationService::EvacuationService(EvacuationEnvironment environment)
    : environment_(std::move(environment)) {}
EvacuationService::~EvacuationService() = default;

Task<Result<void>> EvacuationService::start() {
  DISKFERRY_CO_TRY(const auto jobs,
                   co_await environment_.jobs.list({.active_only = true, .limit = JobLimits::list_max}));
  for (const JobRecord& left : jobs) {
    if (left.kind != evacuate_kind) continue;
    DISKFERRY_CO_TRY(const JobRecord job,
                     co_await environment_.jobs.take_lease(left.id, environment_.controller, lease));
    const std::string why = fmt::format(
        "the gateway ended when the machine was {}; ask for the same again: what is done is not done twice",
        job.phase);
    DISKFERRY_CO_CHECK(co_await environment_.jobs.update(
        job.id, job.generation,
        {.status = JobStatus::failed, .error = why, .event = NewJobEvent{.kind = std::string(end_event)}}));
    spdlog::warn("evacuation {} of {}: {}", job.id, job.subject, why);
  }
  co_return Result<void>{};
}

Task<Result<EvacuationPlan>> EvacuationService::plan(std::string request_json) {
  DISKFERRY_CO_TRY(EvacuationRequest request, parse_evacuation_request(request_json));
  Evacuation evacuation(environment_, std::move(request));
  co_return co_await evacuation.plan();
}

Task<Result<void>> EvacuationService::run(std::shared_ptr<Running> running, JobRecord job) {
  const std::string id = job.id;
  if (auto ended = co_await running->evacuation.run(std::move(job)); !ended)
    spdlog::warn("evacuation {}: {}", id, ended.error().message());
  running->is_done = true;
  co_return Result<void>{};
}

Task<void> EvacuationService::reap() {
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

Task<Result<JobRecord>> EvacuationService::begin(std::string request_json) {
  DISKFERRY_CO_TRY(EvacuationRequest request, parse_evacuation_request(request_json));
  co_await reap();
  EvacuationRequest noted = request;
  noted.definition.clear();  // it may hold passwords
  DISKFERRY_CO_TRY(JobRecord job, co_await environment_.jobs.create({.kind = std::string(evacuate_kind),
                                                                     .subject = request.machine,
                                                                     .request = to_json(noted),
                                                                     .phase = "planned",
                                                                     .is_exclusive = true}));
  std::lock_guard lock(guard_);
  if (is_stopping_) co_return unexpected(cancelled_error("evacuate", request.machine));
  if (running_.size() >= evacuations_max)
    co_return unexpected(fail(ErrorKind::too_large, "evacuate").why("64 evacuations run already"));
  const Executor& executor =
      environment_.drivers.reactors[next_reactor_++ % environment_.drivers.reactors.size()];
  auto running = std::make_shared<Running>(environment_, std::move(request), executor);
  running_[job.id] = running;
  running->group.spawn(run(running, job));
  co_return job;
}

void EvacuationService::cancel(const std::string& id) {
  std::lock_guard lock(guard_);
  if (const auto found = running_.find(id); found != running_.end()) found->second->group.cancel();
}

Task<void> EvacuationService::stop() {
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  std::map<std::string, std::shared_ptr<Running>> all;
  {
    std::lock_guard lock(guard_);
    is_stopping_ = true;
    all.swap(running_);
  }
  for (const auto& [id, running] : all) running->group.cancel();
  for (const auto& [id, running] : all) (void)co_await running->group.join();
}

}  // namespace diskferry
