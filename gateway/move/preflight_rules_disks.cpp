// Rules about the machine's disks on this side: which must be copied, which may stay, which cannot go.
#include "gateway/move/preflight_rules.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace diskferry {
namespace {

/// The first QEMU that drops a file's pages from its host's cache before another host reads it.
constexpr std::uint64_t cache_drop_version = 4000000;

bool is_removable(const VmDisk& disk) {
  return disk.device == "cdrom" || disk.device == "floppy";
}

void named_disks_exist(const PreflightFacts& facts, Findings& found) {
  for (const MoveDisk& move : facts.request.disks) {
    const auto known =
        std::ranges::find(facts.disks, move.target, [](const DiskFacts& each) { return each.disk.target; });
    if (known == facts.disks.end())
      found.block("no-such-disk", move.target, fmt::format("The machine has no disk {}.", move.target),
                  "see virsh domblklist for its disks");
    else if (!has_medium(known->disk))
      found.block("no-medium", move.target, "The drive is empty: there is nothing to copy.",
                  fmt::format("leave out --disk {}=...", move.target));
  }
}

void every_disk_is_named(const PreflightFacts& facts, Findings& found) {
  for (const DiskFacts& each : facts.disks) {
    const VmDisk& disk = each.disk;
    if (!has_medium(disk) || each.move || each.is_shared) continue;
    const std::string tried = each.share_reason.empty() ? "" : fmt::format(" ({})", each.share_reason);
    if (is_removable(disk))
      found.block(
          "local-medium", disk.target,
          fmt::format("There is a medium in the drive that is not proved to be at the target, too{}.", tried),
          fmt::format("eject it (virsh change-media {} {} --eject), or copy it with --disk {}=TARGET",
                      facts.machine.name, disk.target, disk.target));
    else
      found.block(
          "disk-not-named", disk.target,
          fmt::format(
              "The disk is not proved to be on storage that both hosts have{}, and it is not to be copied.",
              tried),
          fmt::format("say where it goes with --disk {}=TARGET", disk.target));
  }
}

void shared_disks_stay(const PreflightFacts& facts, Findings& found) {
  for (const DiskFacts& each : facts.disks) {
    if (!each.is_shared || each.move) continue;
    const std::string why = each.share_reason.empty() ? "" : ": " + each.share_reason;
    if (each.is_shared_by_name)
      found.warn("shared-by-name", each.disk.target,
                 fmt::format("It stays where it is, on storage that could not be compared{}.", why),
                 "be sure that the name leads to the same storage from both hosts");
    else
      found.note("disk-shared", each.disk.target,
                 fmt::format("Both hosts have its storage, so that it stays where it is{}.", why));
  }
}

void kept_sources_share_nothing(const PreflightFacts& facts, Findings& found) {
  if (!facts.request.keep_source) return;
  for (const DiskFacts& each : facts.disks)
    if (each.is_shared && !each.move && !each.disk.is_read_only)
      found.warn("kept-source-shares", each.disk.target,
                 "The definition that is kept here has the disk which the machine then uses there.",
                 "never start it here while the machine runs there; commit the move when it is well");
}

void shared_disks_are_not_cached(const PreflightFacts& facts, Findings& found) {
  for (const DiskFacts& each : facts.disks) {
    const VmDisk& disk = each.disk;
    if (!each.is_shared || each.move || disk.is_read_only || disk.is_shareable || disk.cache == "none" ||
        disk.cache == "directsync")
      continue;
    if (facts.source.hypervisor_version != 0 && facts.source.hypervisor_version < cache_drop_version)
      found.block("cache-not-safe", disk.target,
                  "The disk is shared and goes through this host's page cache, which this QEMU cannot drop: "
                  "the target might read old data.",
                  "set cache='none' for it and start the machine anew");
    else
      found.note("cache-dropped", disk.target,
                 "The disk is shared and goes through the hosts' page caches; QEMU flushes and drops them.");
  }
}

void caches_keep_promises(const PreflightFacts& facts, Findings& found) {
  for (const DiskFacts& each : facts.disks)
    if (each.disk.cache == "unsafe" && !each.disk.is_read_only)
      found.warn("cache-unsafe", each.disk.target,
                 "Its cache mode is unsafe: what the guest flushes is not durable, at the target neither.",
                 "set another cache mode, unless the disk may be lost at any time");
}

void no_transient_disks(const PreflightFacts& facts, Findings& found) {
  for (const DiskFacts& each : facts.disks)
    if (each.disk.is_transient)
      found.block("disk-transient", each.disk.target,
                  "What is written to the disk is thrown away when the machine stops; libvirt does not "
                  "migrate such disks.",
                  "detach it, or take out <transient/> and start the machine anew");
}

void shareable_disks_are_not_copied(const PreflightFacts& facts, Findings& found) {
  for (const DiskFacts& each : facts.disks)
    if (each.disk.is_shareable && each.move && !each.disk.is_read_only)
      found.block("disk-shareable", each.disk.target,
                  "The disk is marked as shareable: other machines may write to it while it is copied.",
                  "take out <shareable/> if no other machine has it; else keep it on storage of both hosts");
}

void disks_can_be_mirrored(const PreflightFacts& facts, Findings& found) {
  for (const DiskFacts& each : facts.disks) {
    if (!each.move || !has_medium(each.disk)) continue;
    if (each.disk.source_type == "vhostuser")
      found.block("disk-not-copyable", each.disk.target,
                  "Another program serves the disk to the guest past QEMU, which so cannot mirror it.",
                  "move the machine while it is shut off, or give the disk to QEMU");
    if (each.disk.is_encrypted)
      found.block("disk-encrypted", each.disk.target,
                  "QEMU encrypts the disk; the copy would not be encrypted, and the machine would not start "
                  "with it.",
                  "keep it on storage of both hosts, or encrypt in the guest instead");
    if (each.disk.device == "lun")
      found.warn("disk-lun", each.disk.target,
                 "The guest sends SCSI commands to the device itself: reservations and what else the device "
                 "keeps are not copied, and the target must be a SCSI device, too.",
                 "use device='disk' if the guest does not need SCSI commands");
  }
}

void no_block_jobs(const PreflightFacts& facts, Findings& found) {
  for (const DiskFacts& each : facts.disks)
    if (each.disk.has_block_job)
      found.block("block-job", each.disk.target, "The disk is being mirrored or committed.",
                  fmt::format("wait until that has ended, or end it (virsh blockjob {} {} --abort)",
                              facts.machine.name, each.disk.target));
}

void layers_are_flattened(const PreflightFacts& facts, Findings& found) {
  for (const DiskFacts& each : facts.disks) {
    if (!each.move) continue;
    if (each.backing_layers > 0)
      found.note("chain-flattened", each.disk.target,
                 fmt::format("The {} layers below its image become part of the one image at the target.",
                             each.backing_layers));
    if (each.internal_snapshots > 0)
      found.warn("snapshots-lost", each.disk.target,
                 fmt::format("The {} snapshots inside its image are not copied.", each.internal_snapshots),
                 "keep the source (--keep-source), or copy the snapshots first (qemu-img convert -l)");
  }
}

void something_is_copied(const PreflightFacts& facts, Findings& found) {
  if (facts.request.disks.empty())
    found.note("no-disks", "machine", "No disk is copied: only the memory moves.");
}

constexpr std::array<Rule, 12> rules{
    named_disks_exist,           every_disk_is_named,  shared_disks_stay,    kept_sources_share_nothing,
    shared_disks_are_not_cached, caches_keep_promises, no_transient_disks,   shareable_disks_are_not_copied,
    disks_can_be_mirrored,       no_block_jobs,        layers_are_flattened, something_is_copied};
}  // namespace

std::span<const Rule> disk_rules() noexcept {
  return rules;
}

}  // namespace diskferry
