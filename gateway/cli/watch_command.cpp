// `diskferry watch JOB`: follows a job to its end. A gateway that is lost on the way is asked again, and the
// events go on where they stopped.
#include "diskferry/image_uri.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/cli/output.hpp"
#include "gateway/control/json.hpp"

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <boost/json/parse.hpp>

namespace diskferry::cli {
namespace json = boost::json;
namespace {

/// For so long a gateway that is away is asked again, a restart being the usual reason.
constexpr Duration away_max = std::chrono::seconds(60);
constexpr Duration ask_again_after = std::chrono::seconds(1);
/// How long one call waits for events; only the spacing of checks for an interruption.
constexpr Duration listen_time = std::chrono::seconds(10);

struct Options {
  std::string gateway;
  std::string job;
  ProgressMode progress = ProgressMode::automatic;
};

std::uint64_t number_in(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(json::string_view(name.data(), name.size()));
  boost::system::error_code error;
  const auto number = value == nullptr ? 0 : value->to_number<std::uint64_t>(error);
  return error ? 0 : number;
}
std::string text_in(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(json::string_view(name.data(), name.size()));
  return value != nullptr && value->is_string() ? std::string(value->as_string()) : std::string();
}

/// Shows events as they come. JSON goes to stdout as it came; of people's form, what happened goes to stdout
/// and the line that is rewritten to stderr.
class Viewer {
 public:
  Viewer(Invocation& invocation, ProgressMode mode)
      : out_(invocation.out),
        is_json_(mode == ProgressMode::json),
        bar_(is_json_ ? ProgressMode::none : mode, invocation.runtime.context().clock,
             ProgressOutput::standard_error()) {}

  void show(const control::JobEvent& event) {
    if (is_json_) {
      out_ << control::to_json(event) << std::endl;
      return;
    }
    boost::system::error_code error;
    const json::value body = json::parse(event.body_json, error);
    const json::object* fields = error ? nullptr : body.if_object();
    if (fields == nullptr) return;
    if (event.kind == "progress") {
      bar_.update({.subject = text_in(*fields, "subject"),
                   .phase = text_in(*fields, "phase"),
                   .bytes_done = number_in(*fields, "done"),
                   .bytes_total = number_in(*fields, "total")});
      return;
    }
    const std::string text = text_in(*fields, event.kind == "phase" ? "phase" : "text");
    out_ << local_time(event.time_ms) << "  " << printable(event.kind) << "  "
         << printable(text.empty() ? event.body_json : text) << std::endl;
  }
  void finish() { bar_.finish(); }

 private:
  std::ostream& out_;
  const bool is_json_;
  ProgressReporter bar_;
};

/// Follows one stream; true at the job's end. `after` moves on with each event.
Task<Result<bool>> follow(Invocation& invocation, const Options& options, Viewer& viewer,
                          std::uint64_t& after) {
  DISKFERRY_CO_TRY(auto gateway, co_await reach_gateway(invocation.runtime.context(), options.gateway));
  DISKFERRY_CO_TRY(auto events, co_await gateway->events({.job = options.job, .after = after}));
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
Task<Result<void>> follow_to_end(Invocation& invocation, const Options& options, Viewer& viewer) {
  Clock& clock = invocation.runtime.context().clock;
  std::uint64_t after = 0;
  bool was_there = false;
  TimePoint away_since = clock.now();
  while (true) {
    const std::uint64_t before = after;
    const auto ended = co_await follow(invocation, options, viewer, after);
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

Task<Result<control::JobDescription>> watch(Invocation& invocation, const Options& options, Viewer& viewer) {
  DISKFERRY_CO_CHECK(co_await follow_to_end(invocation, options, viewer));
  DISKFERRY_CO_TRY(auto gateway, co_await reach_gateway(invocation.runtime.context(), options.gateway));
  co_return co_await gateway->job(options.job);
}

/// What the job's end is for the exit code.
Result<ExitCode> outcome(const control::JobDescription& job) {
  if (job.status == "done") return ExitCode::done;
  const bool is_cancelled = job.status == "cancelled" || job.status == "rolled-back";
  return unexpected(fail(is_cancelled ? ErrorKind::cancelled : ErrorKind::io, "watch", printable(job.id))
                        .why(job.error.empty() ? "the job ended as " + job.status : job.error));
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_gateway_option(app, options->gateway);
  app.add_option("JOB", options->job, "of 'diskferry jobs'")->required()->type_name("");
  add_progress_option(app, options->progress);
  return [options](Invocation& invocation) -> Result<ExitCode> {
    Viewer viewer(invocation, options->progress);
    const auto job = invocation.runtime.run_until_signal(watch(invocation, *options, viewer));
    viewer.finish();
    if (!job) return unexpected(job.error());
    return outcome(*job);
  };
}

}  // namespace

extern const Command watch_command;
const Command watch_command{.name = "watch",
                            .summary = "follow a job to its end",
                            .examples =
                                "  diskferry watch m-7k3f9q\n"
                                "  diskferry watch --progress json m-7k3f9q",
                            .declare = &declare};

}  // namespace diskferry::cli
