// The machine, the hosts and the gateway. The order is that of need: the machine says what to ask the others.
#include "gateway/move/preflight_collect.hpp"

#include "drivers/support/wall_clock.hpp"
#include "gateway/move/move_disks.hpp"
#include "gateway/move/preflight_collector.hpp"

#include <algorithm>
#include <chrono>

namespace diskferry {
HostFacts host_facts_of(const LibvirtHost& host) {
  HostFacts facts{.hostname = host.hostname,
                  .uuid = host.host_uuid,
                  .libvirt_version = host.libvirt_version,
                  .hypervisor_version = host.hypervisor_version,
                  .memory_bytes = host.memory_bytes,
                  .memory_free_bytes = host.memory_free_bytes,
                  .cpus = host.cpus,
                  .networks = host.networks,
                  .interfaces = host.interfaces,
                  .lists_interfaces = !host.interfaces.empty()};
  for (const auto& [network, bridge] : host.network_bridges) facts.interfaces.push_back(bridge);
  (void)read_capabilities(host.capabilities_xml, facts);
  return facts;
}

void note_cpu(const Result<std::string>& answer, PreflightFacts& facts) {
  if (answer) {
    facts.cpu = CpuFit::fits;
    return;
  }
  const bool lacks = answer.error().kind() == ErrorKind::mismatch;
  facts.cpu = lacks ? CpuFit::lacks : CpuFit::unknown;
  facts.cpu_problem = lacks ? answer.error().why() : answer.error().message();
}

PreflightCollector::PreflightCollector(DriverContext& context, PreflightPeers peers, MoveRequest request,
                                       bool is_cold)
    : context_(context), peers_(std::move(peers)) {
  facts_.request = std::move(request);
  facts_.is_cold = is_cold;
  facts_.here = peers_.here;
  facts_.gateway_certificate_name = peers_.gateway_certificate_name;
  facts_.target_problem = peers_.target_problem;
  facts_.gateway_problem = peers_.gateway_problem;
}

void PreflightCollector::note_unknown(std::string subject, Error error) {
  facts_.unknown.push_back({.subject = std::move(subject), .error = std::move(error)});
}

Task<Result<PreflightFacts>> PreflightCollector::run() {
  DISKFERRY_CO_CHECK(co_await ask_source());
  if (peers_.target != nullptr) co_await ask_target();
  if (peers_.gateway != nullptr) co_await ask_gateway();
  co_await look_at_disks();
  // Whoever cancelled does not want half of the facts, which would read as if the rest were well.
  if (co_await is_cancelled()) co_return unexpected(cancelled_error("look ahead of the move"));
  co_return std::move(facts_);
}

Task<Result<void>> PreflightCollector::ask_source() {
  auto machine = co_await peers_.source.describe(facts_.request.domain);
  if (machine) {
    facts_.machine = *std::move(machine);
  } else if (machine.error().kind() == ErrorKind::not_found) {
    facts_.machine.name = facts_.request.domain;
    facts_.machine.state = VmState::absent;
  } else {
    co_return unexpected(std::move(machine).error().in("ask the hypervisor of this host"));
  }
  auto host = co_await peers_.source.host();
  if (host)
    facts_.source = host_facts_of(*host);
  else
    note_unknown("source", std::move(host).error());
  if (is_alive(facts_.machine.state)) co_await ask_for_job();
  co_return Result<void>{};
}

Task<void> PreflightCollector::ask_for_job() {
  auto job = co_await peers_.source.job(facts_.machine.name);
  if (!job)
    note_unknown("machine", std::move(job).error());
  else if (job->is_active)
    facts_.running_job = job->phase.empty() ? "a job" : "a job (" + job->phase + ")";
}

Task<void> PreflightCollector::ask_target() {
  auto host = co_await peers_.target->host();
  if (!host) {
    facts_.target_problem = std::move(host).error().in("ask the hypervisor of the other host");
    co_return;
  }
  facts_.target = host_facts_of(*host);
  auto domains = co_await peers_.target->domains();
  if (!domains) {
    note_unknown("target", std::move(domains).error());
  } else {
    for (LibvirtDomain& each : *domains)
      facts_.machines_there.push_back(
          {.name = std::move(each.name), .uuid = std::move(each.uuid), .is_active = each.is_active});
  }
  if (facts_.machine.state != VmState::absent) co_await compare_cpu();
}

Task<void> PreflightCollector::compare_cpu() {
  VmDescription machine = facts_.machine;
  machine.machine = machine_type_there(facts_);
  facts_.has_emulator_there = co_await has_emulator(*peers_.target, machine);
  const GuestSupport* support = support_for(machine, *facts_.target);
  if (!facts_.has_emulator_there && support != nullptr) machine.emulator = support->emulator;
  if (!machine.loader.empty()) {
    auto capabilities = co_await peers_.target->domain_capabilities(machine);
    // Without them only the firmware is not looked for; what else is wrong with the machine there has
    // findings of its own.
    if (capabilities) (void)read_domain_capabilities(*capabilities, *facts_.target);
  }
  const bool is_of_its_host = machine.cpu_mode == "host-passthrough" || machine.cpu_mode == "maximum";
  if (!facts_.request.cpu.empty() || is_of_its_host) {
    // One that starts anew there takes what it finds, or what was chosen for it.
    facts_.cpu = facts_.is_cold ? CpuFit::fits : CpuFit::same_only;
    co_return;
  }
  note_cpu(co_await peers_.target->compare_cpu(machine), facts_);
}

Task<void> PreflightCollector::ask_gateway() {
  // Twice, as the first answer may include making a connection.
  for (int i = 0; i < 2; ++i) {
    const std::int64_t asked_ms = now_ms();
    const TimePoint asked = context_.clock.now();
    auto answer = co_await with_deadline(context_.clock, preflight_answer_limit, "ask the other gateway",
                                         peers_.gateway->facts());
    if (!answer) {
      facts_.gateway_problem = std::move(answer).error();
      facts_.there.reset();
      peers_.gateway = nullptr;
      co_return;
    }
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(context_.clock.now() - asked);
    facts_.round_trip_us = static_cast<std::uint64_t>(took.count());
    if (answer->time_ms != 0) facts_.clock_skew_ms = answer->time_ms - (asked_ms + now_ms()) / 2;
    facts_.there = *std::move(answer);
  }
  if (facts_.gateway_certificate_name.empty())
    facts_.gateway_certificate_name = peers_.gateway->certificate_name();
  co_await ask_for_way_back();
}

Task<void> PreflightCollector::ask_for_way_back() {
  if (peers_.address_here.empty()) co_return;
  auto seen =
      co_await with_deadline(context_.clock, preflight_answer_limit, "have the other gateway reach us",
                             peers_.gateway->reach(peers_.address_here));
  if (seen)
    facts_.seen_from_there = *std::move(seen);
  else if (seen.error().kind() != ErrorKind::unsupported && seen.error().kind() != ErrorKind::not_found)
    facts_.way_back_problem = std::move(seen).error();
}

Task<Result<PreflightFacts>> collect_preflight(DriverContext& context, PreflightPeers peers,
                                               MoveRequest request, bool is_cold) {
  PreflightCollector collector(context, std::move(peers), std::move(request), is_cold);
  co_return co_await collector.run();
}

}  // namespace diskferry
