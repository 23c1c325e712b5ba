// `diskferry evacuate VM`: asks the gateway of a host that lives to take over a machine whose host is gone,
// and follows that to its end.
#include "diskferry/image_uri.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/job_watch.hpp"
#include "gateway/cli/migrate_options.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/cli/output.hpp"
#include "gateway/move/evacuation_request.hpp"

#include <cerrno>
#include <fmt/format.h>
#include <fstream>
#include <iostream>

#include <CLI/App.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>

namespace diskferry::cli {
namespace json = boost::json;
namespace {

struct Options {
  EvacuationRequest request;
  std::string gateway;
  std::string definition;  ///< a file; "-": stdin
  bool from_record = false;
  std::vector<std::string> disks;
  std::vector<std::string> networks;
  bool define_only = false;
  bool dry_run = false;
  bool as_json = false;
  ProgressMode progress = ProgressMode::automatic;
};

Error wrong(std::string why, std::string remedy) {
  return fail(ErrorKind::invalid_argument, "evacuate").why(std::move(why)).remedy(std::move(remedy));
}

Result<std::string> read_definition(const std::string& path) {
  std::ifstream file;
  if (path != "-") file.open(path, std::ios::binary);
  std::istream& input = path == "-" ? std::cin : file;
  if (!input) return unexpected(errno_error(errno, "read the definition", printable(path)));
  std::string text(definition_bytes_max + 1, '\0');
  input.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(input.gcount()));
  if (text.empty()) return unexpected(wrong("the definition is empty", "give the machine's XML"));
  return text;
}

Result<EvacuationRequest> request_of(const Options& options) {
  EvacuationRequest request = options.request;
  if (options.definition.empty() == !options.from_record)
    return unexpected(wrong("where the machine's definition comes from is to be said",
                            "say --definition FILE.xml or --from-record"));
  if (!options.definition.empty()) {
    DISKFERRY_TRY(request.definition, read_definition(options.definition));
  }
  request.start = !options.define_only;
  for (const std::string& text : options.disks) {
    DISKFERRY_TRY(MoveDisk disk, parse_move_disk(text));
    request.disks.push_back(std::move(disk));
  }
  for (const std::string& text : options.networks) {
    DISKFERRY_TRY(const auto names, parse_network_names(text));
    request.networks[names.first] = names.second;
  }
  DISKFERRY_CHECK(check(request));
  return request;
}

Task<Result<std::string>> ask_for_plan(Invocation& invocation, std::string gateway,
                                       std::string request_json) {
  DISKFERRY_CO_TRY(auto client, co_await reach_gateway(invocation.runtime.context(), std::move(gateway)));
  co_return co_await client->plan_job({.kind = "evacuate", .request_json = std::move(request_json)});
}

struct Plan {
  std::string whole{};
  std::string text{};
  std::string difference{};
  bool is_refused = false;
};

Result<Plan> read_plan(std::string whole) {
  boost::system::error_code failed;
  const json::value value = json::parse(whole, failed);
  const json::object* object = failed ? nullptr : value.if_object();
  const json::value* preflight = object == nullptr ? nullptr : object->if_contains("preflight");
  const json::object* findings = preflight == nullptr ? nullptr : preflight->if_object();
  if (findings == nullptr)
    return unexpected(fail(ErrorKind::protocol, "evacuate").why("the gateway's answer is no plan"));
  const auto text_in = [&](std::string_view name) {
    const json::value* text = object->if_contains(name);
    return text != nullptr && text->is_string() ? std::string(text->get_string()) : std::string();
  };
  const json::value* blockers = findings->if_contains("blockers");
  const bool has_none = blockers != nullptr && blockers->is_int64() && blockers->get_int64() == 0;
  return Plan{.whole = std::move(whole),
              .text = text_in("text"),
              .difference = text_in("definition-diff"),
              .is_refused = !has_none};
}

Result<ExitCode> evacuate(Invocation& invocation, const Options& options) {
  DISKFERRY_TRY(const EvacuationRequest request, request_of(options));
  const std::string request_json = to_json(request);
  DISKFERRY_TRY(std::string answer,
                invocation.runtime.run_until_signal(ask_for_plan(invocation, options.gateway, request_json)));
  DISKFERRY_TRY(const Plan plan, read_plan(std::move(answer)));
  if (options.dry_run) {
    if (options.as_json) {
      print_api_json(invocation.out, plan.whole);
    } else {
      invocation.out << plan.text << plan.difference;
    }
    return plan.is_refused ? ExitCode::refused : ExitCode::done;
  }
  invocation.err << plan.text;
  if (plan.is_refused) {
    invocation.err << "diskferry: evacuate: refused; nothing was changed" << std::endl;
    return ExitCode::refused;
  }
  DISKFERRY_TRY(const auto begun, begin_job(invocation, options.gateway, "evacuate", request_json));
  DISKFERRY_TRY(const auto job, follow_or_cancel(invocation, options.gateway, begun.id, options.progress,
                                                 "diskferry: evacuate: cancelling " + begun.id));
  if (options.as_json) {
    print_api_json(invocation.out, job.report_json);
  } else {
    invocation.out << job.subject << ": " << job.status << " (" << job.phase << ")\n";
    for (const std::string& line : report_of(job)) invocation.out << "  " << line << "\n";
  }
  return outcome_of(job, "evacuate");
}

void declare_machine(CLI::App& app, Options& options) {
  EvacuationRequest& request = options.request;
  app.add_option("VM", request.machine, "the machine's name")->required()->type_name("");
  app.add_option("--definition", options.definition, "its XML, as a backup has it (virsh dumpxml); -: stdin")
      ->type_name("FILE");
  app.add_flag("--from-record", options.from_record,
               "its definition as this gateway noted it when it sent the machine away");
  app.add_option("--disk", options.disks, "a disk that is elsewhere now: vda=/replica/vm.qcow2; repeatable")
      ->type_name("DISK=PLACE")
      ->allow_extra_args(false);
  app.add_option("--network", options.networks, "what a network or bridge is called here: default=lan")
      ->type_name("THERE=HERE")
      ->allow_extra_args(false);
  app.add_option("--machine", request.machine_type, "machine type in place of its own: pc-q35-7.2")
      ->type_name("TYPE");
  app.add_option("--cpu", request.cpu, "CPU in place of its own: host-model, host-passthrough, or a model")
      ->type_name("CPU");
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  EvacuationRequest& request = options->request;
  add_gateway_option(app, options->gateway);
  declare_machine(app, *options);
  app.add_option(
         "--to", request.destination,
         "libvirt's URI of the host that takes it, as its gateway reaches it (default: the gateway's)")
      ->type_name("URI");
  app.add_option("--old-host", request.old_host, "the host that is gone")->type_name("HOST");
  app.add_option("--old-address", request.old_address, "where it would answer (default: its name)")
      ->type_name("ADDRESS");
  app.add_option("--old-libvirt", request.old_libvirt, "its libvirt, to be asked in any case")
      ->type_name("URI");
  app.add_option("--ask", request.ask, "libvirt's URI of another host that might run the machine; repeatable")
      ->type_name("URI")
      ->allow_extra_args(false);
  app.add_option("--i-have-fenced", request.i_have_fenced,
                 "you made sure that the old host is off and stays off: its name")
      ->type_name("HOST");
  app.add_flag("--define-only", options->define_only, "define the machine and do not start it");
  app.add_flag("--dry-run", options->dry_run, "show what speaks against it and how the definition changes");
  add_json_flag(app, options->as_json);
  add_progress_option(app, options->progress);
  return [options](Invocation& invocation) { return evacuate(invocation, *options); };
}

}  // namespace

extern const Command evacuate_command;
const Command evacuate_command{
    .name = "evacuate",
    .summary = "start a machine whose host is gone on this one, from storage that survived",
    .examples =
        "  diskferry evacuate web1 --definition web1.xml --old-host host-a --dry-run\n"
        "  diskferry evacuate web1 --definition web1.xml --old-host host-a --i-have-fenced host-a\n"
        "  diskferry evacuate db1 --from-record --disk vdb=/replica/db1-data.qcow2 --network default=lan",
    .declare = &declare};

}  // namespace diskferry::cli
