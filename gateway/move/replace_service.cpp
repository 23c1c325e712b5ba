#include "gateway/move/replace_service.hpp"

#include <spdlog/spdlog.h>

namespace diskferry {

ReplaceService::ReplaceService(ReplaceEnvironment environment)
    : environment_(std::move(environment)),
      running_(environment_.drivers, "begin a replacement", "replacements") {}

Task<Result<void>> ReplaceService::act(Replacement& replacement, std::string id) {
  auto ended = co_await replacement.run();
  if (!ended) spdlog::warn("replacement {}: {}", id, ended.error().message());
  co_return ended;
}

Task<Result<void>> ReplaceService::take_up() {
  DISKFERRY_CO_TRY(const auto jobs,
                   co_await environment_.jobs.list({.active_only = true, .limit = JobLimits::list_max}));
  for (const JobRecord& job : jobs) {
    if (job.kind != replace_kind) continue;
    spdlog::info("replacement {} of {}: taken up at {}", job.id, job.subject, job.phase);
    auto replacement = std::make_unique<Replacement>(environment_, job);
    if (auto taken = co_await replacement->take_up(); !taken)
      spdlog::error("replacement {} of {}: {}", job.id, job.subject, taken.error().message());
    taken_up_.emplace_back(job.id, std::move(replacement));
  }
  co_return Result<void>{};
}

Task<Result<void>> ReplaceService::start() {
  for (auto& [id, replacement] : std::exchange(taken_up_, {}))
    DISKFERRY_CO_CHECK(running_.begin(
        id, [id](std::unique_ptr<Replacement>& taken) { return act(*taken, id); }, std::move(replacement)));
  co_return Result<void>{};
}

Task<Result<ReplacePlan>> ReplaceService::plan(std::string request_json) {
  DISKFERRY_CO_TRY(ReplaceRequest request, parse_replace_request(request_json));
  co_return co_await plan_replacement(environment_, std::move(request));
}

Task<Result<JobRecord>> ReplaceService::begin(std::string request_json) {
  DISKFERRY_CO_TRY(const ReplaceRequest request, parse_replace_request(request_json));
  co_await running_.reap();
  DISKFERRY_CO_TRY(JobRecord job,
                   co_await environment_.jobs.create({.kind = std::string(replace_kind),
                                                      .subject = subject_of(request),
                                                      .request = to_json(request),
                                                      .phase = std::string(to_string(Phase::planned)),
                                                      .is_exclusive = true}));
  const std::string id = job.id;
  auto begun = running_.begin(
      id, [id](std::unique_ptr<Replacement>& made) { return act(*made, id); },
      std::make_unique<Replacement>(environment_, job));
  if (!begun) co_return unexpected(co_await end_unbegun(environment_.jobs, job, std::move(begun).error()));
  co_return job;
}

Result<void> ReplaceService::with(const std::string& id, void (*tell)(Replacement&)) {
  if (running_.with(id, [tell](std::unique_ptr<Replacement>& one) { tell(*one); })) return {};
  return unexpected(fail(ErrorKind::not_found, "change the replacement", id).why("no such replacement runs"));
}

Result<void> ReplaceService::cancel(const std::string& id) {
  DISKFERRY_CHECK(with(id, [](Replacement&) {}));
  running_.cancel(id);
  return {};
}
Result<void> ReplaceService::commit(const std::string& id) {
  return with(id, [](Replacement& one) { one.commit_now(); });
}
Result<void> ReplaceService::fall_back(const std::string& id) {
  return with(id, [](Replacement& one) { one.fall_back(); });
}
Result<void> ReplaceService::pause(const std::string& id) {
  return with(id, [](Replacement& one) { one.pause(); });
}
Result<void> ReplaceService::resume(const std::string& id) {
  return with(id, [](Replacement& one) { one.resume(); });
}

Result<void> ReplaceService::set_bytes_per_s(const std::string& id, std::uint64_t bytes_per_s) {
  if (running_.with(id, [=](std::unique_ptr<Replacement>& one) { one->set_bytes_per_s(bytes_per_s); }))
    return {};
  return with(id, [](Replacement&) {});
}
Result<void> ReplaceService::set_max_pause_ms(const std::string& id, std::uint64_t ms) {
  if (running_.with(id, [=](std::unique_ptr<Replacement>& one) { one->set_max_pause_ms(ms); })) return {};
  return with(id, [](Replacement&) {});
}

Task<void> ReplaceService::stop() {
  return running_.stop([](std::unique_ptr<Replacement>& one) { one->gateway_stops(); });
}

}  // namespace diskferry
