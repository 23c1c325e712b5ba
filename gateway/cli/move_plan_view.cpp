// See move_plan_view.hpp.
#include "gateway/cli/move_plan_view.hpp"

#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/options.hpp"

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>

namespace diskferry::cli {
namespace json = boost::json;
namespace {

constexpr unsigned predict_seconds_max = 60;

Task<Result<std::string>> ask(Invocation& invocation, std::string gateway, MoveRequest request,
                              unsigned watch_seconds) {
  DISKFERRY_CO_TRY(auto client, co_await reach_gateway(invocation.runtime.context(), std::move(gateway)));
  co_return co_await client->plan_job(
      {.kind = "migrate", .request_json = to_json(request), .watch_seconds = watch_seconds});
}

Result<json::object> ask_for_plan(Invocation& invocation, const std::string& gateway,
                                  const MoveRequest& request, unsigned watch_seconds, std::string& text) {
  DISKFERRY_TRY(text, invocation.runtime.run_until_signal(ask(invocation, gateway, request, watch_seconds)));
  boost::system::error_code failed;
  json::value value = json::parse(text, failed);
  if (failed || !value.is_object())
    return unexpected(fail(ErrorKind::protocol, "plan").why("the gateway's answer is no JSON object"));
  return std::move(value.get_object());
}

std::string text_in(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

std::int64_t count_in(const json::object& plan, std::string_view name) {
  const json::value* findings = plan.if_contains("preflight");
  if (findings == nullptr || !findings->is_object()) return 0;
  const json::value* count = findings->get_object().if_contains(name);
  return count != nullptr && count->is_int64() ? count->get_int64() : 0;
}

void print_disks(std::ostream& out, const json::object& plan) {
  const json::value* disks = plan.if_contains("disks");
  if (disks == nullptr || !disks->is_array()) return;
  for (const json::value& each : disks->get_array()) {
    if (!each.is_object()) continue;
    const json::object& disk = each.get_object();
    const json::value* size = disk.if_contains("size-bytes");
    const auto bytes =
        size != nullptr && size->is_int64() ? static_cast<std::uint64_t>(size->get_int64()) : 0;
    const std::string route = text_in(disk, "route");
    const std::string place = route == "shared" ? "stays" : "-> " + printable(text_in(disk, "target"));
    out << fmt::format("{}: {} {} ({}, {}, {}: {})\n", printable(text_in(disk, "disk")),
                       printable(text_in(disk, "source")), place, text_in(disk, "format"),
                       format_bytes(bytes), route, printable(text_in(disk, "reason")));
  }
}

}  // namespace

Result<bool> show_findings(Invocation& invocation, const std::string& gateway, const MoveRequest& request) {
  std::string text;
  DISKFERRY_TRY(const json::object plan, ask_for_plan(invocation, gateway, request, 0, text));
  const bool is_refused = count_in(plan, "blockers") > 0;
  if (is_refused || count_in(plan, "warnings") > 0) invocation.err << text_in(plan, "text");
  if (is_refused) invocation.err << "diskferry: migrate: refused; nothing was changed" << std::endl;
  return is_refused;
}

void add_plan_migrate_options(CLI::App& app, PlanMigrateOptions& options) {
  add_migrate_options(app, options.migrate);
  app.add_flag("--dry-run", options.dry_run, "show how the machine's definition will differ there");
  app.add_option("--predict", options.predict_seconds,
                 "watch the running machine for so many seconds and predict time and pause")
      ->type_name("S")
      ->check(CLI::Range(1u, predict_seconds_max));
  add_json_flag(app, options.as_json);
}

Result<ExitCode> plan_migrate(Invocation& invocation, const PlanMigrateOptions& options) {
  DISKFERRY_TRY(const MoveRequest request, options.migrate.request());
  std::string text;
  DISKFERRY_TRY(const json::object plan,
                ask_for_plan(invocation, options.migrate.gateway, request, options.predict_seconds, text));
  if (options.as_json) {
    print_api_json(invocation.out, text);
  } else {
    invocation.out << "way: " << text_in(plan, "way") << " (" << text_in(plan, "reason") << ")\n";
    if (const std::string name = text_in(plan, "gateway"); !name.empty()) {
      const std::string certificate = text_in(plan, "gateway-certificate");
      invocation.out << "gateway there: " << printable(name)
                     << (certificate.empty() ? ", without a certificate"
                                             : ", by its certificate " + printable(certificate))
                     << "\n";
    }
    print_disks(invocation.out, plan);
    invocation.out << text_in(plan, "text") << text_in(plan, "prediction-text");
    if (options.dry_run) invocation.out << text_in(plan, "definition-diff");
  }
  return count_in(plan, "blockers") > 0 ? ExitCode::refused : ExitCode::done;
}

}  // namespace diskferry::cli
