// What there is to do about evacuations, and their jobs.
#include "gateway/move/evacuation_service.hpp"

#include <fmt/format.h>

#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
constexpr Duration lease = std::chrono::minutes(1);
}  // namespace

EvacuationService::EvacuationService(EvacuationEnvironment environment)
    : environment_(std::move(environment)), running_(environment_.drivers, "evacuate", "evacuations") {}

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

Task<Result<void>> EvacuationService::act(Evacuation& evacuation, JobRecord job) {
  const std::string id = job.id;
  auto ended = co_await evacuation.run(std::move(job));
  if (!ended) spdlog::warn("evacuation {}: {}", id, ended.error().message());
  co_return ended;
}

Task<Result<JobRecord>> EvacuationService::begin(std::string request_json) {
  DISKFERRY_CO_TRY(EvacuationRequest request, parse_evacuation_request(request_json));
  co_await running_.reap();
  EvacuationRequest noted = request;
  noted.definition.clear();  // it may hold passwords
  DISKFERRY_CO_TRY(JobRecord job, co_await environment_.jobs.create({.kind = std::string(evacuate_kind),
                                                                     .subject = request.machine,
                                                                     .request = to_json(noted),
                                                                     .phase = "planned",
                                                                     .is_exclusive = true}));
  auto begun = running_.begin(
      job.id, [job](Evacuation& evacuation) { return act(evacuation, job); }, environment_,
      std::move(request));
  if (!begun) co_return unexpected(co_await end_unbegun(environment_.jobs, job, std::move(begun).error()));
  co_return job;
}

void EvacuationService::cancel(const std::string& id) {
  running_.cancel(id);
}

Task<void> EvacuationService::stop() {
  return running_.stop([](Evacuation&) {});
}

}  // namespace diskferry
