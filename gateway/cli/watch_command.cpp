// `diskferry watch JOB`: follows a job to its end.
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/job_watch.hpp"
#include "gateway/cli/options.hpp"

#include <CLI/App.hpp>

namespace diskferry::cli {
namespace {

struct Options {
  std::string gateway;
  std::string job;
  ProgressMode progress = ProgressMode::automatic;
};

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_gateway_option(app, options->gateway);
  app.add_option("JOB", options->job, "of 'diskferry jobs'")->required()->type_name("");
  add_progress_option(app, options->progress);
  return [options](Invocation& invocation) -> Result<ExitCode> {
    JobViewer viewer(invocation, options->progress);
    const auto job =
        invocation.runtime.run_until_signal(watch_job(invocation, options->gateway, options->job, viewer));
    viewer.finish();
    if (!job) return unexpected(job.error());
    if (options->progress != ProgressMode::json && options->progress != ProgressMode::none) {
      for (const std::string& line : report_of(*job)) invocation.out << line << "\n";
    }
    return outcome_of(*job, "watch");
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
