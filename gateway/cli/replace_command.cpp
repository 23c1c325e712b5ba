// `diskferry replace EXPORT TARGET`: asks a gateway to move the storage behind an export while clients use
// it, and follows that to its end. An interruption cancels it; the old storage stays in charge.
#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/job_watch.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/cli/output.hpp"
#include "gateway/control/json.hpp"
#include "gateway/move/replace_request.hpp"

#include <filesystem>
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Option.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>

namespace diskferry::cli {
namespace json = boost::json;
namespace {

struct Options {
  std::string gateway;
  std::vector<std::string> pairs;
  std::string format;
  ReplaceRequest request;
  std::optional<std::uint64_t> rate;
  bool detach = false;
  bool as_json = false;
  ProgressMode progress = ProgressMode::automatic;
};

Result<ReplaceRequest> request_of(const Options& options) {
  ReplaceRequest request = options.request;
  if (options.pairs.size() % 2 != 0)
    return unexpected(fail(ErrorKind::invalid_argument, "replace")
                          .why("each export needs a target")
                          .remedy("say diskferry replace EXPORT TARGET, and further pairs after that"));
  for (std::size_t i = 0; i < options.pairs.size(); i += 2) {
    DISKFERRY_TRY(const ImageUri target, ImageUri::parse(options.pairs[i + 1]));
    // The gateway's folder is another one than ours.
    request.disks.push_back(
        {.name = options.pairs[i],
         .uri = target.is_file() ? std::filesystem::absolute(target.path()).string() : options.pairs[i + 1],
         .format = options.format});
  }
  request.bytes_per_s = options.rate.value_or(0);
  DISKFERRY_CHECK(check(request));
  return request;
}

double milliseconds(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(json::string_view(name.data(), name.size()));
  return value != nullptr && value->is_int64() ? static_cast<double>(value->get_int64()) / 1000.0 : 0;
}

void print_report(std::ostream& out, const control::JobDescription& job) {
  boost::system::error_code failed;
  const json::value value = json::parse(job.report_json, failed);
  const json::object* report = failed ? nullptr : value.if_object();
  if (report == nullptr) return;
  if (const json::value* hold = report->if_contains("hold"); hold != nullptr && hold->is_object()) {
    const json::object& parts = hold->get_object();
    out << fmt::format(
        "  writes held: {:.1f} ms (copied {:.1f}, durable {:.1f}, recorded {:.1f}, switched {:.1f})\n",
        milliseconds(parts, "total-us"), milliseconds(parts, "drain-us"), milliseconds(parts, "flush-us"),
        milliseconds(parts, "record-us"), milliseconds(parts, "switch-us"));
  }
  print_texts(out, *report, "warnings", "warning");
  print_texts(out, *report, "leftovers", "left over");
}

Result<ExitCode> replace(Invocation& invocation, const Options& options) {
  DISKFERRY_TRY(const ReplaceRequest request, request_of(options));
  DISKFERRY_TRY(const auto begun, begin_job(invocation, options.gateway, "replace", to_json(request)));
  if (options.detach) {
    invocation.out << begun.id << std::endl;
    return ExitCode::done;
  }
  DISKFERRY_TRY(const auto job, follow_or_cancel(invocation, options.gateway, begun.id, options.progress,
                                                 "diskferry: replace: cancelling " + begun.id));
  if (options.as_json) {
    print_api_json(invocation.out, job.report_json);
  } else {
    invocation.out << job.subject << ": " << job.status << " (" << job.phase << ")\n";
    print_report(invocation.out, job);
  }
  return outcome_of(job, "replace");
}

void declare_limits(CLI::App& app, Options& options) {
  ReplaceRequest& request = options.request;
  app.add_option_function<std::string>(
         "--rate",
         [&options](const std::string& text) {
           const auto parsed = parse_bytes(text);
           if (!parsed) throw CLI::ValidationError("--rate", parsed.error().message());
           options.rate = *parsed;
         },
         "bytes a second towards the targets, all together")
      ->type_name("BYTES");
  app.add_option("--max-pause", request.max_pause_ms, "milliseconds that guests' writes may be held (100)")
      ->type_name("MS");
  app.add_option("--max-write-latency", request.max_write_latency_ms,
                 "milliseconds that a guest's write may wait for the target (10)")
      ->type_name("MS");
  app.add_option("--connections", request.connections, "connections to the target, each disk")
      ->type_name("N")
      ->check(CLI::Range(1, 16));
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  ReplaceRequest& request = options->request;
  add_gateway_option(app, options->gateway);
  app.add_option("EXPORT TARGET", options->pairs,
                 "an export of the gateway, and where its storage goes; further pairs")
      ->required()
      ->type_name("");
  app.add_option("-O,--target-format", options->format, "raw or qcow2 (default: by the target's name)")
      ->type_name("FORMAT");
  app.add_flag("--overwrite", request.overwrite, "use a target that is there already");
  declare_limits(app, *options);
  app.add_flag("--commit-by-hand", request.commit_by_hand,
               "stay in step until 'diskferry commit JOB', instead of changing places at once");
  app.add_option("--retain", request.retain_s,
                 "keep the old storage in step for so many seconds, for 'diskferry fallback JOB'")
      ->type_name("SECONDS");
  app.add_flag("--remove-source", request.remove_source, "remove the old storage when it is let go");
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
        "  diskferry replace vm1-root /fast/vm1.raw --retain 3600 --rate 200M --detach",
    .declare = &declare};

}  // namespace diskferry::cli
