// Disks that are exports of this gateway, and whether the other host reaches the storage that they go to.
#include "gateway/copy/identity.hpp"
#include "gateway/move/preflight_collector.hpp"
#include "gateway/move/through_choice.hpp"

namespace diskferry {

void PreflightCollector::note_export(DiskFacts& disk) const {
  if (peers_.disk_exports == nullptr) return;
  disk.own_export = own_export_of(disk.disk, *peers_.disk_exports);
  if (!disk.own_export.empty()) disk.export_storage = disk_storage(*peers_.disk_exports, disk.own_export);
}

Task<bool> PreflightCollector::is_target_of_export(const DiskFacts& disk) {
  const auto storage = ImageUri::parse(disk.export_storage);
  const auto target = ImageUri::parse(disk.move->uri);
  if (!storage || !target || storage->is_file() != target->is_file()) co_return false;
  // A path names another file on each host.
  if (target->is_file()) {
    const bool can_be = peers_.gateway != nullptr && disk.target && disk.target->exists;
    co_return can_be && (co_await prove_storage_is_shared(*storage, disk.move->uri)).is_shared;
  }
  if (storage->to_string() == target->to_string()) co_return true;
  const auto here = co_await with_deadline(context_.clock, preflight_answer_limit, "identify the storage",
                                           storage_identity(context_, *storage));
  co_return here&& disk.target&& is_proof(*here) && *here == disk.target->identity;
}

Task<void> PreflightCollector::look_at_shared_target(DiskFacts& disk) {
  disk.is_in_place = co_await is_target_of_export(disk);
  if (!facts_.goes_through || peers_.gateway == nullptr) co_return;
  // What is there already can be compared.
  if (disk.target && disk.target->exists) {
    const auto target = ImageUri::parse(disk.move->uri);
    const ShareVerdict verdict =
        target ? co_await prove_storage_is_shared(*target, disk.move->uri) : ShareVerdict{};
    if (!verdict.is_shared) disk.not_reached_there = verdict.reason;
    co_return;
  }
  const auto seen = co_await with_deadline(context_.clock, preflight_answer_limit, "look at the storage",
                                           peers_.gateway->see({.uri = disk.move->uri}));
  if (!seen)
    disk.not_reached_there = seen.error().message();
  else if (!seen->is_reached)
    disk.not_reached_there = seen->problem.empty() ? "it does not say" : seen->problem;
}

}  // namespace diskferry
