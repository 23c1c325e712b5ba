// Which disks both hosts have, layer by layer, and whether a target is the machine's own storage.
#include "gateway/copy/identity.hpp"
#include "gateway/move/preflight_collector.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry {
namespace {

/// Everything that the disk's content lies in, the image itself first.
std::vector<std::string> storages_of(const DiskFacts& disk) {
  std::vector<std::string> all{disk.disk.source};
  for (const auto* more : {&disk.storages, &disk.disk.backing})
    for (const std::string& name : *more)
      if (std::ranges::find(all, name) == all.end()) all.push_back(name);
  return all;
}

/// A hypervisor that has it open knows all layers; without one only the image tells.
bool are_layers_known(const DiskFacts& disk, VmState state) {
  const bool is_raw = disk.disk.format.empty() || disk.disk.format == "raw";
  return is_raw || !disk.storages.empty() || (state != VmState::shut_off && state != VmState::absent);
}

}  // namespace

Task<ShareVerdict> PreflightCollector::prove_storage_is_shared(ImageUri storage, std::string name_there) {
  if (!storage.is_file()) {
    auto identity = co_await storage_identity(context_, storage);
    if (!identity || !is_comparable(*identity, storage.without_secrets()))
      co_return ShareVerdict{.reason = "its name leads to another place on each host"};
  }
  auto verdict = co_await with_deadline(
      context_.clock, preflight_answer_limit, "compare the storage",
      prove_shared(context_, *peers_.gateway, std::move(storage), std::move(name_there)));
  if (!verdict) co_return ShareVerdict{.reason = verdict.error().message()};
  co_return *std::move(verdict);
}

/// What nobody writes may be another copy, as long as it is the same: known by size, time and beginning.
Task<bool> PreflightCollector::is_same_medium(const DiskFacts& disk) {
  if (!disk.disk.is_read_only || disk.identity.empty() || storages_of(disk).size() > 1) co_return false;
  const auto there = co_await ask_for_disk(disk, disk.disk.source, disk.disk.format);
  co_return there&& is_proof(there->identity) && there->identity == disk.identity;
}

Task<void> PreflightCollector::prove_disk_is_shared(DiskFacts& disk) {
  if (!are_layers_known(disk, facts_.machine.state)) {
    disk.share_reason = "the layers of its image could not be looked into";
    co_return;
  }
  if (peers_.gateway == nullptr) {
    disk.share_reason = "the other gateway cannot be asked";
    co_return;
  }
  ShareVerdict verdict;
  bool is_by_name = false;
  const auto names = storages_of(disk);
  for (const std::string& name : names) {
    auto uri = name.starts_with('/') ? ImageUri::from_path(name) : ImageUri::parse(name);
    verdict = uri ? co_await prove_storage_is_shared(*uri, uri->without_secrets())
                  : ShareVerdict{.reason = disk.disk.source_text + " has no name for a gateway"};
    is_by_name = is_by_name || verdict.is_by_name;
    if (!verdict.is_shared && names.size() > 1) verdict.reason = name + ": " + verdict.reason;
    if (!verdict.is_shared) break;
  }
  if (!verdict.is_shared && co_await is_same_medium(disk))
    verdict = {.is_shared = true,
               .reason = "nobody writes to it, and size, time of change and beginning are the same there"};
  disk.is_shared = verdict.is_shared;
  disk.is_shared_by_name = verdict.is_shared && is_by_name;
  disk.share_reason = std::move(verdict.reason);
}

/// A copy onto one of its sources destroys both. Times and sizes cannot tell, as the guest is writing.
Task<void> PreflightCollector::compare_with_sources(DiskFacts& disk) {
  const auto target = ImageUri::parse(disk.move->uri);
  if (!target || !target->is_file() || peers_.gateway == nullptr) co_return;
  for (const DiskFacts& source : facts_.disks) {
    for (const std::string& name : storages_of(source)) {
      if (!name.starts_with('/')) continue;
      const auto verdict = co_await with_deadline(
          context_.clock, preflight_answer_limit, "compare the storage",
          prove_shared(context_, *peers_.gateway, ImageUri::from_path(name), disk.move->uri));
      if (!verdict || !verdict->is_shared) continue;
      disk.own_storage = name;
      co_return;
    }
  }
}

}  // namespace diskferry
