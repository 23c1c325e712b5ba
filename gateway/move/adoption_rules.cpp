// One function a group of reasons; each says what to do instead.
#include "gateway/move/adoption_rules.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/preflight_rules.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace diskferry {
namespace {

/// The first libvirt that has guests' writes go to both sides of a copy (synchronous writes).
constexpr std::uint64_t libvirt_version_min = 8'000'000;

using DiskRule = void (*)(const AdoptionFacts& facts, const VmDisk& disk, Findings& found);

void can_be_asked_for(const AdoptionFacts& facts, const VmDisk& disk, Findings& found) {
  const ReplaceRequest& request = facts.request;
  if (request.retain_s != 0)
    found.block("retain", disk.target,
                "Its old storage cannot be kept in step: the hypervisor lets go of it when it goes over.",
                "leave out --retain; the old storage stays as it is at that moment");
  const bool is_ours = request.rehome && facts.on_export && facts.on_export->is_disk;
  if (request.remove_source && !is_ours)
    found.block("remove-source", disk.target,
                "Its old storage is not the gateway's, and other images may be based on it.",
                "leave out --remove-source, and remove it by hand when all is well");
  if (request.deadline_s != 0)
    found.block("deadline", disk.target, "How fast the hypervisor copies cannot be steered by a deadline.",
                "leave out the deadline, and set --rate");
}

/// Where it is to be on no export any more.
void can_be_rehomed(const AdoptionFacts& facts, const VmDisk& disk, Findings& found) {
  if (!facts.request.rehome || !facts.on_export || facts.on_export->is_disk) return;
  found.warn("export-stays", disk.target,
             fmt::format("It is on the export {} of the gateway's configuration, which stays with the old "
                         "storage behind it.",
                         facts.on_export->name),
             "take it out of the configuration ([[export]]) afterwards");
}

void machine_runs(const AdoptionFacts& facts, const VmDisk& disk, Findings& found) {
  const std::string& name = facts.machine.name;
  if (!is_alive(facts.machine.state))
    found.block(
        "not-running", disk.target, "The machine does not run, and only one that runs copies its disk.",
        fmt::format("start it (virsh start {}), or copy the image with 'diskferry copy', declare that as "
                    "an export and name the export in the machine's definition",
                    name));
  if (facts.is_in_job)
    found.block("machine-busy", disk.target, "libvirt is moving or saving the machine.",
                fmt::format("wait until that has ended, or end it (virsh domjobabort {})", name));
  if (!facts.machine.is_persistent)
    found.warn("not-persistent", disk.target, "libvirt does not keep the machine's definition when it stops.",
               "have whatever starts it again name the export as the disk's source");
  if (facts.libvirt_version != 0 && facts.libvirt_version < libvirt_version_min)
    found.block("libvirt-old", disk.target,
                "This libvirt cannot have the guest's writes go to both storages.",
                "use libvirt 8.0 or later");
}

void disk_is_a_disk(const AdoptionFacts& facts, const VmDisk& disk, Findings& found) {
  const auto block = [&](std::string code, std::string text, std::string remedy) {
    found.block(std::move(code), disk.target, std::move(text), std::move(remedy));
  };
  if (disk.device == "cdrom" || disk.device == "floppy")
    block(
        "removable", "It is a drive with a medium, not a disk.",
        fmt::format("change the medium instead (virsh change-media {} {})", facts.machine.name, disk.target));
  else if (!has_medium(disk))
    block("no-medium", "It has no storage.", "see virsh domblklist for the machine's disks");
  if (disk.device == "lun")
    block("lun", "The guest sends SCSI commands to the device itself, which an export does not take.",
          "use device='disk' if the guest does not need SCSI commands");
  if (disk.source_type == "vhostuser" || disk.source_type == "vhostvdpa" || disk.source_type == "nvme")
    block("not-copyable", "The guest reaches its storage past QEMU's block layer or owns the device.",
          "give the disk to QEMU, or move its data within the guest");
  if (disk.is_read_only && disk.device == "disk")
    block("read-only", "It is read-only: nothing is written to it that would have to be followed.",
          "copy it with 'diskferry copy', and name the copy in the machine's definition");
  if (disk.is_shareable)
    block("shareable", "It is marked as shareable: other machines may write to it past the gateway.",
          "take out <shareable/> if no other machine has it, and start the machine anew");
  if (disk.is_transient)
    block("transient", "What is written to it is thrown away when the machine stops.",
          "detach it, or take out <transient/> and start the machine anew");
  if (disk.is_encrypted)
    block("encrypted", "QEMU encrypts it; behind the gateway its content would not be encrypted.",
          "encrypt in the guest or on the target's storage instead, and take out <encryption>");
}

void nothing_else_holds_it(const AdoptionFacts& facts, const VmDisk& disk, Findings& found) {
  const std::string& name = facts.machine.name;
  if (disk.has_block_job || facts.has_disk_job)
    found.block("block-job", disk.target, "It is being mirrored, committed or backed up.",
                fmt::format("wait until that has ended, or end it (virsh blockjob {} {} --abort)", name,
                            disk.target));
  if (facts.machine.has_snapshots)
    found.block(
        "snapshots", disk.target,
        "The machine has snapshots, which are of the old storage and cannot be returned to from the new.",
        fmt::format("delete them (virsh snapshot-list {}, virsh snapshot-delete)", name));
  if (facts.machine.has_checkpoints)
    found.block(
        "checkpoints", disk.target,
        "The machine has checkpoints, whose record of what changed lies in the old image.",
        fmt::format("delete them (virsh checkpoint-list {}, virsh checkpoint-delete), and begin the next "
                    "backup with a full one",
                    name));
  if (!disk.backing.empty())
    found.note("chain-flattened", disk.target,
               fmt::format("The {} layers below its image become part of the target.", disk.backing.size()));
}

constexpr std::array<DiskRule, 5> rules{can_be_asked_for, can_be_rehomed, machine_runs, disk_is_a_disk,
                                        nothing_else_holds_it};

}  // namespace

std::vector<Finding> examine(const AdoptionFacts& facts) {
  Findings found;
  const auto disk = std::ranges::find(facts.machine.disks, facts.disk, &VmDisk::target);
  if (disk == facts.machine.disks.end()) {
    found.block("no-such-disk", facts.disk, "The machine has no such disk.",
                fmt::format("see virsh domblklist {} for its disks", facts.machine.name));
    return found.take();
  }
  for (const DiskRule rule : rules) rule(facts, *disk, found);
  return found.take();
}

Result<void> refuse_adoption(const std::vector<Finding>& findings, const std::string& name) {
  if (!has_blocker(findings)) return {};
  const Finding& first = findings.front();
  std::string why = first.text;
  if (why.ends_with('.')) why.pop_back();
  return unexpected(fail(ErrorKind::unsupported, "replace the storage of", printable(name))
                        .why(std::move(why))
                        .remedy(first.remedy));
}

}  // namespace diskferry
