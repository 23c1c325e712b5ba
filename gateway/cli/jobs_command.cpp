// `diskferry jobs` and `diskferry status`: what a gateway is doing, and one job in full.
#include "diskferry/image_uri.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/output.hpp"
#include "gateway/control/json.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <CLI/App.hpp>

namespace diskferry::cli {
namespace {

struct Options {
  std::string gateway;
  std::string job;
  bool as_json = false;
  bool all = false;
};

void print_table(std::ostream& out, const std::vector<control::JobDescription>& jobs) {
  std::vector<std::vector<std::string>> rows{{"JOB", "KIND", "SUBJECT", "STATUS", "PHASE", "UPDATED"}};
  for (const auto& job : jobs)
    rows.push_back({job.id, job.kind, job.subject, job.status, job.phase, local_time(job.updated_ms)});
  std::vector<std::size_t> widths(rows.front().size());
  for (auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      row[i] = printable(row[i]);
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) line += fmt::format("{:<{}}  ", row[i], widths[i]);
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << "\n";
  }
}

Task<Result<void>> list_jobs(Invocation& invocation, const Options& options) {
  DISKFERRY_CO_TRY(auto gateway, co_await reach_gateway(invocation.runtime.context(), options.gateway));
  DISKFERRY_CO_TRY(const auto jobs, co_await gateway->jobs({.active_only = !options.all}));
  if (options.as_json) {
    print_api_json(invocation.out, control::to_json(jobs));
  } else if (jobs.empty()) {
    invocation.err << (options.all ? "there are no jobs" : "no job is active") << std::endl;
  } else {
    print_table(invocation.out, jobs);
  }
  co_return Result<void>{};
}

void print_gateway(std::ostream& out, const control::GatewayInfo& info, std::int64_t clock_difference_ms) {
  FieldList fields;
  fields.add("gateway", info.name);
  fields.add("version", info.version);
  fields.add("id", info.host_id);
  fields.add("features", fmt::format("{}", fmt::join(info.features, ", ")));
  fields.add("clock", fmt::format("{:+} ms from here", clock_difference_ms));
  for (const std::string& address : info.nbd_addresses) fields.add("nbd", address);
  fields.print(out);
}

Task<Result<void>> show_status(Invocation& invocation, const Options& options) {
  DISKFERRY_CO_TRY(auto gateway, co_await reach_gateway(invocation.runtime.context(), options.gateway));
  if (options.job.empty()) {
    if (options.as_json) {
      print_api_json(invocation.out, control::to_json(gateway->greeting()));
    } else {
      print_gateway(invocation.out, gateway->greeting(), gateway->clock_difference_ms());
    }
    co_return Result<void>{};
  }
  DISKFERRY_CO_TRY(const auto job, co_await gateway->job(options.job));
  if (options.as_json) {
    print_api_json(invocation.out, control::to_json(job));
  } else {
    print_job(invocation.out, job);
  }
  co_return Result<void>{};
}

CommandBody declare_jobs(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_gateway_option(app, options->gateway);
  app.add_flag("-a,--all", options->all, "also those that have ended");
  app.add_flag("--json", options->as_json, "print JSON");
  return [options](Invocation& invocation) -> Result<ExitCode> {
    DISKFERRY_CHECK(invocation.runtime.run_until_signal(list_jobs(invocation, *options)));
    return ExitCode::done;
  };
}

CommandBody declare_status(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_gateway_option(app, options->gateway);
  app.add_option("JOB", options->job, "of 'diskferry jobs'; without it: the gateway itself")->type_name("");
  app.add_flag("--json", options->as_json, "print JSON");
  return [options](Invocation& invocation) -> Result<ExitCode> {
    DISKFERRY_CHECK(invocation.runtime.run_until_signal(show_status(invocation, *options)));
    return ExitCode::done;
  };
}

}  // namespace

extern const Command jobs_command;
const Command jobs_command{.name = "jobs",
                           .summary = "list the jobs of a gateway",
                           .examples =
                               "  diskferry jobs\n"
                               "  diskferry jobs --all --json",
                           .declare = &declare_jobs};
extern const Command status_command;
const Command status_command{.name = "status",
                             .summary = "show a job, or a gateway",
                             .examples =
                                 "  diskferry status m-7k3f9q\n"
                                 "  diskferry status --gateway https://host-b",
                             .declare = &declare_status};

}  // namespace diskferry::cli
