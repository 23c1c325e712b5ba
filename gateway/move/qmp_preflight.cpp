// Rules, each a function over the facts.
#include "gateway/move/qmp_preflight.hpp"

#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/move/preflight_rules.hpp"
#include "gateway/move/target_disks.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace diskferry {
namespace {

using Facts = QmpPreflightFacts;

void check_state(const Facts& facts, Findings& found) {
  if (facts.here.status != "running")
    found.block("not-running", "machine",
                fmt::format("The machine is not running: it is {}.", facts.here.status),
                "Only a machine that runs moves in this way: let it run, or copy its disks.");
  if (facts.here.jobs > 0)
    found.block("block-job", "machine", fmt::format("Its QEMU has {} jobs.", facts.here.jobs),
                "Wait for them, or end them (query-jobs shows them).");
  if (facts.here.migration == "active" || facts.here.migration == "setup")
    found.block("in-migration", "machine", "It is being migrated already.", "Wait for that to end.");
  if (!facts.there) {
    const Error& problem = *facts.there_problem;
    found.block("no-target", "target", problem.message(),
                remedy_of(problem,
                          "Start QEMU there with -incoming defer, and its monitor in a folder that "
                          "move.qmp-sockets names."));
    return;
  }
  if (facts.there->status != "inmigrate" || !facts.there->migration.empty())
    found.block("not-waiting", "target",
                fmt::format("The QEMU there does not wait for a machine: it is {}.", facts.there->status),
                "Start it anew with -incoming defer.");
}

void compare(Findings& found, std::string_view subject, std::string_view what, const std::string& here,
             const std::string& there) {
  if (here == there) return;
  found.block(fmt::format("{}-differs", subject), std::string(subject),
              fmt::format("The QEMU there has another {}: {} instead of {}.", what, there, here),
              "Start both with the same arguments.");
}

void check_alike(const Facts& facts, Findings& found) {
  if (!facts.there) return;
  const QmpMachine& there = *facts.there;
  compare(found, "machine-type", "machine type", facts.here.machine_type, there.machine_type);
  compare(found, "cpu", "kind of processor", facts.here.cpu_model, there.cpu_model);
  compare(found, "vcpus", "number of processors", fmt::format("{}", facts.here.vcpus),
          fmt::format("{}", there.vcpus));
  compare(found, "memory", "size of memory", format_bytes(facts.here.memory_bytes),
          format_bytes(there.memory_bytes));
  compare(found, "accelerator", "accelerator", facts.here.accelerator, there.accelerator);
  if (facts.here.cpu_model == "host")
    found.warn("cpu-host", "cpu", "The machine has the processor of its host.",
               "Both hosts must have the same kind; a named model is safer.");
  if (facts.here.version != there.version)
    found.warn(
        "qemu-version", "target",
        fmt::format("The QEMU there is another one: {} instead of {}.", there.version, facts.here.version),
        "Newer ones take machines of older ones with a versioned machine type.");
}

void check_disk_there(const MoveDisk& wanted, const QmpMachineDisk& here, const Facts& facts,
                      Findings& found) {
  const auto* there = disk_named(*facts.there, wanted.target);
  if (there == nullptr || there->node.empty())
    return found.block("disk-missing-there", wanted.target, "The QEMU there has no such disk.",
                       "Start both with the same devices and ids.");
  if (there->size_bytes != here.size_bytes)
    found.block(
        "target-size", wanted.target,
        fmt::format("The disk there has {} bytes, the one here {}.", there->size_bytes, here.size_bytes),
        "Make the target as large as the disk.");
  if (there->is_read_only)
    found.block("disk-read-only-there", wanted.target, "The QEMU there cannot write the disk.",
                "Start it with a writable disk.");
  const std::string format = format_there(wanted);
  if (there->format != format)
    found.block("target-format", wanted.target,
                fmt::format("The QEMU there has it open as {}, and it is to be written as {}.", there->format,
                            format),
                fmt::format("Say --disk {}={}:..., or start it with the other format.", wanted.target,
                            there->format));
  const auto uri = ImageUri::parse(wanted.uri);
  if (!uri || !uri->is_file()) return;
  if (there->filename.starts_with("json:"))
    found.warn("target-not-compared", wanted.target,
               "What the QEMU there has open cannot be told by its name.",
               fmt::format("See to it that it is {}.", wanted.uri));
  else if (there->filename != uri->path())
    found.block(
        "target-place", wanted.target,
        fmt::format("The QEMU there has {} open, and {} is to be written.", there->filename, wanted.uri),
        "Name the image that it was started with.");
}

void check_disks(const Facts& facts, Findings& found) {
  for (const MoveDisk& wanted : facts.request.disks) {
    const auto* here = disk_named(facts.here, wanted.target);
    if (here == nullptr || here->node.empty()) {
      found.block("no-disk", wanted.target, "The machine has no such disk.",
                  "Name it by its device's id, or its node's name (query-block shows both).");
      continue;
    }
    if (!check_move_id(wanted.target))
      found.block("disk-name", wanted.target, "A disk's name has letters, digits and '-'.",
                  "Name it by another of its names, or give its device an id.");
    const auto uri = ImageUri::parse(wanted.uri);
    if (uri && !uri->is_file())
      found.block("target-network", wanted.target, "Without libvirt a disk goes to a file or a block device.",
                  "Name a path on the other host.");
    if (facts.there) check_disk_there(wanted, *here, facts, found);
  }
  for (const QmpMachineDisk& disk : facts.here.disks) {
    if (disk.node.empty() || disk.is_read_only) continue;
    const auto is_it = [&disk](const MoveDisk& wanted) {
      return std::ranges::find(disk.names, wanted.target) != disk.names.end();
    };
    if (std::ranges::none_of(facts.request.disks, is_it))
      found.block("disk-not-named", disk.names.empty() ? disk.node : disk.names.front(),
                  "It is not said where this disk goes.", "Say --disk for each disk that is written to.");
  }
  if (facts.request.disks.empty())
    found.block("no-disks", "machine", "Without libvirt a machine moves with at least one disk.",
                "Say --disk NAME=TARGET.");
}

void check_targets(const Facts& facts, Findings& found) {
  for (std::size_t at = 0; at < facts.targets.size(); ++at) {
    const MoveDisk& wanted = facts.request.disks[at];
    if (!facts.targets[at].problem.empty())
      found.block("target-unusable", wanted.target,
                  fmt::format("{}: {}", wanted.uri, facts.targets[at].problem),
                  "The QEMU there needs the image before it starts: make it, and say --overwrite.");
    else if (facts.targets[at].exists && facts.request.overwrite)
      found.note("target-overwritten", wanted.target, fmt::format("{} is overwritten.", wanted.uri));
  }
}

}  // namespace

std::vector<Finding> examine_by_qmp(const QmpPreflightFacts& facts) {
  Findings found;
  for (const auto rule : std::array{check_state, check_alike, check_disks, check_targets}) rule(facts, found);
  return found.take();
}

Result<std::vector<MoveDiskState>> choose_disks_by_qmp(const MoveRequest& request,
                                                       const QmpMachine& machine) {
  std::vector<MoveDiskState> chosen;
  for (const MoveDisk& wanted : request.disks) {
    const auto* disk = disk_named(machine, wanted.target);
    if (disk == nullptr || disk->node.empty())
      return unexpected(fail(ErrorKind::not_found, "find the disk", printable(wanted.target))
                            .why("the machine has no such disk"));
    MoveDiskState state{.target = wanted.target,
                        .source = disk->filename,
                        .source_format = disk->format,
                        .uri = wanted.uri,
                        .format = format_there(wanted),
                        .size_bytes = disk->size_bytes,
                        .drive = "drive-" + wanted.target};
    state.route = route_of("file", state.format, true);
    chosen.push_back(std::move(state));
  }
  return chosen;
}

Task<Result<QmpPreflightFacts>> collect_by_qmp(QmpEnds& ends, TargetGateway* gateway,
                                               std::optional<Error> gateway_problem, MoveRequest request) {
  QmpPreflightFacts facts{.request = std::move(request)};
  auto here = co_await ends.describe_source();
  if (!here) co_return unexpected(std::move(here).error().in("ask the QEMU of this host"));
  facts.here = *std::move(here);
  if (gateway == nullptr) {
    facts.there_problem = std::move(gateway_problem);
    co_return facts;
  }
  if (auto there = co_await ends.target().describe())
    facts.there = *std::move(there);
  else
    facts.there_problem = std::move(there).error().in("ask the QEMU of the other host");
  for (const MoveDisk& wanted : facts.request.disks) {
    const auto* disk = disk_named(facts.here, wanted.target);
    TargetDiskRequest question{.move = "plan",
                               .disk = wanted.target,
                               .uri = wanted.uri,
                               .format = format_there(wanted),
                               .size_bytes = disk == nullptr ? 0 : disk->size_bytes,
                               .overwrite = facts.request.overwrite};
    auto looked = co_await gateway->look(std::move(question));
    facts.targets.push_back(looked ? *std::move(looked)
                                   : TargetDiskFacts{.problem = looked.error().message()});
  }
  co_return facts;
}

}  // namespace diskferry
