// The facts of an evacuation: the definition, this host, the old host, further hosts, the disks as they are
// here. Changes nothing; what does not answer is a fact of its own.
#include "drivers/image/image.hpp"
#include "drivers/registry.hpp"
#include "gateway/move/evacuation_run.hpp"
#include "gateway/move/move_disks.hpp"
#include "gateway/move/move_service.hpp"
#include "gateway/move/preflight_collect.hpp"

#include <algorithm>
#include <array>

namespace diskferry {
namespace {

constexpr Duration probe_limit = std::chrono::seconds(5);
constexpr Duration disk_limit = std::chrono::seconds(20);
/// libvirt with and without TLS, ssh, and what our gateways listen on.
constexpr std::array<std::uint16_t, 5> ports{16514, 16509, 22, 10810, 10809};

bool is_the_place(const std::string& record, const std::string& place) {
  return record == place || "file://" + record == place || record == "file://" + place;
}

/// The host in "qemu+tls://host/system"; empty where there is none.
std::string host_in(const std::string& uri) {
  const auto parsed = ImageUri::parse(uri);
  return parsed ? parsed->host() : std::string();
}

/// Where a disk is here, and in what format: as the request says, else as the definition does.
MoveDisk place_of(const VmDisk& disk, const EvacuationRequest& request) {
  MoveDisk place{.target = disk.target, .uri = disk.source, .format = disk.format};
  const auto named = std::ranges::find(request.disks, disk.target, &MoveDisk::target);
  if (named == request.disks.end()) return place;
  place.uri = named->uri;
  place.format = format_of(*named, disk);
  return place;
}

}  // namespace

Task<Result<void>> Evacuation::take_from_record(EvacuationFacts& facts) {
  DISKFERRY_CO_TRY(const auto jobs,
                   co_await environment_.jobs.list({.subject = request_.machine, .limit = 100}));
  for (const JobRecord& job : jobs) {
    if (job.kind != migrate_kind) continue;
    const auto phase = phase_named(job.phase);
    if (!phase || *phase < Phase::committed || *phase > Phase::released) continue;
    auto moved = parse_move_request(job.request);
    auto state = parse_move_state(job.state.empty() ? "{}" : job.state);
    if (!moved || !state) continue;
    facts.recorded_host = host_in(moved->destination);
    left_behind_.clear();
    for (const MoveDiskState& disk : state->disks)
      if (disk.route != DiskRoute::shared) left_behind_.push_back(disk.source);
    if (!request_.definition.empty()) co_return Result<void>{};
    request_.definition = std::move(state->persistent_xml);
    if (request_.old_host.empty()) request_.old_host = facts.recorded_host;
    if (request_.old_host == facts.recorded_host) recorded_libvirt_ = moved->destination;
    break;
  }
  if (!request_.definition.empty()) co_return Result<void>{};
  co_return unexpected(fail(ErrorKind::not_found, "find a definition of", printable(request_.machine))
                           .why("this gateway has not sent such a machine to another host")
                           .remedy("give its definition: --definition FILE.xml"));
}

Task<Result<void>> Evacuation::ask_here(EvacuationFacts& facts) {
  DISKFERRY_CO_TRY(const LibvirtHost host, co_await here_->host());
  facts.host.target = host_facts_of(host);
  VmDescription& machine = facts.host.machine;
  DISKFERRY_CO_TRY(auto domains, co_await here_->domains());
  for (LibvirtDomain& each : domains) {
    if (!machine.uuid.empty() && each.uuid == machine.uuid) {
      DISKFERRY_CO_TRY(facts.state_here, co_await here_->state(each.name));
    }
    facts.host.machines_there.push_back(
        {.name = std::move(each.name), .uuid = std::move(each.uuid), .is_active = each.is_active});
  }
  if (!request_.machine_type.empty()) machine.machine = request_.machine_type;
  facts.host.has_emulator_there = co_await has_emulator(*here_, machine);
  const GuestSupport* support = support_for(machine, *facts.host.target);
  // The definition is rewritten to it.
  if (!facts.host.has_emulator_there && support != nullptr) machine.emulator = support->emulator;
  if (!request_.cpu.empty()) {
    facts.host.cpu = CpuFit::fits;  // chosen for this host
    co_return Result<void>{};
  }
  if (machine.cpu_mode == "host-passthrough" || machine.cpu_mode == "maximum") {
    facts.host.cpu = CpuFit::fits;  // it starts anew, with the CPU of this host
    co_return Result<void>{};
  }
  note_cpu(co_await here_->compare_cpu(machine), facts.host);
  co_return Result<void>{};
}

Task<AskedHost> Evacuation::ask_host(std::string uri, std::string uuid) {
  AskedHost asked{.uri = uri};
  auto host = co_await Libvirt::connect(environment_.drivers, uri);
  if (!host) {
    asked.problem = std::move(host).error();
    co_return asked;
  }
  auto domains = co_await (*host)->domains();
  if (!domains) {
    asked.problem = std::move(domains).error();
  } else {
    asked.state = VmState::absent;
    for (const LibvirtDomain& each : *domains)
      if (each.uuid == uuid) asked.state = each.is_active ? VmState::running : VmState::shut_off;
  }
  co_await (*host)->close();
  co_return asked;
}

Task<void> Evacuation::ask_old_host(EvacuationFacts& facts) {
  const std::string name = request_.old_address.empty() ? request_.old_host : request_.old_address;
  std::vector<std::uint16_t> tried(ports.begin(), ports.end());
  std::string uri = request_.old_libvirt.empty() ? recorded_libvirt_ : request_.old_libvirt;
  if (!uri.empty()) {
    const auto parsed = ImageUri::parse(uri);
    if (parsed && parsed->port()) tried.push_back(*parsed->port());
  }
  facts.old_host = co_await probe_host(environment_.drivers, name, std::move(tried), probe_limit);
  // A silent host would only be waited for.
  if (!facts.old_host.answers && request_.old_libvirt.empty()) co_return;
  if (uri.empty()) uri = "qemu+tls://" + (name.contains(':') ? "[" + name + "]" : name) + "/system";
  facts.old_libvirt = co_await ask_host(std::move(uri), facts.host.machine.uuid);
}

/// For reading and writing, as the machine will have it: that takes the locks that QEMU takes, and fails
/// where somebody has them. Nothing is written. The format is looked at, too: what the definition calls it
/// must be.
Task<Result<void>> Evacuation::look_at(ImageUri uri, std::string format, bool is_read_only) {
  DISKFERRY_CO_CHECK(find_driver(uri));
  DISKFERRY_CO_TRY(DevicePtr storage,
                   co_await open_storage(environment_.drivers, uri, {.writable = !is_read_only}));
  DISKFERRY_CO_CHECK(co_await storage->close());
  auto image = co_await open_image(environment_.drivers, uri, {.format = format});
  if (!image) co_return unexpected(std::move(image).error());
  co_return co_await image->close();
}

Task<void> Evacuation::look_at_disks(EvacuationFacts& facts) {
  const std::vector<std::string> unfinished =
      environment_.unfinished ? environment_.unfinished() : std::vector<std::string>();
  for (const VmDisk& disk : facts.host.machine.disks) {
    const MoveDisk place = place_of(disk, request_);
    if (place.uri.empty() && disk.source_text.empty()) continue;  // no medium
    EvacuatedDisk looked{.target = disk.target};
    const auto uri = ImageUri::parse(place.uri);
    if (place.uri.empty() || !uri) {
      looked.place = disk.source_text;
      looked.problem = fail(ErrorKind::unsupported, "look at the disk");
    } else {
      looked.place = uri->to_string();
      looked.is_unfinished_move = std::ranges::any_of(
          unfinished, [&](const std::string& each) { return is_the_place(each, looked.place); });
      const bool is_named =
          std::ranges::find(request_.disks, disk.target, &MoveDisk::target) != request_.disks.end();
      looked.was_left_behind = !is_named && std::ranges::any_of(left_behind_, [&](const std::string& each) {
        return is_the_place(each, looked.place);
      });
      auto seen = co_await with_deadline(environment_.drivers.clock, disk_limit, "open the disk",
                                         look_at(*uri, place.format, disk.is_read_only));
      if (!seen) looked.problem = std::move(seen).error();
    }
    facts.disks.push_back(std::move(looked));
  }
}

Task<Result<EvacuationFacts>> Evacuation::collect() {
  EvacuationFacts facts;
  DISKFERRY_CO_CHECK(co_await take_from_record(facts));
  DISKFERRY_CO_TRY(facts.host.machine, read_domain(request_.definition));
  facts.host.machine.state = VmState::shut_off;
  facts.host.is_cold = true;
  facts.host.request.domain = facts.host.machine.name;
  facts.host.request.networks = request_.networks;
  facts.gateway_host = environment_.host_name;
  facts.has_fence_command = !environment_.fence.words.empty();
  DISKFERRY_CO_CHECK(co_await ask_here(facts));
  co_await ask_old_host(facts);
  std::vector<std::string> others = environment_.hosts;
  others.insert(others.end(), request_.ask.begin(), request_.ask.end());
  for (std::string& uri : others) {
    const std::string host = host_in(uri);
    // This host was asked, and the old one may be in the list that is the same on all hosts.
    if (host == request_.old_host || host == facts.gateway_host) continue;
    facts.others.push_back(co_await ask_host(std::move(uri), facts.host.machine.uuid));
  }
  if (!runs_here(facts)) co_await look_at_disks(facts);
  facts.request = request_;
  if (co_await is_cancelled()) co_return unexpected(cancelled_error("evacuate", printable(request_.machine)));
  co_return facts;
}

}  // namespace diskferry
