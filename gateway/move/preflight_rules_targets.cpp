// Rules about where disks go: what is there, whether it is large enough, and whether it is not the source.
#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/move/move_state.hpp"
#include "gateway/move/preflight_rules.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <map>

namespace diskferry {
namespace {

constexpr std::uint32_t sector_bytes_default = 512;

/// Calls check(disk, move, target) for each disk whose target could be looked at.
template <class Check>
void for_each_target(const PreflightFacts& facts, Check check) {
  for (const DiskFacts& each : facts.disks)
    if (each.move && each.target) check(each, *each.move, *each.target);
}

DiskRoute route_to(const PreflightFacts& facts, const MoveDisk& move) {
  const auto uri = ImageUri::parse(move.uri);
  return uri ? route_of(uri->scheme(), format_there(move), !facts.is_cold) : DiskRoute::gateway;
}

bool is_image_file(const MoveDisk& move) {
  const auto uri = ImageUri::parse(move.uri);
  return uri && uri->is_file() && !uri->path().starts_with("/dev/");
}

/// What is at the target is used as it is and not made anew: an attempt before this one left it, or it is
/// something that cannot be made, like a block device.
bool is_used_as_it_is(const PreflightFacts& facts, const MoveDisk& move, const TargetDiskFacts& target) {
  if (!target.exists) return false;
  if (!facts.request.overwrite) return true;
  return !is_image_file(move) && format_there(move) == "raw";
}

}  // namespace

std::uint64_t slice_of_target(const PreflightFacts& facts, const DiskFacts& disk) {
  if (!disk.move || !disk.target || disk.size_bytes == 0) return 0;
  if (is_image_file(*disk.move) || format_there(*disk.move) != "raw") return 0;
  const bool is_larger = disk.target->size_bytes > disk.size_bytes;
  return is_larger && is_used_as_it_is(facts, *disk.move, *disk.target) ? disk.size_bytes : 0;
}

namespace {

void targets_answer(const PreflightFacts& facts, Findings& found) {
  for (const DiskFacts& each : facts.disks)
    if (each.target_problem)
      found.block("target-not-seen", each.disk.target, each.target_problem->message(),
                  remedy_of(*each.target_problem, "solve this, or name another target"));
}

void check_network_target(const DiskFacts& disk, const MoveDisk& move, const TargetDiskFacts& target,
                          Findings& found) {
  if (!target.exists && target.can_create)
    return found.note("target-created", disk.disk.target, fmt::format("{} is made.", move.uri));
  if (!target.exists)
    return found.block("target-missing", disk.disk.target, fmt::format("There is no {}.", move.uri),
                       "make it first, exactly as large as the disk: network storage is used as it is");
  found.warn("target-overwritten", disk.disk.target,
             fmt::format("What {} holds now is overwritten.", move.uri), "be sure that nobody needs it");
}

void check_target(const PreflightFacts& facts, const DiskFacts& disk, const MoveDisk& move,
                  const TargetDiskFacts& target, Findings& found) {
  const bool is_in_the_way = target.exists && !facts.request.overwrite;
  if (!target.problem.empty() && is_in_the_way)
    found.block("target-exists", disk.disk.target,
                fmt::format("{} cannot be taken: {}.", move.uri, target.problem),
                "name another target, or allow to replace what is there with --overwrite");
  else if (!target.problem.empty())
    found.block("target-unusable", disk.disk.target,
                fmt::format("{} cannot be used: {}.", move.uri, target.problem),
                "solve this at the target's host, or name another target");
  else if (is_in_the_way)
    found.note("target-taken-up", disk.disk.target,
               fmt::format("An earlier attempt left {}; it is gone on with.", move.uri));
  else if (target.exists)
    found.warn("target-overwritten", disk.disk.target,
               fmt::format("What {} holds now is overwritten.", move.uri),
               "be sure that nobody needs it; leave out --overwrite otherwise");
}

void targets_are_usable(const PreflightFacts& facts, Findings& found) {
  for_each_target(facts, [&](const DiskFacts& each, const MoveDisk& move, const TargetDiskFacts& target) {
    if (each.is_in_place && facts.goes_through) return;
    if (route_to(facts, move) == DiskRoute::direct && target.problem.empty())
      check_network_target(each, move, target, found);
    else
      check_target(facts, each, move, target, found);
  });
}

void block_own_storage(const DiskFacts& disk, const std::string& uri, const std::string& own,
                       Findings& found) {
  found.block("same-storage", disk.disk.target,
              fmt::format("{} is the machine's own {}: it would be overwritten with itself.", uri, own),
              fmt::format("leave out --disk {}=... if both hosts have this storage, or name another target",
                          disk.disk.target));
}

void check_not_source(const DiskFacts& disk, const MoveDisk& move, const DiskFacts& source, Findings& found) {
  if (is_proof(source.identity))
    return block_own_storage(disk, move.uri, "disk " + source.disk.target, found);
  found.warn(
      "looks-the-same", disk.disk.target,
      fmt::format("{} is as large as the machine's disk {} and begins with the same content: an earlier "
                  "copy of it, or the same device.",
                  move.uri, source.disk.target),
      "be sure that it is another device (compare the serial numbers that lsblk -o NAME,SERIAL,WWN shows "
      "on both hosts)");
}

void targets_are_not_sources(const PreflightFacts& facts, Findings& found) {
  for_each_target(facts, [&](const DiskFacts& each, const MoveDisk& move, const TargetDiskFacts& target) {
    if (!each.own_storage.empty()) return block_own_storage(each, move.uri, each.own_storage, found);
    if (!is_comparable(target.identity, move.uri)) return;
    for (const DiskFacts& source : facts.disks)
      if (is_comparable(source.identity, source.disk.source) && source.identity == target.identity)
        check_not_source(each, move, source, found);
  });
}

void targets_are_different(const PreflightFacts& facts, Findings& found) {
  std::map<std::string, std::string> taken;
  for (const MoveDisk& move : facts.request.disks) {
    const auto [other, is_first] = taken.emplace(move.uri, move.target);
    if (!is_first)
      found.block("target-twice", move.target,
                  fmt::format("{} is the target of {}, too.", move.uri, other->second),
                  "give each disk a target of its own");
  }
}

void sizes_are_known_and_fit(const PreflightFacts& facts, Findings& found) {
  for (const DiskFacts& each : facts.disks)
    if (each.move && has_medium(each.disk) && each.size_bytes == 0)
      found.block("size-not-known", each.disk.target, "It could not be learnt how large the disk is.",
                  "see virsh domblkinfo, and the other findings for why");
  for_each_target(facts, [&](const DiskFacts& each, const MoveDisk& move, const TargetDiskFacts& target) {
    if (!is_used_as_it_is(facts, move, target) || target.size_bytes == 0 || each.size_bytes == 0 ||
        target.size_bytes == each.size_bytes)
      return;
    if (slice_of_target(facts, each) != 0)
      return found.note("target-larger", each.disk.target,
                        fmt::format("{} has {} bytes; its first {} become the disk, which stays as large as "
                                    "it is (a slice in the definition).",
                                    move.uri, target.size_bytes, each.size_bytes));
    found.block("target-size", each.disk.target,
                fmt::format("{} has {} bytes and the disk {}.", move.uri, target.size_bytes, each.size_bytes),
                "name a raw target that is as large or larger, or one that can be created");
  });
}

void sectors_fit(const PreflightFacts& facts, Findings& found) {
  for_each_target(facts, [&](const DiskFacts& each, const MoveDisk& move, const TargetDiskFacts& target) {
    const std::uint32_t guest_bytes = std::max(sector_bytes_default, each.disk.logical_block_bytes);
    if (format_there(move) == "raw" && target.block_bytes > guest_bytes)
      found.block("sector-size", each.disk.target,
                  fmt::format("{} takes requests of {} bytes at least, and the guest's disk has sectors of "
                              "{} bytes.",
                              move.uri, target.block_bytes, guest_bytes),
                  "name a target with smaller sectors, or an image file or qcow2 on it");
    if (each.size_bytes % guest_bytes != 0)
      found.block("size-not-sectors", each.disk.target,
                  fmt::format("Its size, {} bytes, is no whole number of sectors of {} bytes.",
                              each.size_bytes, guest_bytes),
                  "resize the disk to whole sectors first (virsh blockresize)");
  });
}

/// What the new disks in one folder need together.
struct Space {
  std::string disks{};
  std::uint64_t available_bytes = 0;
  std::uint64_t sizes_bytes = 0;
  std::uint64_t allocated_bytes = 0;  ///< the least that will be written
  bool replaces = false;              ///< something there makes room first
};

std::map<std::string, Space> spaces(const PreflightFacts& facts) {
  std::map<std::string, Space> all;
  for_each_target(facts, [&](const DiskFacts& each, const MoveDisk& move, const TargetDiskFacts& target) {
    if (target.space_available_bytes == 0 || is_used_as_it_is(facts, move, target)) return;
    Space& space = all[move.uri.substr(0, move.uri.rfind('/'))];
    space.disks += (space.disks.empty() ? "" : ", ") + each.disk.target;
    space.available_bytes = target.space_available_bytes;
    space.sizes_bytes += each.size_bytes;
    space.allocated_bytes += std::min(each.allocated_bytes.value_or(0), each.size_bytes);
    space.replaces = space.replaces || target.exists;
  });
  return all;
}

void targets_have_space(const PreflightFacts& facts, Findings& found) {
  for (const auto& [folder, space] : spaces(facts)) {
    const std::string free = format_bytes(space.available_bytes);
    if (space.allocated_bytes > space.available_bytes && !space.replaces)
      found.block("no-space", space.disks,
                  fmt::format("{} are in use at the source and {} are free in {}.",
                              format_bytes(space.allocated_bytes), free, folder),
                  "free space there, or name targets elsewhere");
    else if (space.sizes_bytes > space.available_bytes)
      found.warn("space-short", space.disks,
                 fmt::format("The disks can grow to {} and {} are free in {}.",
                             format_bytes(space.sizes_bytes), free, folder),
                 "watch the space there: machines stop when their disks cannot grow");
  }
}

void routes_lead_there(const PreflightFacts& facts, Findings& found) {
  for (const MoveDisk& move : facts.request.disks) {
    const std::string format = format_there(move);
    const DiskRoute route = route_to(facts, move);
    if (route == DiskRoute::through)
      found.note("through-hypervisor", move.target,
                 fmt::format("QEMU at the target writes the {} image itself; the gateways only pass it on.",
                             format));
    if (route == DiskRoute::direct && format != "raw" && !facts.is_cold)
      found.block("network-format", move.target,
                  "On network storage the disk of a running machine is written raw.",
                  "say raw, or name a file at the target's host");
  }
}

constexpr std::array<Rule, 8> rules{targets_answer,        targets_are_usable,      targets_are_not_sources,
                                    targets_are_different, sizes_are_known_and_fit, sectors_fit,
                                    targets_have_space,    routes_lead_there};
}  // namespace

std::span<const Rule> target_disk_rules() noexcept {
  return rules;
}

}  // namespace diskferry
