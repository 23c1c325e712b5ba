// Connects to whom it can, asks, judges, and rewrites the definition for show.
#include "gateway/move/move_plan.hpp"

#include "gateway/move/move_disks.hpp"
#include "gateway/move/preflight_collect.hpp"
#include "gateway/move/preflight_report.hpp"
#include "gateway/move/qmp_preflight.hpp"
#include "gateway/move/qmp_request.hpp"
#include "gateway/move/through_choice.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

namespace diskferry {
namespace json = boost::json;

std::string to_json(const MovePlan& plan) {
  json::array disks;
  for (const MoveDiskState& disk : plan.disks)
    disks.push_back({{"disk", disk.target},
                     {"source", disk.source},
                     {"target", disk.uri},
                     {"format", disk.format},
                     {"route", to_string(disk.route)},
                     {"reason", disk.reason},
                     {"size-bytes", disk.size_bytes}});
  json::object object{{"way", plan.way},
                      {"reason", plan.reason},
                      {"disks", std::move(disks)},
                      {"preflight", to_json(plan.findings)},
                      {"text", to_text(plan.findings)},
                      {"gateway", plan.gateway_name},
                      {"gateway-certificate", plan.gateway_certificate_name},
                      {"definition-diff", plan.definition_diff}};
  if (plan.prediction) {
    object["prediction"] = to_json(*plan.prediction);
    object["prediction-text"] = to_text(*plan.prediction);
  }
  return json::serialize(object);
}

namespace {

struct Connections {
  std::unique_ptr<Libvirt> source{};
  std::unique_ptr<Libvirt> target{};
  std::unique_ptr<TargetGateway> gateway{};
};

Task<PreflightPeers> connect_all(MoveEnvironment& environment, const MoveRequest& request,
                                 Connections& connections) {
  PreflightPeers peers{.source = *connections.source,
                       .here = environment.here,
                       .disk_exports = environment.disk_exports,
                       .address_here = environment.address_here};
  if (auto target = co_await Libvirt::connect(environment.drivers, request.destination)) {
    connections.target = *std::move(target);
    peers.target = connections.target.get();
  } else {
    peers.target_problem = std::move(target).error();
  }
  if (auto gateway = co_await connect_other_gateway(environment, request)) {
    connections.gateway = *std::move(gateway);
    peers.gateway = connections.gateway.get();
  } else {
    peers.gateway_problem = std::move(gateway).error();
  }
  co_return peers;
}

Task<Result<MovePlan>> plan_connected(MoveEnvironment& environment, const MoveRequest& request,
                                      PreflightPeers peers, unsigned watch_seconds) {
  Libvirt& source = peers.source;
  TargetGateway* const gateway = peers.gateway;
  DISKFERRY_CO_TRY(const PreflightFacts facts,
                   co_await collect_preflight(environment.drivers, std::move(peers), request, request.cold));
  MovePlan plan{.findings = examine(facts),
                .way = "intercept",
                .gateway_name = facts.there ? facts.there->name : std::string(),
                .gateway_certificate_name = facts.gateway_certificate_name};
  plan.reason = "libvirt runs the machine: its mirrors are intercepted, and it decides which host runs";
  if (request.cold) {
    plan.way = "cold";
    plan.reason = "the machine is to be moved while it is shut off: its disks are copied";
  } else if (facts.goes_through) {
    plan.way = "through";
    plan.reason =
        "its disks are exports of this gateway: they come to storage that both hosts reach, the memory "
        "follows, and the hypervisor there opens that storage when this gateway has closed it";
  }
  // Of a request that does not fit the machine there is nothing to show but the findings, which say so.
  auto disks = co_await choose_disks(environment.drivers, source, facts.machine, request);
  if (!disks) co_return plan;
  plan.disks = *std::move(disks);
  rehome(plan.disks, facts);
  for (MoveDiskState& disk : shared_disks(facts)) plan.disks.push_back(std::move(disk));
  if (auto definitions = co_await rewrite_definitions(source, facts, plan.disks))
    plan.definition_diff = std::move(definitions->diff);
  if (watch_seconds == 0 || request.cold) co_return plan;
  // Before the machine is watched, so that the probe does not slow down what is measured.
  std::uint64_t link_bytes_per_s = 0;
  if (gateway != nullptr)
    if (const auto measured = co_await gateway->measure_link({})) link_bytes_per_s = *measured;
  DISKFERRY_CO_TRY(
      const MeasuredPrediction measured,
      co_await measure_for_prediction(environment.drivers, source, facts, watch_seconds, link_bytes_per_s));
  plan.prediction = predict(measured.input);
  co_return plan;
}

Task<Result<MovePlan>> plan_with_ends(QmpEnds& ends, MoveEnvironment& environment, MoveRequest request) {
  auto gateway = co_await connect_other_gateway(environment, request);
  if (gateway) ends.set_gateway(**gateway);
  std::optional<Error> problem;
  if (!gateway) problem = Error(gateway.error()).in("reach the other gateway");
  auto facts = co_await collect_by_qmp(ends, gateway ? gateway->get() : nullptr, std::move(problem), request);
  if (gateway) co_await (*gateway)->close();
  if (!facts) co_return unexpected(std::move(facts).error());
  MovePlan plan{.findings = examine_by_qmp(*facts), .way = "qmp"};
  plan.reason = "the machine is named by its monitor: without libvirt both QEMUs are driven from here";
  if (auto disks = choose_disks_by_qmp(request, facts->here)) plan.disks = *std::move(disks);
  co_return plan;
}

Task<Result<MovePlan>> plan_by_qmp(MoveEnvironment& environment, MoveRequest request) {
  DISKFERRY_CO_TRY(std::string source, monitor_path(request.domain));
  DISKFERRY_CO_TRY(std::string target, monitor_path(request.destination));
  QmpEnds ends(environment.drivers, {.move = "plan",
                                     .sockets_folder = environment.qmp_sockets_folder,
                                     .source = std::move(source),
                                     .target = std::move(target)});
  auto plan = co_await plan_with_ends(ends, environment, std::move(request));
  co_await ends.close();
  co_return plan;
}

}  // namespace

Task<Result<MovePlan>> plan_move(MoveEnvironment& environment, MoveRequest request, unsigned watch_seconds) {
  if (is_by_qmp(request)) co_return co_await plan_by_qmp(environment, std::move(request));
  Connections connections;
  auto source = co_await Libvirt::connect(environment.drivers, source_uri(environment, request));
  if (!source) co_return unexpected(std::move(source).error().in("reach the hypervisor of this host"));
  connections.source = *std::move(source);
  PreflightPeers peers = co_await connect_all(environment, request, connections);
  auto plan = co_await plan_connected(environment, request, std::move(peers), watch_seconds);
  if (connections.gateway) co_await connections.gateway->close();
  if (connections.target) co_await connections.target->close();
  co_await connections.source->close();
  co_return plan;
}

}  // namespace diskferry
