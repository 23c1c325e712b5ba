// See job_watch.hpp.
#include "gateway/cli/job_watch.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/replace_view.hpp"
#include "gateway/control/json.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/json/parse.hpp>

namespace diskferry::cli {
namespace json = boost::json;
namespace {

/// For so long a gateway that is away is asked again, a restart being the usual reason.
constexpr Duration away_max = std::chrono::seconds(60);
constexpr Duration ask_again_after = std::chrono::seconds(1);
/// How long one call waits for events; only the spacing of checks for an interruption.
constexpr Duration listen_time = std::chrono::seconds(10);

struct Watched {
  std::string gateway;
  std::string job;
};

}  // namespace

JobViewer::JobViewer(Invocation& invocation, ProgressMode mode)
    : out_(invocation.out),
      is_json_(mode == ProgressMode::json),
      is_silent_(mode == ProgressMode::none),
      bar_(is_json_ ? ProgressMode::none : mode, invocation.runtime.context().clock,
           ProgressOutput::standard_error()) {}

void JobViewer::show(const control::JobEvent& event) {
  if (is_silent_) return;
  if (is_json_) {
    out_ << control::to_json(event) << std::endl;
    return;
  }
  boost::system::error_code error;
  const json::value body = json::parse(event.body_json, error);
  const json::object* fields = error ? nullptr : body.if_object();
  if (fields == nullptr) return;
  if (event.kind == "progress") {
    bar_.set_details(figures_.lines(*fields, event.time_ms));
    bar_.update({.subject = text_in(*fields, "subject"),
                 .phase = text_in(*fields, "phase"),
                 .bytes_done = number_in(*fields, "done"),
                 .bytes_total = number_in(*fields, "total")});
    return;
  }
  bar_.clear();
  const bool has_phase = event.kind == "phase" || event.kind == "end";
  const std::string text = text_in(*fields, has_phase ? "phase" : "text");
  out_ << local_time(event.time_ms) << "  " << printable(event.kind) << "  "
       << printable(text.empty() ? event.body_json : text) << std::endl;
}

namespace {

/// Follows one stream; true at the job's end. `after` moves on with each event.
Task<Result<bool>> follow(Invocation& invocation, const Watched& watched, JobViewer& viewer,
                          std::uint64_t& after) {
  DISKFERRY_CO_TRY(auto gateway, co_await reach_gateway(invocation.runtime.context(), watched.gateway));
  DISKFERRY_CO_TRY(auto events, co_await gateway->events({.job = watched.job, .after = after}));
  while (true) {
    DISKFERRY_CO_TRY(const auto batch, co_await events->next(listen_time));
    for (const control::JobEvent& event : batch.events) {
      viewer.show(event);
      after = std::max(after, event.sequence);
    }
    if (batch.ended) co_return true;
  }
}

/// Errors: not_found at once; gone when the gateway was away for too long.
Task<Result<void>> follow_to_end(Invocation& invocation, const Watched& watched, JobViewer& viewer) {
  Clock& clock = invocation.runtime.context().clock;
  std::uint64_t after = 0;
  bool was_there = false;
  TimePoint away_since = clock.now();
  while (true) {
    const std::uint64_t before = after;
    const auto ended = co_await follow(invocation, watched, viewer, after);
    if (ended) co_return Result<void>{};
    if (after != before) {
      was_there = true;
      away_since = clock.now();
    }
    const ErrorKind kind = ended.error().kind();
    const bool may_come_back = kind == ErrorKind::gone || kind == ErrorKind::timed_out ||
                               (kind == ErrorKind::not_found && was_there);
    if (!may_come_back || !was_there || clock.now() - away_since > away_max)
      co_return unexpected(ended.error());
    DISKFERRY_CO_CHECK(co_await clock.sleep_for(ask_again_after));
  }
}

}  // namespace

Task<Result<control::JobDescription>> watch_job(Invocation& invocation, std::string gateway, std::string job,
                                                JobViewer& viewer) {
  const Watched watched{.gateway = std::move(gateway), .job = std::move(job)};
  DISKFERRY_CO_CHECK(co_await follow_to_end(invocation, watched, viewer));
  DISKFERRY_CO_TRY(auto client, co_await reach_gateway(invocation.runtime.context(), watched.gateway));
  co_return co_await client->job(watched.job);
}

namespace {

Task<Result<control::JobDescription>> begin(Invocation& invocation, std::string gateway, std::string kind,
                                            std::string request_json) {
  DISKFERRY_CO_TRY(auto client, co_await reach_gateway(invocation.runtime.context(), std::move(gateway)));
  co_return co_await client->create_job({.kind = std::move(kind), .request_json = std::move(request_json)});
}

Task<Result<control::JobDescription>> cancel(Invocation& invocation, std::string gateway, std::string job) {
  DISKFERRY_CO_TRY(auto client, co_await reach_gateway(invocation.runtime.context(), std::move(gateway)));
  co_return co_await client->act_on_job(std::move(job), control::JobAction::cancel);
}

}  // namespace

Result<control::JobDescription> begin_job(Invocation& invocation, const std::string& gateway,
                                          std::string kind, std::string request_json) {
  return invocation.runtime.run_until_signal(
      begin(invocation, gateway, std::move(kind), std::move(request_json)));
}

Result<control::JobDescription> follow_or_cancel(Invocation& invocation, const std::string& gateway,
                                                 const std::string& job, ProgressMode mode,
                                                 std::string_view cancelling) {
  JobViewer viewer(invocation, mode);
  auto ended = invocation.runtime.run_until_signal(watch_job(invocation, gateway, job, viewer));
  if (!ended && ended.error().kind() == ErrorKind::cancelled) {
    viewer.finish();
    invocation.err << cancelling << std::endl;
    DISKFERRY_CHECK(invocation.runtime.run(cancel(invocation, gateway, job)));
    ended = invocation.runtime.run_until_signal(watch_job(invocation, gateway, job, viewer));
  }
  viewer.finish();
  return ended;
}

Result<ExitCode> outcome_of(const control::JobDescription& job, std::string_view command) {
  if (job.status == "done") return ExitCode::done;
  ErrorKind kind = ErrorKind::io;
  if (job.status == "cancelled" || job.status == "rolled-back") kind = ErrorKind::cancelled;
  // As one that is refused before there is a job.
  if (job.kind == "replace" && job.status == "rolled-back" && was_refused(object_of(job.state_json)))
    kind = ErrorKind::unsupported;
  return unexpected(fail(kind, std::string(command), printable(job.id))
                        .why(job.error.empty() ? "the job ended as " + job.status : job.error));
}

}  // namespace diskferry::cli
