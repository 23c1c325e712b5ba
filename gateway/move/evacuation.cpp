// The rules, each a function; those about the machine and its devices are preflight's own.
#include "gateway/move/evacuation.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/preflight_rules.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace diskferry {
namespace {

using EvacuationRule = void (*)(const EvacuationFacts& facts, Findings& found);

void definition_is_of_the_machine(const EvacuationFacts& facts, Findings& found) {
  const VmDescription& machine = facts.host.machine;
  if (machine.name != facts.request.machine)
    found.block("other-machine", "machine",
                fmt::format("The definition is of {}, not of {}.", machine.name, facts.request.machine),
                "give the definition of this machine, or name the one it is of");
  if (machine.uuid.empty())
    found.block("no-uuid", "machine",
                "The definition has no UUID: nobody could tell whether the machine runs elsewhere.",
                "take a definition that libvirt wrote (virsh dumpxml), or add the machine's <uuid>");
}

void gateway_is_on_this_host(const EvacuationFacts& facts, Findings& found) {
  const std::string& there = facts.host.target ? facts.host.target->hostname : std::string();
  if (there.empty() || first_label(there) == first_label(facts.gateway_host)) return;
  found.block(
      "gateway-elsewhere", "gateway",
      fmt::format("The machine is to run on {}, and this gateway is on {}: it cannot look at the disks "
                  "as they are there.",
                  there, facts.gateway_host),
      fmt::format("ask the gateway there: --gateway https://{}", there));
}

void not_here_half(const EvacuationFacts& facts, Findings& found) {
  if (facts.state_here == VmState::paused)
    found.block(
        "paused-here", "machine", "The machine is here already, and is paused.",
        "find out whether a migration left it (its memory is then not whole: virsh destroy) or somebody "
        "paused it (virsh resume)");
}

void old_host_is_another_one(const EvacuationFacts& facts, Findings& found) {
  if (facts.host.target && facts.request.old_host == facts.host.target->hostname)
    found.block("same-host", "old-host", "The host that is said to be gone is this one.",
                "name the host that the machine ran on, or start it here with virsh start");
  if (!facts.recorded_host.empty() && facts.recorded_host != facts.request.old_host)
    found.warn("record-elsewhere", "old-host",
               fmt::format("This gateway sent the machine to {} when it moved it last, not to {}.",
                           facts.recorded_host, facts.request.old_host),
               "be sure that it was moved on from there, and that the definition is the newest one");
}

void old_host_is_silent(const EvacuationFacts& facts, Findings& found) {
  const std::string& name = facts.request.old_host;
  if (!facts.old_host.has_address)
    found.block("old-host-unknown", "old-host",
                fmt::format("{} has no address here, so that it could not be asked.", name),
                "check its name, or say --old-address ADDRESS");
  if (facts.old_libvirt && facts.old_libvirt->state && is_alive(*facts.old_libvirt->state))
    return found.block("runs-there", "old-host", fmt::format("{} runs the machine.", name),
                       "move it from there: diskferry migrate");
  if (facts.old_libvirt && facts.old_libvirt->state)
    return found.block(
        "old-host-answers", "old-host",
        fmt::format("{} is there; the machine is {} on it.", name, to_string(*facts.old_libvirt->state)),
        "move it with diskferry migrate --cold, or start it there");
  if (facts.old_host.answers)
    found.block("old-host-answers", "old-host",
                fmt::format("{} answers: port {} {}. It may run the machine.", name, facts.old_host.port,
                            facts.old_host.refused ? "refuses connections" : "takes connections"),
                "repair its hypervisor, or switch the host off, and keep it off");
}

void nobody_else_runs_it(const EvacuationFacts& facts, Findings& found) {
  for (const AskedHost& each : facts.others) {
    if (each.state && is_alive(*each.state))
      found.block("runs-elsewhere", each.uri, "The machine runs there.",
                  "nothing is to be done, or move it from there: diskferry migrate");
    if (!each.state)
      found.warn("host-not-asked", each.uri,
                 "It could not be asked whether it runs the machine" +
                     (each.problem ? ": " + each.problem->message() : "."),
                 "be sure that it does not");
  }
}

void is_fenced(const EvacuationFacts& facts, Findings& found) {
  const EvacuationRequest& request = facts.request;
  if (!request.i_have_fenced.empty() && request.i_have_fenced != request.old_host)
    return found.block("other-host-fenced", "fence",
                       fmt::format("{} is said to be fenced; the machine's host was {}.",
                                   request.i_have_fenced, request.old_host),
                       "switch off the right one, and name it");
  if (!request.i_have_fenced.empty())
    return found.note("fenced-by-operator", "fence",
                      fmt::format("Whoever asked says that {} is off.", request.i_have_fenced));
  if (facts.has_fence_command)
    return found.note(
        "fence-command", "fence",
        fmt::format("{} is cut off first, by the command of evacuate.fence.", request.old_host));
  found.block(
      "not-fenced", "fence",
      fmt::format("Nothing shows that {} is off: that it is silent may be the network's fault, and then "
                  "the machine would run twice.",
                  request.old_host),
      fmt::format("name a command in evacuate.fence, or switch the host off, be sure that it stays off, "
                  "and say --i-have-fenced {}",
                  request.old_host));
}

void check_disk(const EvacuatedDisk& disk, Findings& found) {
  if (disk.is_unfinished_move)
    return found.block(
        "disk-unfinished", disk.target,
        fmt::format("{} was being copied here by a move that did not come to its end.", disk.place),
        "name the storage that the machine had: --disk " + disk.target + "=PLACE");
  if (disk.was_left_behind)
    return found.block(
        "disk-left-behind", disk.target,
        fmt::format("{} is what the machine left here when it was moved away: it is not its "
                    "newest storage.",
                    disk.place),
        fmt::format("name the newest: --disk {}=PLACE (this one, too, if it must be)", disk.target));
  if (!disk.problem) return;
  const ErrorKind kind = disk.problem->kind();
  if (kind == ErrorKind::in_use)
    return found.block("disk-in-use", disk.target,
                       fmt::format("Somebody has {} open: {}.", disk.place,
                                   disk.problem->why().empty() ? "it is locked" : disk.problem->why()),
                       "find out who: it may be the machine itself");
  if (kind == ErrorKind::unsupported)
    return found.warn("disk-not-looked-at", disk.target,
                      fmt::format("Whether {} is there and free could not be looked at.", disk.place),
                      "be sure that it is the machine's newest storage and that nobody uses it");
  found.block("disk-missing", disk.target,
              fmt::format("{} cannot be opened here: {}", disk.place, disk.problem->message()),
              remedy_of(*disk.problem, "connect its storage to this host, or name another place: --disk " +
                                           disk.target + "=PLACE"));
}

void disks_are_here(const EvacuationFacts& facts, Findings& found) {
  for (const MoveDisk& named : facts.request.disks)
    if (std::ranges::find(facts.host.machine.disks, named.target, &VmDisk::target) ==
        facts.host.machine.disks.end())
      found.block("no-such-disk", named.target, "The machine has no such disk.",
                  "see the targets of the disks in its definition");
  for (const EvacuatedDisk& disk : facts.disks) check_disk(disk, found);
}

constexpr std::array<EvacuationRule, 8> rules{
    definition_is_of_the_machine, gateway_is_on_this_host, not_here_half, old_host_is_another_one,
    old_host_is_silent,           nobody_else_runs_it,     is_fenced,     disks_are_here};

/// What preflight's rules say to somebody who moves a machine that is shut off, and means nothing here.
bool is_about_moving(const Finding& finding) {
  return finding.code == "machine-shut-off";
}

}  // namespace

bool runs_here(const EvacuationFacts& facts) noexcept {
  return facts.state_here == VmState::running;
}

std::string format_of(const MoveDisk& named, const VmDisk& as_defined) {
  if (!named.format.empty()) return named.format;
  const auto ends_with = [&](std::string_view ending) { return named.uri.ends_with(ending); };
  if (ends_with(".qcow2") || ends_with(".qcow")) return "qcow2";
  if (ends_with(".raw") || ends_with(".img")) return "raw";
  return as_defined.format.empty() ? "raw" : as_defined.format;
}

std::vector<Finding> examine(const EvacuationFacts& facts) {
  Findings found;
  if (runs_here(facts)) {
    found.note("runs-here", "machine", "The machine runs here already; there is nothing to do.");
    // That is only well while nobody else runs it, too.
    if (facts.old_libvirt && facts.old_libvirt->state == VmState::running) old_host_is_silent(facts, found);
    nobody_else_runs_it(facts, found);
  } else {
    for (const EvacuationRule rule : rules) rule(facts, found);
    for (const Rule rule : machine_rules()) rule(facts.host, found);
    for (const Rule rule : device_rules()) rule(facts.host, found);
  }
  std::vector<Finding> findings = found.take();
  std::erase_if(findings, is_about_moving);
  return findings;
}

}  // namespace diskferry
