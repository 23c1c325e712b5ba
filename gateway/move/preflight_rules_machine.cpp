// Rules about the machine as a whole: whether the target's host can run it, and whether it can leave now.
#include "diskferry/units.hpp"
#include "gateway/move/machine_fit.hpp"
#include "gateway/move/preflight_rules.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace diskferry {
namespace {

void machine_is_there_to_move(const PreflightFacts& facts, Findings& found) {
  if (facts.machine.state == VmState::absent)
    found.block("machine-missing", "machine", fmt::format("There is no machine {}.", facts.request.domain),
                "see virsh list --all for what this host has");
  if (facts.machine.state == VmState::crashed)
    found.block("machine-crashed", "machine", "The guest has crashed.",
                "start it again, or destroy it and move it while it is shut off");
  if (facts.machine.state == VmState::paused)
    found.note("machine-paused", "machine", "The guest is paused, and stays paused at the target.");
  if (facts.machine.state == VmState::shut_off && facts.is_cold)
    found.note("machine-shut-off", "machine",
               "The machine does not run: its disks and its definition are moved.");
  if (facts.machine.state == VmState::shut_off && !facts.is_cold)
    found.block("machine-not-running", "machine", "The machine does not run.",
                "start it, or move it as it is with --cold");
  if (is_alive(facts.machine.state) && facts.is_cold)
    found.block("machine-runs", "machine", "The machine runs, and was to be moved while it is shut off.",
                "shut it down, or leave out --cold");
  if (is_alive(facts.machine.state) && !facts.machine.is_persistent)
    found.note("machine-transient", "machine",
               "The machine is not defined, only running: once it stops, it is gone, as here.");
}

void machine_is_not_busy(const PreflightFacts& facts, Findings& found) {
  if (facts.running_job.empty()) return;
  found.block("job-running", "machine",
              fmt::format("The hypervisor is busy with the machine: {}.", facts.running_job),
              "wait until it has ended, or end it with virsh domjobabort");
}

void machine_has_no_snapshots(const PreflightFacts& facts, Findings& found) {
  if (!facts.machine.has_snapshots) return;
  found.block("snapshots", "machine", "libvirt keeps snapshots of the machine and refuses to migrate it.",
              "delete them with virsh snapshot-delete, or only libvirt's notes of them with --metadata after "
              "saving them with virsh snapshot-dumpxml");
}

void cpu_fits(const PreflightFacts& facts, Findings& found) {
  if (!facts.target) return;
  switch (facts.cpu) {
    case CpuFit::fits:
      return;
    case CpuFit::lacks:
      return found.block("cpu-lacks-features", "cpu",
                         "The host there cannot give the machine its CPU" +
                             (facts.cpu_problem.empty() ? "." : ": " + facts.cpu_problem),
                         is_alive(facts.machine.state)
                             ? "give the machine a CPU model that both hosts have (virsh "
                               "hypervisor-cpu-baseline) and start it anew"
                             : "have it be another one there: --cpu host-model, or the name of a model");
    case CpuFit::same_only:
      return found.warn("cpu-of-the-host", "cpu",
                        fmt::format("The machine uses the CPU of its host ({}); on another CPU the guest may "
                                    "crash.",
                                    facts.machine.cpu_mode),
                        "be sure that both hosts have the same CPU, microcode and kernel");
    case CpuFit::unknown:
      return found.warn("cpu-unknown", "cpu",
                        "It is not known whether the host there can give the machine its CPU" +
                            (facts.cpu_problem.empty() ? "." : ": " + facts.cpu_problem),
                        "compare with virsh hypervisor-cpu-compare there");
  }
}

void tsc_may_move(const PreflightFacts& facts, Findings& found) {
  if (!is_alive(facts.machine.state) || !facts.machine.cpu_xml.contains("invtsc")) return;
  found.warn("cpu-invtsc", "cpu",
             "The CPU promises a steady time stamp counter (invtsc): libvirt refuses to migrate it unless "
             "its frequency is set.",
             "set the frequency in <timer name='tsc' frequency='...'/>, or leave invtsc out");
}

std::string other_machine_type(const std::string& type, const GuestSupport& known, bool is_running) {
  const auto related = related_machine_types(type, known);
  if (is_running || related.empty())
    return "install a QEMU there that is at least as new as this host's, or give the machine an older type "
           "and "
           "start it anew";
  return fmt::format("install a newer QEMU there, or have the machine be of another type: --machine {}",
                     related.back());
}

void target_runs_this_kind(const PreflightFacts& facts, Findings& found) {
  if (!facts.target || facts.target->guests.empty()) return;
  const VmDescription& machine = facts.machine;
  const GuestSupport* support = support_for(machine, *facts.target);
  if (support == nullptr) {
    const bool knows_architecture = std::ranges::any_of(facts.target->guests, [&](const GuestSupport& each) {
      return each.architecture == machine.architecture;
    });
    if (knows_architecture)
      found.block("no-such-domain-type", "target",
                  fmt::format("The host there cannot run machines with {}.", machine.domain_type),
                  machine.domain_type == "kvm"
                      ? "switch on virtualization in its firmware and load the module kvm"
                      : "install what runs it there");
    else
      found.block("no-emulator", "target",
                  fmt::format("The host there has no QEMU for {}.", machine.architecture),
                  "install QEMU for this architecture there");
    return;
  }
  if (facts.has_emulator_there) return;
  const std::string& type = machine_type_there(facts);
  if (!support->machines.contains(type))
    found.block("no-such-machine-type", "target",
                fmt::format("QEMU there does not know the machine type {}.", type),
                other_machine_type(type, *support, is_alive(machine.state)));
  if (support->emulator != machine.emulator)
    found.warn("emulator-elsewhere", "target",
               fmt::format("The QEMU of the machine is {} here; there it is {}.", machine.emulator,
                           support->emulator),
               "be sure that both are the same QEMU; a link there under the name used here helps");
}

void target_has_cpus(const PreflightFacts& facts, Findings& found) {
  if (!facts.target) return;
  const unsigned vcpus = facts.machine.vcpus;
  if (const GuestSupport* support = support_for(facts.machine, *facts.target)) {
    const auto type = support->machines.find(machine_type_there(facts));
    if (type != support->machines.end() && type->second != 0 && vcpus > type->second)
      return found.block(
          "too-many-vcpus", "cpu",
          fmt::format("The machine has {} virtual CPUs; QEMU there takes {} at most.", vcpus, type->second),
          "give the machine fewer virtual CPUs, or install a newer QEMU there");
  }
  if (facts.target->cpus != 0 && vcpus > facts.target->cpus)
    found.warn(
        "few-cpus", "cpu",
        fmt::format("The machine has {} virtual CPUs and the host there {} CPUs.", vcpus, facts.target->cpus),
        "expect it to be slower there, or take a larger host");
}

void target_has_memory(const PreflightFacts& facts, Findings& found) {
  if (!facts.target || facts.target->memory_bytes == 0) return;
  const std::string needs = format_bytes(facts.machine.memory_bytes);
  if (facts.machine.memory_bytes > facts.target->memory_bytes)
    return found.block("memory-too-small", "memory",
                       fmt::format("The machine has {} of memory and the host there {}.", needs,
                                   format_bytes(facts.target->memory_bytes)),
                       "take a larger host, or give the machine less memory");
  if (!is_alive(facts.machine.state) || facts.target->memory_free_bytes == 0 ||
      facts.machine.memory_bytes <= facts.target->memory_free_bytes)
    return;
  found.warn("memory-short", "memory",
             fmt::format("The machine has {} of memory and {} are free there.", needs,
                         format_bytes(facts.target->memory_free_bytes)),
             "make room there first: a host that runs out of memory ends machines");
}

void name_is_free_there(const PreflightFacts& facts, Findings& found) {
  const std::string& name = machine_name_there(facts);
  for (const MachineThere& other : facts.machines_there) {
    const bool same_uuid = other.uuid == facts.machine.uuid;
    if (!same_uuid && other.name == name)
      found.block("name-taken", "machine", fmt::format("Another machine there is called {} already.", name),
                  "rename one of them, or give --new-name");
    if (same_uuid && other.is_active)
      found.block("runs-there", "machine", "A machine with the same UUID runs there already.",
                  "find out which of the two is the right one before anything else; never run both");
    if (same_uuid && !other.is_active && other.name != name)
      found.block("uuid-taken", "machine",
                  fmt::format("The UUID of the machine is taken there by {}.", other.name),
                  "undefine it there if it is a leftover, or give one of them another UUID");
    if (same_uuid && !other.is_active && other.name == name)
      found.warn("defined-there", "machine", "The machine is defined there already; that will be replaced.",
                 "save that definition first if it is still needed (virsh dumpxml)");
  }
}

constexpr std::array<Rule, 9> rules{
    machine_is_there_to_move, machine_is_not_busy, machine_has_no_snapshots, cpu_fits,          tsc_may_move,
    target_runs_this_kind,    target_has_cpus,     target_has_memory,        name_is_free_there};
}  // namespace

std::span<const Rule> machine_rules() noexcept {
  return rules;
}

}  // namespace diskferry
