// The target of a machine's disk: refused, or made.
#include "diskferry/image_uri.hpp"
#include "drivers/image/image.hpp"
#include "gateway/copy/target.hpp"
#include "gateway/move/adoption_plan.hpp"
#include "gateway/move/preflight_collector.hpp"

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

/// The layers of a disk that have a name here.
std::vector<ImageUri> layers_of(const VmDisk& disk) {
  std::vector<ImageUri> layers;
  if (auto active = source_uri(disk)) layers.push_back(*std::move(active));
  for (const std::string& layer : disk.backing) {
    auto uri = layer.starts_with('/') ? Result<ImageUri>(ImageUri::from_path(layer)) : ImageUri::parse(layer);
    if (uri) layers.push_back(*std::move(uri));
  }
  return layers;
}

}  // namespace

Task<Result<bool>> look_at_adoption_target(DriverContext& context, AdoptionTarget target, VmDisk disk) {
  ReplaceDiskState& state = target.state;
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(state.uri));
  if (state.format.empty()) state.format = format_for_target(uri);
  const CopyRequest copy = creation(uri, target);
  DISKFERRY_CO_TRY(const TargetState found, co_await look_at_target(context, copy));
  DISKFERRY_CO_CHECK(decide_target(found, copy));
  for (const ImageUri& layer : layers_of(disk)) {
    const auto seen = co_await look_at_layers(context, {layer});
    if (seen) DISKFERRY_CO_CHECK(refuse_same_storage(*seen, found, uri));
    // Storage that this host cannot look at by that name is none that it could write to by another.
    if (!seen)
      spdlog::info("{}: not compared with the target: {}", printable(disk.target), seen.error().message());
  }
  if (!found.volume.obstacles.empty()) co_return unexpected(found.volume.obstacles.front());
  if (found.volume.exists && !found.volume.can_be_emptied && state.format == "raw" &&
      found.volume.size_bytes < state.size_bytes)
    co_return unexpected(too_small(uri, found.volume.size_bytes, state.size_bytes));
  co_return !found.volume.exists;
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
