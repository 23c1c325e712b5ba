// `diskferry plan copy`, `plan migrate` and `plan replace`: what a command would do and what stands in its
// way; changes nothing.
#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/cli/command.hpp"
#include "gateway/cli/copy_options.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/move_plan_view.hpp"
#include "gateway/cli/output.hpp"
#include "gateway/cli/replace_options.hpp"
#include "gateway/cli/replace_view.hpp"

#include <fmt/format.h>
#include <memory>
#include <ostream>

#include <CLI/App.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>

namespace diskferry::cli {
namespace json = boost::json;
namespace {

struct Options {
  CopyOptions copy;
  bool as_json = false;
  PlanMigrateOptions migrate;
  ReplaceOptions replace;
};

/// From the source's rate alone: a copy cannot be faster, and a slow target makes it slower.
std::optional<double> least_seconds(const CopyForecast& forecast) {
  if (!forecast.read_bytes_per_s) return std::nullopt;
  return static_cast<double>(forecast.totals.copy_bytes) / *forecast.read_bytes_per_s;
}

template <class T>
json::value or_null(const std::optional<T>& value) {
  return value ? json::value(*value) : json::value(nullptr);
}

json::array to_json(const std::vector<std::string>& texts) {
  json::array values;
  for (const std::string& text : texts) values.emplace_back(text);
  return values;
}

json::value to_json(const CopyForecast& forecast) {
  return {{"source-format", forecast.source_format},
          {"target-format", forecast.target_format},
          {"virtual-size", forecast.size_bytes},
          {"copy", forecast.totals.copy_bytes},
          {"zero", forecast.totals.zero_bytes},
          {"skip", forecast.totals.skip_bytes},
          {"leave", forecast.totals.leave_bytes},
          {"target-exists", forecast.target_exists},
          {"target-virtual-size", or_null(forecast.target_bytes)},
          {"space-available", or_null(forecast.space_available_bytes)},
          {"source-rate", or_null(forecast.read_bytes_per_s)},
          {"seconds-at-least", or_null(least_seconds(forecast))},
          {"warnings", to_json(forecast.warnings)},
          {"blockers", to_json(forecast.blockers)}};
}

void print_text(std::ostream& out, const CopyForecast& forecast) {
  FieldList fields;
  // Of a source that could not be opened nothing is known.
  if (!forecast.source_format.empty()) {
    fields.add("format", forecast.source_format + " to " + forecast.target_format);
    fields.add("size", bytes_for_people(forecast.size_bytes));
    fields.add("to copy", bytes_for_people(forecast.totals.copy_bytes));
    fields.add("to zero", bytes_for_people(forecast.totals.zero_bytes));
    fields.add("to skip", bytes_for_people(forecast.totals.skip_bytes));
  }
  fields.add("target", forecast.target_exists ? "exists" : "will be created");
  if (forecast.space_available_bytes) fields.add("space", bytes_for_people(*forecast.space_available_bytes));
  if (const auto seconds = least_seconds(forecast))
    fields.add("time", fmt::format("at least {:.1f} s (the source gives {}/s)", *seconds,
                                   format_bytes(static_cast<std::uint64_t>(*forecast.read_bytes_per_s))));
  fields.print(out);
  for (const std::string& warning : forecast.warnings) out << "warning: " << warning << "\n";
  for (const std::string& blocker : forecast.blockers) out << "blocker: " << blocker << "\n";
}

Result<ExitCode> run_plan(Invocation& invocation, const Options& options) {
  DISKFERRY_TRY(CopyRequest request, options.copy.request());
  DISKFERRY_TRY(const auto forecast, invocation.runtime.run_until_signal(
                                         forecast_copy(invocation.runtime.context(), std::move(request))));
  if (options.as_json) {
    print_json(invocation.out, to_json(forecast));
  } else {
    print_text(invocation.out, forecast);
  }
  return forecast.blockers.empty() ? ExitCode::done : ExitCode::refused;
}

/// A text list of a plan's document, a line each.
void print_lines(std::ostream& out, const json::object& plan, std::string_view name, std::string_view word) {
  const json::value* list = plan.if_contains(json::string_view(name.data(), name.size()));
  if (list == nullptr || !list->is_array()) return;
  for (const json::value& each : list->get_array())
    if (each.is_string()) out << word << ": " << printable(std::string(each.get_string())) << "\n";
}

Task<Result<std::string>> ask_for_replace_plan(Invocation& invocation, const Options& options) {
  DISKFERRY_CO_TRY(const ReplaceRequest request, options.replace.request());
  DISKFERRY_CO_TRY(auto gateway,
                   co_await reach_gateway(invocation.runtime.context(), options.replace.gateway));
  co_return co_await gateway->plan_job({.kind = "replace", .request_json = to_json(request)});
}

Result<ExitCode> plan_replace(Invocation& invocation, const Options& options) {
  DISKFERRY_TRY(const std::string answer,
                invocation.runtime.run_until_signal(ask_for_replace_plan(invocation, options)));
  boost::system::error_code failed;
  const json::value value = json::parse(answer, failed);
  const json::object* plan = failed ? nullptr : value.if_object();
  const json::value* blockers = plan == nullptr ? nullptr : plan->if_contains("blockers");
  if (blockers == nullptr || !blockers->is_array())
    return unexpected(fail(ErrorKind::protocol, "plan").why("the gateway's answer is no plan"));
  if (options.as_json) {
    print_api_json(invocation.out, answer);
  } else {
    for (const std::string& line : route_lines(*plan, "will be made")) invocation.out << line << "\n";
    print_lines(invocation.out, *plan, "warnings", "warning");
    print_lines(invocation.out, *plan, "blockers", "blocker");
    if (blockers->get_array().empty()) invocation.out << "nothing stands in its way\n";
  }
  return blockers->get_array().empty() ? ExitCode::done : ExitCode::refused;
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* copy = app.add_subcommand("copy", "what `diskferry copy` with these arguments would do");
  copy->set_help_flag("-h,--help", "print this help");
  CLI::App* migrate = app.add_subcommand("migrate", "what `diskferry migrate` with these arguments would do");
  migrate->set_help_flag("-h,--help", "print this help");
  CLI::App* replace = app.add_subcommand("replace", "what `diskferry replace` with these arguments would do");
  replace->set_help_flag("-h,--help", "print this help");
  add_replace_options(*replace, options->replace);
  add_json_flag(*replace, options->as_json);
  app.require_subcommand(1);
  add_copy_options(*copy, options->copy);
  add_json_flag(*copy, options->as_json);
  add_plan_migrate_options(*migrate, options->migrate);
  return [options, migrate, replace](Invocation& invocation) {
    if (replace->parsed()) return plan_replace(invocation, *options);
    return migrate->parsed() ? plan_migrate(invocation, options->migrate) : run_plan(invocation, *options);
  };
}

}  // namespace

extern const Command plan_command;
const Command plan_command{
    .name = "plan",
    .summary = "show what a command would do and what stands in its way; changes nothing",
    .examples =
        "  diskferry plan copy vm.qcow2 /srv/vm.raw\n"
        "  diskferry plan copy --json vm.qcow2 nbd://host/export\n"
        "  diskferry plan migrate web1 --to qemu+ssh://host-b/system --disk vda=/images/web1.qcow2 --predict "
        "5\n"
        "  diskferry plan replace vm1-root rbd://vms/vm1-root",
    .declare = &declare};

}  // namespace diskferry::cli
