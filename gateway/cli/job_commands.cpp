// `diskferry pause|resume|cancel|commit|fallback|set JOB`: what may be done to a job while it runs.
#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/control/json.hpp"

#include <fmt/format.h>

#include <CLI/App.hpp>

namespace diskferry::cli {
namespace {

struct Options {
  std::string gateway;
  std::string job;
  bool as_json = false;
  std::optional<std::uint64_t> rate;
  std::optional<std::uint64_t> max_pause_ms;
  std::optional<std::uint64_t> max_write_latency_ms;
  std::optional<std::uint64_t> deadline_s;
  std::optional<std::string> on_read_error;
};

/// The job does it in its own time: what is known of it now may be from before that.
void print_outcome(Invocation& invocation, const Options& options, const control::JobDescription& job,
                   std::string_view told) {
  if (options.as_json) {
    print_api_json(invocation.out, control::to_json(job));
  } else {
    invocation.out << fmt::format("{}: {}; it was {} ({})\n", printable(job.id), told, printable(job.status),
                                  printable(job.phase));
  }
}

Task<Result<void>> act(Invocation& invocation, const Options& options, control::JobAction action) {
  DISKFERRY_CO_TRY(auto gateway, co_await reach_gateway(invocation.runtime.context(), options.gateway));
  DISKFERRY_CO_TRY(const auto job, co_await gateway->act_on_job(options.job, action));
  print_outcome(invocation, options, job, fmt::format("told to {}", to_string(action)));
  co_return Result<void>{};
}

Task<Result<void>> change(Invocation& invocation, const Options& options, control::JobSettings settings) {
  DISKFERRY_CO_TRY(auto gateway, co_await reach_gateway(invocation.runtime.context(), options.gateway));
  DISKFERRY_CO_TRY(const auto job, co_await gateway->set_job(options.job, settings));
  print_outcome(invocation, options, job, "limits set");
  co_return Result<void>{};
}

Result<control::JobSettings> settings_of(const Options& options) {
  control::JobSettings settings{.rate_bytes_per_s = options.rate,
                                .max_pause_ms = options.max_pause_ms,
                                .max_write_latency_ms = options.max_write_latency_ms,
                                .deadline_s = options.deadline_s,
                                .on_read_error = options.on_read_error};
  if (control::to_json(settings) == control::to_json(control::JobSettings{}))
    return unexpected(
        fail(ErrorKind::invalid_argument, "set")
            .why("nothing is to be changed")
            .remedy("say --rate, --max-pause, --max-write-latency, --deadline or --on-read-error"));
  return settings;
}

std::shared_ptr<Options> declare_common(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_gateway_option(app, options->gateway);
  app.add_option("JOB", options->job, "of 'diskferry jobs'")->required()->type_name("");
  app.add_flag("--json", options->as_json, "print JSON");
  return options;
}

template <control::JobAction action>
CommandBody declare_action(CLI::App& app) {
  auto options = declare_common(app);
  return [options](Invocation& invocation) -> Result<ExitCode> {
    DISKFERRY_CHECK(invocation.runtime.run_until_signal(act(invocation, *options, action)));
    return ExitCode::done;
  };
}

void add_optional_bytes(CLI::App& app, const std::string& name, std::optional<std::uint64_t>& value,
                        const std::string& help) {
  app.add_option_function<std::string>(
         name,
         [&value, name](const std::string& text) {
           const auto parsed = parse_bytes(text);
           if (!parsed) throw CLI::ValidationError(name, parsed.error().message());
           value = *parsed;
         },
         help)
      ->type_name("BYTES");
}

CommandBody declare_set(CLI::App& app) {
  auto options = declare_common(app);
  add_optional_bytes(app, "--rate", options->rate, "bytes a second at most; 0: no limit");
  add_milliseconds(
      app, "--max-pause", [options](std::uint64_t ms) { options->max_pause_ms = ms; },
      "longest pause of the guest at the switchover, such as 300ms");
  add_milliseconds(
      app, "--max-write-latency", [options](std::uint64_t ms) { options->max_write_latency_ms = ms; },
      "what a write may wait for the target of a replacement, such as 10ms");
  app.add_option("--deadline", options->deadline_s,
                 "have a replacement in step within so many seconds from now; 0: no deadline")
      ->type_name("SECONDS");
  app.add_option("--on-read-error", options->on_read_error,
                 "where the old storage cannot be read: stop, skip or abort")
      ->type_name("WHAT");
  return [options](Invocation& invocation) -> Result<ExitCode> {
    DISKFERRY_TRY(const auto settings, settings_of(*options));
    DISKFERRY_CHECK(invocation.runtime.run_until_signal(change(invocation, *options, settings)));
    return ExitCode::done;
  };
}

}  // namespace

using control::JobAction;

extern const Command pause_command;
const Command pause_command{.name = "pause",
                            .summary = "let a job rest; what it has moved is kept",
                            .examples = "  diskferry pause m-7k3f9q",
                            .declare = &declare_action<JobAction::pause>};
extern const Command resume_command;
const Command resume_command{.name = "resume",
                             .summary = "let a job go on that was paused or interrupted",
                             .examples = "  diskferry resume m-7k3f9q",
                             .declare = &declare_action<JobAction::resume>};
extern const Command cancel_command;
const Command cancel_command{.name = "cancel",
                             .summary = "end a job; the source stays in charge",
                             .examples = "  diskferry cancel m-7k3f9q",
                             .declare = &declare_action<JobAction::cancel>};
extern const Command commit_command;
const Command commit_command{.name = "commit",
                             .summary = "switch a job over to its target, or let go of its source for good",
                             .examples = "  diskferry commit m-7k3f9q",
                             .declare = &declare_action<JobAction::commit>};
extern const Command fallback_command;
const Command fallback_command{.name = "fallback",
                               .summary = "bring a job that was switched over back to its source",
                               .examples = "  diskferry fallback m-7k3f9q",
                               .declare = &declare_action<JobAction::fallback>};
extern const Command set_command;
const Command set_command{
    .name = "set",
    .summary = "change limits of a job while it runs",
    .examples =
        "  diskferry set m-7k3f9q --rate 50M\n"
        "  diskferry set m-7k3f9q --max-pause 300ms --max-write-latency 5ms --deadline 600",
    .declare = &declare_set};

}  // namespace diskferry::cli
