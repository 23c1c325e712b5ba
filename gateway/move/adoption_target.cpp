// The target of a machine's disk: refused, or made.
#include "diskferry/image_uri.hpp"
#include "drivers/image/image.hpp"
#include "gateway/copy/target.hpp"
#include "gateway/move/adoption_plan.hpp"
#include "gateway/move/preflight_collector.hpp"

#include <algorithm>
#include <array>

#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

CopyRequest creation(const ImageUri& uri, const AdoptionTarget& target) {
  CopyRequest copy;
  copy.target = uri;
  copy.target_format = target.state.format;
  copy.existing =
      target.overwrite || target.was_made ? CopyRequest::Existing::overwrite : CopyRequest::Existing::refuse;
  return copy;
}

/// What the disk's content comes from, as far as it has a name here.
std::vector<ImageUri> layers_of(const AdoptionFacts& facts) {
  std::vector<ImageUri> layers;
  const auto add = [&layers](const std::string& name) {
    auto uri = name.starts_with('/') ? Result<ImageUri>(ImageUri::from_path(name)) : ImageUri::parse(name);
    if (uri) layers.push_back(*std::move(uri));
  };
  if (facts.on_export) {
    for (const std::string& storage : facts.on_export->storages) add(storage);
    return layers;
  }
  const auto disk = std::ranges::find(facts.machine.disks, facts.disk, &VmDisk::target);
  if (disk == facts.machine.disks.end()) return layers;
  if (auto active = source_uri(*disk)) layers.push_back(*std::move(active));
  for (const std::string& layer : disk->backing) add(layer);
  return layers;
}

/// Copying a storage onto itself would empty it first, and then write what was read before over what the
/// guest has written since.
Error same_storage(const ImageUri& uri) {
  return fail(ErrorKind::in_use, "re-home", uri.to_string())
      .why("it is the storage that the disk is on now, and copying it onto itself would destroy it")
      .remedy("replace onto other storage with --rehome");
}

Task<Result<void>> compare_with_source(DriverContext& context, const TargetState& found, const ImageUri& uri,
                                       const AdoptionFacts& facts) {
  // Another name of the very export, which the sockets do not tell.
  if (facts.on_export && uri.scheme().starts_with("nbd") && uri.path() == "/" + facts.on_export->name)
    co_return unexpected(same_storage(uri));
  for (const ImageUri& layer : layers_of(facts)) {
    const auto seen = co_await look_at_layers(context, {layer});
    if (!seen) {
      // Storage that this host cannot look at by that name is none that it could write to by another.
      spdlog::info("{}: not compared with the target: {}", printable(facts.disk), seen.error().message());
      continue;
    }
    auto refused = refuse_same_storage(*seen, found, uri);
    if (!refused && facts.request.rehome) co_return unexpected(same_storage(uri));
    DISKFERRY_CO_CHECK(std::move(refused));
  }
  co_return Result<void>{};
}

}  // namespace

Result<DiskSource> target_for_qemu(const ReplaceDisk& wanted) {
  DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(wanted.uri));
  constexpr std::array<std::string_view, 7> schemes{"file", "nbd", "nbds", "rbd", "iscsi", "nfs", "gluster"};
  if (!uri.is_file() && std::ranges::find(schemes, uri.scheme()) == schemes.end())
    return unexpected(fail(ErrorKind::unsupported, "re-home", uri.to_string())
                          .why("QEMU opens by itself a path, or storage of nbd, rbd, iscsi, nfs or gluster")
                          .remedy("leave out --rehome: the gateway reaches that storage, and the disk stays "
                                  "on it"));
  return disk_source(uri, wanted.format.empty() ? format_for_target(uri) : wanted.format,
                     is_block_device(uri), wanted.secret);
}

void note_source(ReplaceDiskState& state, const AdoptionFacts& facts) {
  if (facts.on_export) {
    state.source = facts.on_export->uri;
    state.source_format = facts.on_export->format;
    state.ends_export = facts.request.rehome && facts.on_export->is_disk;
    return;
  }
  const auto disk = std::ranges::find(facts.machine.disks, facts.disk, &VmDisk::target);
  if (disk == facts.machine.disks.end()) return;
  state.source = disk->source_text;
  state.source_format = disk->format;
}

Task<Result<bool>> look_at_adoption_target(DriverContext& context, AdoptionTarget target,
                                           const AdoptionFacts& facts) {
  ReplaceDiskState& state = target.state;
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(state.uri));
  if (state.format.empty()) state.format = format_for_target(uri);
  const CopyRequest copy = creation(uri, target);
  DISKFERRY_CO_TRY(const TargetState found, co_await look_at_sized_target(context, copy));
  DISKFERRY_CO_CHECK(co_await compare_with_source(context, found, uri, facts));
  DISKFERRY_CO_CHECK(decide_target(found, copy));
  const VolumeFacts& volume = found.volume;
  if (!volume.obstacles.empty()) co_return unexpected(volume.obstacles.front());
  DISKFERRY_CO_CHECK(refuse_too_small(found, copy, state.size_bytes));
  state.is_part = facts.request.rehome && keeps_size(found, copy) && volume.size_bytes > state.size_bytes;
  co_return !volume.exists;
}

Task<Result<void>> make_adoption_target(DriverContext& context, AdoptionTarget target) {
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(target.state.uri));
  const CopyRequest copy = creation(uri, target);
  DISKFERRY_CO_TRY(const TargetState found, co_await look_at_target(context, copy));
  DISKFERRY_CO_TRY(const TargetAction action, decide_target(found, copy));
  if (action == TargetAction::open) co_return Result<void>{};
  co_return co_await create_target(context, copy, target.state.size_bytes);
}

}  // namespace diskferry
