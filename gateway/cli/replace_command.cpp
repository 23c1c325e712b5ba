// `diskferry replace EXPORT TARGET`: asks a gateway to move the storage behind an export while clients use
// it, and follows that to its end. An interruption cancels it; the old storage stays in charge.
#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/job_watch.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/cli/output.hpp"
#include "gateway/cli/replace_options.hpp"
#include "gateway/control/json.hpp"
#include "gateway/move/replace_request.hpp"

#include <fmt/format.h>

#include <CLI/App.hpp>

namespace diskferry::cli {
namespace {

struct Options {
  ReplaceOptions replace;
  bool detach = false;
  bool as_json = false;
  ProgressMode progress = ProgressMode::automatic;
};

void print_report(std::ostream& out, const control::JobDescription& job) {
  for (const std::string& line : report_lines(object_of(job.report_json))) out << "  " << line << "\n";
}

Result<ExitCode> replace(Invocation& invocation, const Options& options) {
  DISKFERRY_TRY(const ReplaceRequest request, options.replace.request());
  DISKFERRY_TRY(const auto begun,
                begin_job(invocation, options.replace.gateway, "replace", to_json(request)));
  if (options.detach) {
    invocation.out << begun.id << std::endl;
    return ExitCode::done;
  }
  DISKFERRY_TRY(const auto job,
                follow_or_cancel(invocation, options.replace.gateway, begun.id, options.progress,
                                 "diskferry: replace: cancelling " + begun.id));
  if (options.as_json) {
    print_api_json(invocation.out, job.report_json);
  } else {
    invocation.out << job.subject << ": " << job.status << " (" << job.phase << ")\n";
    print_report(invocation.out, job);
  }
  return outcome_of(job, "replace");
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_replace_options(app, options->replace);
  app.add_flag("--detach", options->detach, "print the job's name and do not wait");
  add_json_flag(app, options->as_json);
  add_progress_option(app, options->progress);
  return [options](Invocation& invocation) { return replace(invocation, *options); };
}

}  // namespace

extern const Command replace_command;
const Command replace_command{
    .name = "replace",
    .summary = "move the storage behind an export of the gateway while clients write to it",
    .examples =
        "  diskferry replace vm1-root rbd://vms/vm1-root\n"
        "  diskferry replace db1 nfs://store/vms/db1.raw db1-log nfs://store/vms/db1-log.raw --max-pause 50\n"
        "  diskferry replace vm1-root /fast/vm1.raw --retain 3600 --rate 200M --detach\n"
        "  diskferry replace web1:vda rbd://vms/web1\n"
        "  diskferry replace web1:vda /fast/web1.raw --rehome",
    .declare = &declare};

}  // namespace diskferry::cli
