// Values of one room as those of another, and one stream made of what the store has and what the bus brings.
#include "gateway/daemon/local_jobs.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/move_plan.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry::daemon {
namespace {

constexpr std::size_t events_at_once = 256;

/// As the API spells it.
std::string status_word(JobStatus status) {
  return status == JobStatus::rolled_back ? "rolled-back" : std::string(to_string(status));
}

control::JobDescription describe(const JobRecord& job, const EventBus& bus) {
  const auto progress = bus.last_progress(job.id);
  return {.id = job.id,
          .kind = job.kind,
          .subject = job.subject,
          .phase = job.phase,
          .status = status_word(job.status),
          .error = job.error,
          .created_ms = job.created_ms,
          .updated_ms = job.updated_ms,
          .request_json = job.request,
          .state_json = job.state.empty() ? "{}" : job.state,
          .report_json = job.report.empty() ? "{}" : job.report,
          .progress_json = progress ? progress->text : "{}"};
}

control::JobEvent describe(const JobEvent& event) {
  return {.job = event.job,
          .sequence = event.sequence,
          .time_ms = event.time_ms,
          .kind = event.kind,
          .body_json = event.text};
}

/// First what the store has, then what comes. Ends with the job where it is about one.
class Events final : public control::EventSource {
 public:
  Events(JobStore& store, EventSubscription subscription, control::EventFilter filter)
      : store_(store), subscription_(std::move(subscription)), filter_(std::move(filter)) {}

  Task<Result<Batch>> next(Duration wait) override {
    if (!filter_.job.empty() && !has_read_store_) {
      DISKFERRY_CO_TRY(const auto stored, co_await store_.events(filter_.job, filter_.after, events_at_once));
      if (!stored.empty()) co_return note(stored);
      has_read_store_ = true;
      DISKFERRY_CO_TRY(const JobRecord job, co_await store_.load(filter_.job));
      if (is_final(job.status)) co_return Batch{.ended = true};
    }
    auto received = co_await subscription_.next(wait);
    if (!received && received.error().kind() == ErrorKind::timed_out) co_return Batch{};
    if (!received && received.error().kind() == ErrorKind::gone) co_return Batch{.ended = true};
    if (!received) co_return unexpected(std::move(received).error());
    // What was in the store already, and came by the bus meanwhile.
    if (received->event.sequence != 0 && received->event.sequence <= filter_.after) co_return Batch{};
    co_return note({std::move(received->event)});
  }

 private:
  Batch note(const std::vector<JobEvent>& events) {
    Batch batch;
    for (const JobEvent& event : events) {
      if (event.sequence != 0 && !filter_.job.empty()) filter_.after = event.sequence;
      if (!filter_.job.empty() && event.kind == end_event) batch.ended = true;
      batch.events.push_back(describe(event));
    }
    return batch;
  }

  JobStore& store_;
  EventSubscription subscription_;
  control::EventFilter filter_;
  bool has_read_store_ = false;
};

Error cannot(std::string what) {
  return fail(ErrorKind::unsupported, "change the job").why(std::move(what));
}

}  // namespace

Task<Result<std::vector<control::JobDescription>>> LocalJobs::jobs(control::JobFilter filter) {
  DISKFERRY_CO_TRY(const auto found,
                   co_await store_.list({.active_only = filter.active_only, .limit = filter.jobs_max}));
  std::vector<control::JobDescription> all;
  for (const JobRecord& job : found) all.push_back(describe(job, bus_));
  co_return all;
}

Task<Result<control::JobDescription>> LocalJobs::job(std::string id) {
  DISKFERRY_CO_TRY(const JobRecord job, co_await store_.load(std::move(id)));
  co_return describe(job, bus_);
}

Task<Result<std::map<std::string, std::uint64_t>>> LocalJobs::counts() {
  DISKFERRY_CO_TRY(const auto found, co_await store_.counts());
  std::map<std::string, std::uint64_t> counts;
  // Also those that none has, so that a series begins with 0.
  for (const JobStatus status : {JobStatus::queued, JobStatus::running, JobStatus::paused, JobStatus::done,
                                 JobStatus::failed, JobStatus::cancelled, JobStatus::rolled_back}) {
    const auto one = found.find(status);
    counts[status_word(status)] = one == found.end() ? 0 : one->second;
  }
  co_return counts;
}

namespace {
Result<void> check_kind(const std::string& kind) {
  if (kind == migrate_kind || kind == evacuate_kind || kind == replace_kind) return {};
  return unexpected(fail(ErrorKind::unsupported, "begin a job", printable(kind))
                        .why("there are no jobs of this kind here")
                        .remedy("a job's kind is 'migrate', 'replace' or 'evacuate'"));
}
}  // namespace

Task<Result<std::string>> LocalJobs::plan_job(control::JobRequest request) {
  DISKFERRY_CO_CHECK(check_kind(request.kind));
  if (request.kind == evacuate_kind) {
    DISKFERRY_CO_TRY(const EvacuationPlan plan, co_await evacuations_.plan(std::move(request.request_json)));
    co_return to_json(plan);
  }
  if (request.kind == replace_kind) {
    DISKFERRY_CO_TRY(const ReplacePlan plan, co_await replacements_.plan(std::move(request.request_json)));
    co_return to_json(plan);
  }
  DISKFERRY_CO_TRY(
      const MovePlan plan,
      co_await moves_.plan(std::move(request.request_json),
                           static_cast<unsigned>(std::min<std::uint64_t>(request.watch_seconds, 60))));
  co_return to_json(plan);
}

Task<Result<control::JobDescription>> LocalJobs::create_job(control::JobRequest request) {
  DISKFERRY_CO_CHECK(check_kind(request.kind));
  if (request.kind == evacuate_kind) {
    DISKFERRY_CO_TRY(const JobRecord job, co_await evacuations_.begin(std::move(request.request_json)));
    co_return describe(job, bus_);
  }
  if (request.kind == replace_kind) {
    DISKFERRY_CO_TRY(const JobRecord job, co_await replacements_.begin(std::move(request.request_json)));
    co_return describe(job, bus_);
  }
  DISKFERRY_CO_TRY(const JobRecord job, co_await moves_.begin(std::move(request.request_json)));
  co_return describe(job, bus_);
}

Task<Result<control::JobDescription>> LocalJobs::act_on_replacement(std::string id,
                                                                    control::JobAction action) {
  switch (action) {
    case control::JobAction::cancel:
      DISKFERRY_CO_CHECK(co_await replacements_.cancel(id));
      break;
    case control::JobAction::commit:
      DISKFERRY_CO_CHECK(co_await replacements_.commit(id));
      break;
    case control::JobAction::pause:
      DISKFERRY_CO_CHECK(co_await replacements_.pause(id));
      break;
    case control::JobAction::resume:
      DISKFERRY_CO_CHECK(co_await replacements_.resume(id));
      break;
    case control::JobAction::fallback:
      DISKFERRY_CO_CHECK(co_await replacements_.fall_back(id));
      break;
  }
  co_return co_await job(std::move(id));
}

Task<Result<control::JobDescription>> LocalJobs::act_on_evacuation(std::string id,
                                                                   control::JobAction action) {
  if (action != control::JobAction::cancel)
    co_return unexpected(cannot("an evacuation can only be cancelled, or asked for again"));
  evacuations_.cancel(id);
  co_return co_await job(std::move(id));
}

Task<Result<control::JobDescription>> LocalJobs::act_on_job(std::string id, control::JobAction action) {
  DISKFERRY_CO_TRY(const JobRecord known, co_await store_.load(id));
  if (known.kind == evacuate_kind) co_return co_await act_on_evacuation(std::move(id), action);
  if (known.kind == replace_kind) co_return co_await act_on_replacement(std::move(id), action);
  switch (action) {
    case control::JobAction::cancel:
      DISKFERRY_CO_CHECK(co_await moves_.cancel(id));
      break;
    case control::JobAction::commit:
      DISKFERRY_CO_CHECK(co_await moves_.release(id));
      break;
    case control::JobAction::resume:
      DISKFERRY_CO_CHECK(co_await moves_.take_up(id));
      break;
    case control::JobAction::pause:
      co_return unexpected(cannot("a move between hosts cannot be paused; cancel it, or set its rate"));
    case control::JobAction::fallback:
      DISKFERRY_CO_CHECK(co_await moves_.revert(id));
      break;
  }
  co_return co_await job(std::move(id));
}

Task<Result<control::JobDescription>> LocalJobs::set_job(std::string id, control::JobSettings settings) {
  if (settings.window_bytes || settings.connections)
    co_return unexpected(cannot("window and connections of a job that runs cannot be changed"));
  DISKFERRY_CO_TRY(const JobRecord known, co_await store_.load(id));
  if (known.kind == replace_kind) {
    DISKFERRY_CO_CHECK(replacements_.set(id, {.bytes_per_s = settings.rate_bytes_per_s,
                                              .max_pause_ms = settings.max_pause_ms,
                                              .max_write_latency_ms = settings.max_write_latency_ms,
                                              .deadline_s = settings.deadline_s,
                                              .on_read_error = settings.on_read_error}));
    co_return co_await job(std::move(id));
  }
  if (settings.max_write_latency_ms || settings.deadline_s || settings.on_read_error)
    co_return unexpected(cannot("of a move that runs, only the rate and the longest pause can be changed"));
  if (settings.rate_bytes_per_s) DISKFERRY_CO_CHECK(moves_.set_bytes_per_s(id, *settings.rate_bytes_per_s));
  if (settings.max_pause_ms) DISKFERRY_CO_CHECK(moves_.set_max_pause_ms(id, *settings.max_pause_ms));
  co_return co_await job(std::move(id));
}

Task<Result<std::unique_ptr<control::EventSource>>> LocalJobs::events(control::EventFilter filter) {
  // Before the store is read, so that nothing falls between the two.
  DISKFERRY_CO_TRY(auto subscription, bus_.subscribe(filter.job));
  if (!filter.job.empty()) DISKFERRY_CO_CHECK(co_await store_.load(filter.job));
  co_return std::make_unique<Events>(store_, std::move(subscription), std::move(filter));
}

}  // namespace diskferry::daemon
