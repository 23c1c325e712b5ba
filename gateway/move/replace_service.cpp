#include "gateway/move/replace_service.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/support/wall_clock.hpp"
#include "gateway/move/adoption.hpp"
#include "gateway/move/adoption_plan.hpp"
#include "gateway/move/through_choice.hpp"

#include <algorithm>

#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
Error has_ended(const std::string& id) {
  return fail(ErrorKind::in_use, "change the replacement", id)
      .why("it has ended")
      .remedy("diskferry status " + id + " tells how; to move the storage again, begin another one");
}
}  // namespace

ReplaceService::ReplaceService(ReplaceEnvironment environment, JobStore& jobs)
    : environment_(std::move(environment)),
      jobs_(jobs),
      running_(environment_.drivers, "begin a replacement", "replacements") {}

std::unique_ptr<ReplaceJob> ReplaceService::make(JobRecord job) {
  const auto request = parse_replace_request(job.request);
  if (request && is_adoption(*request)) return std::make_unique<Adoption>(environment_, std::move(job));
  return std::make_unique<Replacement>(environment_, std::move(job));
}

Task<Result<void>> ReplaceService::act(ReplaceJob& replacement, std::string id) {
  auto ended = co_await replacement.run();
  if (!ended) spdlog::warn("replacement {}: {}", id, ended.error().message());
  co_return ended;
}

/// What cannot be taken up is left to an operator, who can have it tried again.
Task<bool> ReplaceService::take_up_one(ReplaceJob& replacement, JobRecord job) {
  const auto taken = co_await replacement.take_up();
  if (taken) co_return true;
  spdlog::error("replacement {} of {}: {}", job.id, job.subject, taken.error().message());
  co_await replacement.leave_to_next();
  if (auto leased = co_await jobs_.take_lease(job.id, environment_.controller, std::chrono::hours(1)))
    (void)co_await jobs_.update(job.id, leased->generation,
                                {.status = JobStatus::paused, .error = taken.error().message()});
  co_return false;
}

Task<Result<void>> ReplaceService::take_up() {
  DISKFERRY_CO_TRY(const auto jobs, co_await jobs_.list({.active_only = true, .limit = JobLimits::list_max}));
  for (const JobRecord& job : jobs) {
    if (job.kind != replace_kind) continue;
    spdlog::info("replacement {} of {}: taken up at {}", job.id, job.subject, job.phase);
    auto replacement = make(job);
    if (co_await take_up_one(*replacement, job)) taken_up_.emplace_back(job.id, std::move(replacement));
  }
  co_return Result<void>{};
}

Result<void> ReplaceService::launch(std::string id, std::unique_ptr<ReplaceJob> replacement) {
  return running_.begin(
      id, [id](std::unique_ptr<ReplaceJob>& taken) { return act(*taken, id); }, std::move(replacement));
}

Task<Result<void>> ReplaceService::start() {
  for (auto& [id, replacement] : std::exchange(taken_up_, {})) {
    if (running_.is_full()) {
      spdlog::error("replacement {}: too many run; say resume when one of them has ended", id);
      co_await replacement->leave_to_next();
      continue;
    }
    DISKFERRY_CO_CHECK(launch(id, std::move(replacement)));
  }
  co_return Result<void>{};
}

/// Two jobs that write to one storage would each believe what they know of it; and a disk that leaves its
/// export is not to be moved behind it.
Task<Result<void>> ReplaceService::refuse_shared_targets(ReplaceRequest request) {
  DISKFERRY_CO_TRY(const auto jobs, co_await jobs_.list({.active_only = true, .limit = JobLimits::list_max}));
  for (const JobRecord& job : jobs) {
    if (job.kind != replace_kind) continue;
    const auto other = parse_replace_request(job.request);
    const auto state = parse_replace_state(job.state.empty() ? "{}" : job.state);
    for (const ReplaceDisk& disk : request.disks) {
      const bool is_target =
          other && std::ranges::find(other->disks, disk.uri, &ReplaceDisk::uri) != other->disks.end();
      const bool is_source =
          state && std::ranges::find(state->disks, disk.uri, &ReplaceDiskState::source) != state->disks.end();
      const bool is_moved =
          other && (request.rehome || other->rehome) &&
          std::ranges::find(other->disks, disk.name, &ReplaceDisk::name) != other->disks.end();
      if (is_moved)
        co_return unexpected(fail(ErrorKind::in_use, "replace", printable(disk.name))
                                 .why("the job " + job.id + " moves it")
                                 .remedy("wait for that job, or cancel it"));
      if (is_target || is_source)
        co_return unexpected(fail(ErrorKind::in_use, "replace", printable(disk.uri))
                                 .why("the job " + job.id + " uses it")
                                 .remedy("wait for that job, or cancel it"));
    }
  }
  co_return Result<void>{};
}

Task<Result<ReplacePlan>> ReplaceService::plan(std::string request_json) {
  DISKFERRY_CO_TRY(ReplaceRequest request, parse_replace_request(request_json));
  DISKFERRY_CO_CHECK(check_time(request, now_ms()));
  DISKFERRY_CO_TRY(request, co_await find_machine_disks(environment_, std::move(request)));
  if (is_adoption(request)) co_return co_await plan_adoption(environment_, std::move(request));
  co_return co_await plan_replacement(environment_, std::move(request));
}

/// The other host opens what such an export was on when its machine began to go there.
Task<Result<void>> ReplaceService::refuse_moving_exports(ReplaceRequest request, std::string for_move) {
  for (const ReplaceDisk& disk : request.disks) {
    DISKFERRY_CO_TRY(const std::string job, co_await job_taking_over(jobs_, disk.name, for_move));
    if (!job.empty())
      co_return unexpected(
          fail(ErrorKind::in_use, "replace", printable(disk.name))
              .why("its machine is moving to another host (" + job + ")")
              .remedy("wait for that job, or cancel it; if it has failed, have it settled with "
                      "diskferry resume " +
                      job));
  }
  co_return Result<void>{};
}

Task<Result<JobRecord>> ReplaceService::begin(std::string request_json, std::string for_move) {
  DISKFERRY_CO_TRY(ReplaceRequest request, parse_replace_request(request_json));
  DISKFERRY_CO_CHECK(check_time(request, now_ms()));
  co_await running_.reap();
  DISKFERRY_CO_TRY(request, co_await find_machine_disks(environment_, std::move(request)));
  DISKFERRY_CO_CHECK(co_await refuse_shared_targets(request));
  DISKFERRY_CO_CHECK(co_await refuse_moving_exports(request, std::move(for_move)));
  DISKFERRY_CO_TRY(JobRecord job, co_await jobs_.create({.kind = std::string(replace_kind),
                                                         .subject = subject_of(request),
                                                         .request = to_json(request),
                                                         .phase = std::string(to_string(Phase::planned)),
                                                         .is_exclusive = true}));
  auto begun = launch(job.id, make(job));
  if (!begun) co_return unexpected(co_await end_unbegun(jobs_, job, std::move(begun).error()));
  co_return job;
}

Result<void> ReplaceService::with(const std::string& id, void (*tell)(ReplaceJob&)) {
  if (running_.with(id, [tell](std::unique_ptr<ReplaceJob>& one) { tell(*one); })) return {};
  return unexpected(fail(ErrorKind::not_found, "change the replacement", id)
                        .why("it does not run")
                        .remedy("diskferry status " + id +
                                " tells how it stands; where it is paused, say diskferry resume " + id +
                                " first"));
}

Result<void> ReplaceService::accepts(const std::string& id, ReplaceJob::Wish wish) const {
  Result<void> accepted;
  running_.with(id, [&](const std::unique_ptr<ReplaceJob>& one) { accepted = one->accepts(wish); });
  return accepted;
}

/// Errors: in_use where it has ended, and is neither the one nor the other any more.
Task<Result<bool>> ReplaceService::is_committed(std::string id) {
  DISKFERRY_CO_TRY(const JobRecord job, co_await jobs_.load(id));
  if (is_final(job.status)) co_return unexpected(has_ended(id));
  const auto phase = phase_named(job.phase);
  co_return phase && *phase >= Phase::committed && *phase < Phase::aborting;
}

Task<Result<void>> ReplaceService::cancel(std::string id) {
  DISKFERRY_CO_TRY(const bool is_over, co_await is_committed(id));
  if (is_over)
    co_return unexpected(fail(ErrorKind::in_use, "cancel", id)
                             .why("the new storage is in charge already")
                             .remedy("say fallback to come back, or commit to let the old storage go"));
  if (const auto running = co_await have_running(id); !running) {
    if (running.error().kind() != ErrorKind::mismatch) co_return running;
    co_return co_await give_up(id);
  }
  DISKFERRY_CO_CHECK(with(id, [](ReplaceJob& one) { one.cancel(); }));
  running_.cancel(id);
  co_return Result<void>{};
}

/// Of a job that has not committed and cannot be taken up: it is over, and what it made is left to people.
Task<Result<void>> ReplaceService::give_up(std::string id) {
  DISKFERRY_CO_TRY(const JobRecord job,
                   co_await jobs_.take_lease(id, environment_.controller, std::chrono::hours(1)));
  const auto note = [&](Phase phase, std::optional<JobStatus> status) {
    return jobs_.update(
        id, job.generation,
        {.status = status,
         .phase = std::string(to_string(phase)),
         .error = "cancelled while it could not be taken up; its targets are left as they are: " + job.error,
         .event = NewJobEvent{.kind = std::string(status ? end_event : phase_event),
                              .text = R"({"text":"cancelled"})"}});
  };
  DISKFERRY_CO_CHECK(co_await note(Phase::aborting, std::nullopt));
  DISKFERRY_CO_CHECK(co_await note(Phase::aborted, JobStatus::cancelled));
  co_return Result<void>{};
}

Task<Result<void>> ReplaceService::commit(std::string id) {
  co_return with(id, [](ReplaceJob& one) { one.commit_now(); });
}

Task<Result<void>> ReplaceService::fall_back(std::string id) {
  DISKFERRY_CO_CHECK(accepts(id, ReplaceJob::Wish::fall_back));
  DISKFERRY_CO_TRY(const bool can_be, co_await is_committed(id));
  if (!can_be)
    co_return unexpected(fail(ErrorKind::in_use, "fall back", id)
                             .why("the old storage is in charge")
                             .remedy("say cancel to end the replacement"));
  co_return with(id, [](ReplaceJob& one) { one.fall_back(); });
}

Task<Result<void>> ReplaceService::pause(std::string id) {
  DISKFERRY_CO_CHECK(accepts(id, ReplaceJob::Wish::pause));
  co_return with(id, [](ReplaceJob& one) { one.pause(); });
}

/// One that could not be taken up when the gateway was started is taken up now.
Task<Result<void>> ReplaceService::have_running(std::string id) {
  DISKFERRY_CO_TRY(const auto one_at_a_time, co_await taking_up_.lock());
  co_await running_.reap();
  if (running_.has(id)) co_return Result<void>{};
  DISKFERRY_CO_TRY(const JobRecord job, co_await jobs_.load(id));
  if (job.kind != replace_kind || is_final(job.status)) co_return unexpected(has_ended(id));
  auto replacement = make(job);
  if (!co_await take_up_one(*replacement, job))
    co_return unexpected(fail(ErrorKind::mismatch, "go on with the replacement", id)
                             .why("it cannot be taken up yet")
                             .remedy("diskferry status " + id + " tells why"));
  co_return launch(id, std::move(replacement));
}

Task<Result<void>> ReplaceService::resume(std::string id) {
  DISKFERRY_CO_CHECK(co_await have_running(id));
  co_return with(id, [](ReplaceJob& one) { one.resume(); });
}

Result<void> ReplaceService::set(const std::string& id, const ReplaceSettings& settings) {
  Result<void> set;
  if (running_.with(id, [&](std::unique_ptr<ReplaceJob>& one) { set = one->set(settings); })) return set;
  return with(id, [](ReplaceJob&) {});
}

Task<void> ReplaceService::stop() {
  for (auto& [id, replacement] : std::exchange(taken_up_, {})) co_await replacement->leave_to_next();
  co_await running_.stop([](std::unique_ptr<ReplaceJob>& one) { one->gateway_stops(); });
}

}  // namespace diskferry
