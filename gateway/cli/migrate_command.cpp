// `diskferry migrate DOMAIN --to URI`: asks the gateway of this host to move a machine, and follows the move
// to its end. An interruption cancels the move and waits until it is undone.
#include "diskferry/image_uri.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/job_watch.hpp"
#include "gateway/cli/migrate_options.hpp"
#include "gateway/cli/move_plan_view.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/cli/output.hpp"
#include "gateway/control/json.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <CLI/App.hpp>

namespace diskferry::cli {
namespace {

struct Options {
  MigrateOptions migrate;
  bool detach = false;
  bool confirm = false;
  bool revert = false;
  bool as_json = false;
  ProgressMode progress = ProgressMode::automatic;
};

Result<ExitCode> finish(Invocation& invocation, const Options& options, const control::JobDescription& job) {
  if (options.as_json) {
    print_api_json(invocation.out, job.report_json);
  } else {
    invocation.out << job.subject << ": " << job.status << " (" << job.phase << ")\n";
    for (const std::string& line : report_of(job)) invocation.out << "  " << line << "\n";
  }
  // Kept on purpose until it is released.
  if (job.status == "paused") return ExitCode::done;
  return outcome_of(job, "migrate");
}

/// The machine's move whose source is kept. Errors: not_found.
Task<Result<std::string>> kept_move(control::GatewayApi& gateway, std::string machine) {
  DISKFERRY_CO_TRY(const auto jobs, co_await gateway.jobs({.active_only = true}));
  const auto found = std::ranges::find_if(jobs, [&](const control::JobDescription& job) {
    return job.kind == "migrate" && job.subject == machine && job.status == "paused";
  });
  if (found != jobs.end()) co_return found->id;
  co_return unexpected(
      fail(ErrorKind::not_found, "find the move of", printable(machine))
          .why("no move of it has kept its source")
          .remedy("see diskferry jobs --all; only what moved with --keep-source waits for this"));
}

/// Of a machine that moved with --keep-source: lets the source go, or takes the machine back.
Task<Result<void>> end_kept(Invocation& invocation, const Options& options) {
  DISKFERRY_CO_TRY(auto gateway,
                   co_await reach_gateway(invocation.runtime.context(), options.migrate.gateway));
  DISKFERRY_CO_TRY(std::string job, co_await kept_move(*gateway, options.migrate.move.domain));
  const auto action = options.confirm ? control::JobAction::commit : control::JobAction::fallback;
  DISKFERRY_CO_TRY(const auto ended, co_await gateway->act_on_job(std::move(job), action));
  if (options.as_json)
    print_api_json(invocation.out, control::to_json(ended));
  else
    invocation.out << ended.subject << ": " << ended.status << " (" << ended.phase << ")\n";
  co_return Result<void>{};
}

Result<ExitCode> migrate(Invocation& invocation, const Options& options) {
  if (options.confirm || options.revert) {
    DISKFERRY_CHECK(invocation.runtime.run_until_signal(end_kept(invocation, options)));
    return ExitCode::done;
  }
  DISKFERRY_TRY(const MoveRequest request, options.migrate.request());
  DISKFERRY_TRY(const bool is_refused, show_findings(invocation, options.migrate.gateway, request));
  if (is_refused) return ExitCode::refused;
  DISKFERRY_TRY(const auto job, begin_job(invocation, options.migrate.gateway, "migrate", to_json(request)));
  if (options.detach) {
    invocation.out << job.id << std::endl;
    return ExitCode::done;
  }
  DISKFERRY_TRY(const auto ended,
                follow_or_cancel(invocation, options.migrate.gateway, job.id, options.progress,
                                 "diskferry: migrate: cancelling " + job.id + " and undoing it"));
  return finish(invocation, options, ended);
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_migrate_options(app, options->migrate);
  auto* to = app.get_option("--to")->required(false);
  auto* confirm = app.add_flag("--confirm", options->confirm,
                               "of a machine that moved with --keep-source: let go of it here for good");
  auto* revert = app.add_flag("--revert", options->revert,
                              "of a machine that moved with --cold --keep-source: take it back");
  confirm->excludes(to)->excludes(revert);
  revert->excludes(to);
  app.add_flag("--detach", options->detach, "print the job's name and do not wait");
  add_json_flag(app, options->as_json);
  add_progress_option(app, options->progress);
  return [options](Invocation& invocation) -> Result<ExitCode> { return migrate(invocation, *options); };
}

}  // namespace

extern const Command migrate_command;
const Command migrate_command{
    .name = "migrate",
    .summary = "move a running machine and its disks to another host",
    .examples =
        "  diskferry migrate web1 --to qemu+ssh://host-b/system --disk vda=/images/web1.qcow2\n"
        "  diskferry migrate db1 --to qemu+tls://host-b/system --disk vda=/images/db1.raw \\\n"
        "                   --disk vdb=nbd://store/db1-data --max-pause 500 --rate 100M\n"
        "  diskferry migrate web1 --to qemu+ssh://host-b/system --disk vda=/images/web1.raw --cold "
        "--keep-source\n"
        "  diskferry migrate web1 --confirm     # or --revert\n"
        "  diskferry migrate qmp:/run/qemu/vm.qmp --to qmp://host-b/run/qemu/vm.qmp --overwrite \\\n"
        "                   --disk vda=/images/vm.raw --memory-uri tcp://host-b:4444",
    .declare = &declare};

}  // namespace diskferry::cli
