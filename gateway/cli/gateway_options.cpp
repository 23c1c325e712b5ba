// See gateway_options.hpp.
#include "gateway/cli/gateway_options.hpp"

#include "gateway/cli/job_figures.hpp"
#include "gateway/cli/move_view.hpp"
#include "gateway/cli/output.hpp"
#include "gateway/cli/replace_view.hpp"

#include <cstdlib>
#include <ctime>
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <boost/json/parse.hpp>

namespace diskferry::cli {

void add_gateway_option(CLI::App& app, std::string& uri) {
  app.add_option(
         "--gateway", uri,
         "the gateway that is asked: unix:/path or https://HOST[:PORT] (default: $DISKFERRY_GATEWAY, else "
         "the one of this host)")
      ->type_name("URI")
      ->envname("DISKFERRY_GATEWAY");
}

Task<Result<std::unique_ptr<control::ControlClient>>> reach_gateway(DriverContext& context, std::string uri) {
  DISKFERRY_CO_TRY(const auto address, control::GatewayAddress::parse(uri));
  co_return co_await control::ControlClient::connect(context, address);
}

void print_api_json(std::ostream& out, const std::string& text) {
  boost::system::error_code error;
  const auto value = boost::json::parse(text, error);
  if (error) {
    out << text;
  } else {
    print_json(out, value);
  }
}

std::string local_time(std::int64_t time_ms) {
  if (time_ms == 0) return {};
  const std::time_t seconds = time_ms / 1000;
  std::tm parts{};
  ::localtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

std::vector<std::string> report_of(const control::JobDescription& job) {
  const auto report = object_of(job.report_json);
  return job.kind == "replace" ? report_lines(report) : move_report_lines(report);
}

void print_job(std::ostream& out, const control::JobDescription& job) {
  FieldList fields;
  fields.add("job", job.id);
  fields.add("kind", job.kind);
  fields.add("subject", job.subject);
  fields.add("status", job.status);
  fields.add("phase", job.phase);
  fields.add("error", job.error);
  fields.add("created", local_time(job.created_ms));
  fields.add("updated", local_time(job.updated_ms));
  const auto add_json = [&fields](std::string_view name, const std::string& text) {
    if (text != "{}" && !text.empty()) fields.add(name, text);
  };
  JobFigures figures;
  for (const std::string& line : figures.lines(object_of(job.progress_json), 0)) fields.add("disk", line);
  const auto state = object_of(job.state_json);
  const bool is_replacement = job.kind == "replace";
  const NamedLines told =
      is_replacement ? state_lines(state, object_of(job.request_json)) : move_state_lines(state);
  for (const auto& [name, text] : told) fields.add(name, text);
  if (told.empty()) add_json("state", job.state_json);
  const auto report = report_of(job);
  for (const std::string& line : report) fields.add("report", line);
  if (report.empty()) add_json("report", job.report_json);
  fields.print(out);
}

}  // namespace diskferry::cli
