// `diskferry migrate DOMAIN --to URI`: asks the gateway of this host to move a machine, and follows the move
// to its end. An interruption cancels the move and waits until it is undone.
#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/job_watch.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/cli/output.hpp"
#include "gateway/move/request.hpp"

#include <fmt/format.h>
#include <optional>

#include <CLI/App.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>

namespace diskferry::cli {
namespace json = boost::json;
namespace {

struct Options {
  std::string gateway;
  MoveRequest request;
  std::vector<std::string> disks;
  std::vector<std::string> networks;
  bool no_verify = false;
  bool detach = false;
  bool as_json = false;
  ProgressMode progress = ProgressMode::automatic;
};

/// "vda=/images/vm.qcow2", "vdb=raw:/dev/vg/vm" (the format, where the name's ending does not say it).
Result<MoveDisk> parse_disk(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
    return unexpected(fail(ErrorKind::invalid_argument, "migrate")
                          .why(fmt::format("'{}' is no disk with its target", printable(text)))
                          .remedy("say --disk vda=/images/vm.qcow2"));
  MoveDisk disk{.target = text.substr(0, equals), .uri = text.substr(equals + 1)};
  for (const std::string_view format : {"raw", "qcow2"}) {
    if (!disk.uri.starts_with(std::string(format) + ":")) continue;
    disk.format = format;
    disk.uri.erase(0, format.size() + 1);
  }
  return disk;
}

Result<MoveRequest> request_of(const Options& options) {
  MoveRequest request = options.request;
  request.verify = !options.no_verify;
  for (const std::string& text : options.disks) {
    DISKFERRY_TRY(MoveDisk disk, parse_disk(text));
    request.disks.push_back(std::move(disk));
  }
  for (const std::string& text : options.networks) {
    const auto equals = text.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
      return unexpected(fail(ErrorKind::invalid_argument, "migrate")
                            .why(fmt::format("'{}' maps no network to another", printable(text)))
                            .remedy("say --network default=lan"));
    request.networks[text.substr(0, equals)] = text.substr(equals + 1);
  }
  DISKFERRY_CHECK(check(request));
  return request;
}

Task<Result<control::JobDescription>> begin(Invocation& invocation, std::string gateway,
                                            std::string request_json) {
  DISKFERRY_CO_TRY(auto client, co_await reach_gateway(invocation.runtime.context(), std::move(gateway)));
  co_return co_await client->create_job({.kind = "migrate", .request_json = std::move(request_json)});
}

Task<Result<control::JobDescription>> cancel(Invocation& invocation, std::string gateway, std::string job) {
  DISKFERRY_CO_TRY(auto client, co_await reach_gateway(invocation.runtime.context(), std::move(gateway)));
  co_return co_await client->act_on_job(std::move(job), control::JobAction::cancel);
}

std::uint64_t number(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_int64() && value->get_int64() > 0
             ? static_cast<std::uint64_t>(value->get_int64())
             : 0;
}

double milliseconds(const json::object& object, std::string_view name) {
  return static_cast<double>(number(object, name)) / 1000.0;
}

void print_disks(std::ostream& out, const json::object& report) {
  const json::value* disks = report.if_contains("disks");
  if (disks == nullptr || !disks->is_array()) return;
  for (const json::value& each : disks->get_array()) {
    if (!each.is_object()) continue;
    const json::object& disk = each.get_object();
    out << fmt::format("  {}: {} of {} sent, {} again, {} unchanged\n",
                       std::string(disk.at("disk").get_string()), format_bytes(number(disk, "sent-bytes")),
                       format_bytes(number(disk, "size-bytes")), format_bytes(number(disk, "resent-bytes")),
                       format_bytes(number(disk, "unchanged-bytes")));
  }
}

void print_list(std::ostream& out, const json::object& report, std::string_view name,
                std::string_view title) {
  const json::value* list = report.if_contains(name);
  if (list == nullptr || !list->is_array()) return;
  for (const json::value& each : list->get_array())
    if (each.is_string()) out << "  " << title << ": " << printable(std::string(each.get_string())) << "\n";
}

/// The report of a move for people.
void print_report(std::ostream& out, const control::JobDescription& job) {
  boost::system::error_code failed;
  const json::value value = json::parse(job.report_json, failed);
  if (failed || !value.is_object()) return;
  const json::object& report = value.get_object();
  print_disks(out, report);
  if (const json::value* pause = report.if_contains("pause"); pause != nullptr && pause->is_object()) {
    const json::object& parts = pause->get_object();
    out << fmt::format(
        "  guest stopped: {:.0f} ms (until the flush {:.1f}, disks durable {:.1f}, device state and resume "
        "{:.1f})\n",
        milliseconds(parts, "total-us"), milliseconds(parts, "until-flush-us"),
        milliseconds(parts, "drain-us"), milliseconds(parts, "device-state-us"));
  }
  print_list(out, report, "warnings", "warning");
  print_list(out, report, "leftovers", "left over");
}

Result<ExitCode> finish(Invocation& invocation, const Options& options, const control::JobDescription& job) {
  if (options.as_json) {
    print_api_json(invocation.out, job.report_json);
  } else {
    invocation.out << job.subject << ": " << job.status << " (" << job.phase << ")\n";
    print_report(invocation.out, job);
  }
  // Kept on purpose until it is released.
  if (job.status == "paused") return ExitCode::done;
  return outcome_of(job, "migrate");
}

Result<ExitCode> migrate(Invocation& invocation, const Options& options) {
  DISKFERRY_TRY(const MoveRequest request, request_of(options));
  DISKFERRY_TRY(const auto job,
                invocation.runtime.run_until_signal(begin(invocation, options.gateway, to_json(request))));
  if (options.detach) {
    invocation.out << job.id << std::endl;
    return ExitCode::done;
  }
  JobViewer viewer(invocation, options.progress);
  auto ended = invocation.runtime.run_until_signal(watch_job(invocation, options.gateway, job.id, viewer));
  if (!ended && ended.error().kind() == ErrorKind::cancelled) {
    viewer.finish();
    invocation.err << "diskferry: migrate: cancelling " << job.id << " and undoing it" << std::endl;
    DISKFERRY_CHECK(invocation.runtime.run(cancel(invocation, options.gateway, job.id)));
    ended = invocation.runtime.run_until_signal(watch_job(invocation, options.gateway, job.id, viewer));
  }
  viewer.finish();
  if (!ended) return unexpected(std::move(ended).error());
  return finish(invocation, options, *ended);
}

void declare_limits(CLI::App& app, Options& options) {
  MoveRequest& request = options.request;
  add_bytes(app, "--rate", request.bytes_per_s,
            "bytes a second at most, disks and memory together (default: no limit)");
  app.add_option("--max-pause", request.max_pause_ms,
                 "how long the guest may stand still, in milliseconds (default: 300)")
      ->type_name("MS");
  app.add_option("--timeout", request.timeout_s, "act when the move takes longer than that, in seconds")
      ->type_name("S");
  add_choice(app, "--timeout-action", request.timeout_action,
             {{"abort", TimeoutAction::abort},
              {"suspend", TimeoutAction::suspend},
              {"post-copy", TimeoutAction::post_copy}},
             "ACTION", "abort, suspend (the guest, until it is over) or post-copy (default: abort)");
  app.add_flag("--auto-converge", request.auto_converge,
               "let the hypervisor slow the guest down until its memory converges");
  app.add_flag("--post-copy", request.post_copy, "allow the memory to follow after the switchover");
  app.add_option("--parallel", request.parallel, "connections of the memory stream")->type_name("N");
  app.add_option("--compression", request.compression, "of the memory stream: xbzrle, mt, zlib, zstd")
      ->type_name("METHOD");
  app.add_flag("--memory-tls", request.memory_tls, "encrypt the memory stream, with libvirt's certificates");
  app.add_option("--memory-uri", request.memory_uri, "where the target's QEMU takes the memory: tcp://HOST")
      ->type_name("URI");
  app.add_option("--connections", request.connections, "to the target, for each disk")->type_name("N");
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  MoveRequest& request = options->request;
  add_gateway_option(app, options->gateway);
  app.add_option("DOMAIN", request.domain, "the machine")->required()->type_name("");
  app.add_option("--to", request.destination, "libvirt's URI of the other host: qemu+ssh://host-b/system")
      ->required()
      ->type_name("URI");
  app.add_option("--from", request.source, "libvirt's URI of this host (default: qemu:///system)")
      ->type_name("URI");
  app.add_option("--gateway-to", request.gateway, "the other host's gateway (default: https://HOST of --to)")
      ->type_name("URI");
  app.add_option("--disk", options->disks,
                 "where a disk goes: vda=/images/vm.qcow2, vdb=raw:/dev/vg/vm, vdc=nbd://store/vm; "
                 "for each disk")
      ->type_name("DISK=TARGET")
      ->allow_extra_args(false);
  app.add_option("--network", options->networks, "what a network or bridge is called there: default=lan")
      ->type_name("HERE=THERE")
      ->allow_extra_args(false);
  app.add_flag("--overwrite", request.overwrite, "targets that are there may be overwritten");
  declare_limits(app, *options);
  app.add_flag("--keep-partial", request.keep_partial,
               "after a failure keep what was copied; the next attempt sends the rest");
  app.add_flag("--keep-source", request.keep_source,
               "keep the machine defined here until 'diskferry commit JOB'");
  app.add_flag("--no-verify", options->no_verify, "do not read the targets back");
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
        "                   --disk vdb=nbd://store/db1-data --max-pause 500 --rate 100M",
    .declare = &declare};

}  // namespace diskferry::cli
