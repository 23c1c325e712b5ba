// The disks on both sides: how large, how full, whether the other host has the same storage.
#include "drivers/image/image.hpp"
#include "drivers/registry.hpp"
#include "gateway/copy/identity.hpp"
#include "gateway/copy/target.hpp"
#include "gateway/move/move_state.hpp"
#include "gateway/move/preflight_collector.hpp"
#include "gateway/move/shared_proof.hpp"
#include "gateway/move/through_choice.hpp"

#include <algorithm>

namespace diskferry {
namespace {

struct ImageFacts {
  std::uint64_t size_bytes = 0;
  std::optional<std::uint64_t> allocated_bytes{};
  unsigned layers = 1;
  unsigned snapshots = 0;
  std::vector<std::string> storages{};  ///< empty: there are layers that cannot be looked into
};

Task<Result<ImageFacts>> look_into(DriverContext& context, ImageUri uri, std::string format) {
  // Never probed: a guest can write what looks like another format into its raw disk.
  ImageOpenOptions options{.format = format.empty() ? "raw" : std::move(format), .force_share = true};
  options.allow_partial = true;
  DISKFERRY_CO_TRY(Image image, co_await open_image(context, std::move(uri), std::move(options)));
  ImageFacts facts;
  facts.layers = static_cast<unsigned>(image.layers().size());
  facts.snapshots = static_cast<unsigned>(image.layers().front().snapshots.size());
  if (image.has_device()) facts.size_bytes = image.device().size_bytes();
  const std::vector<ImageUri> storages = image.storages();
  const bool is_whole = std::ranges::none_of(image.layers(), [](const LayerDescription& layer) {
    return layer.problem.has_value() || layer.data_file_problem.has_value();
  });
  if (is_whole)
    for (const ImageUri& storage : storages) facts.storages.push_back(storage.without_secrets());
  (void)co_await image.close();
  facts.allocated_bytes = co_await allocated_bytes(context, storages);
  co_return facts;
}

/// A driver that cannot ask opens it.
Task<Result<VolumeFacts>> look_by_opening(DriverContext& context, ImageUri uri) {
  VolumeFacts volume;
  auto device = co_await open_storage(context, std::move(uri), {});
  if (!device && device.error().kind() == ErrorKind::not_found) co_return volume;
  if (!device) co_return unexpected(std::move(device).error());
  volume.exists = true;
  volume.size_bytes = (*device)->size_bytes();
  volume.block_bytes = (*device)->info().block_bytes;
  (void)co_await (*device)->close();
  co_return volume;
}

Task<Result<TargetDiskFacts>> look_at_storage(DriverContext& context, ImageUri uri) {
  DISKFERRY_CO_TRY(const Driver* driver, find_driver(uri));
  DISKFERRY_CO_TRY(const VolumeFacts volume,
                   driver->look == nullptr ? co_await look_by_opening(context, uri)
                                           : co_await look_at_volume(context, uri, {.for_writing = true}));
  std::string problem;
  for (const Error& obstacle : volume.obstacles)
    problem += (problem.empty() ? "" : "; ") + obstacle.message();
  co_return TargetDiskFacts{.exists = volume.exists,
                            .size_bytes = volume.size_bytes,
                            .space_available_bytes = volume.free_bytes.value_or(0),
                            .problem = std::move(problem),
                            .identity = network_identity(uri, volume.identity),
                            .block_bytes = volume.block_bytes,
                            .can_create = driver->create != nullptr};
}

}  // namespace

Result<ImageUri> source_uri(const VmDisk& disk) {
  if (disk.source.empty())
    return unexpected(fail(ErrorKind::unsupported, "name the storage", disk.source_text)
                          .why("its kind of source has no name for the gateway"));
  if (disk.source_type == "file" || disk.source_type == "block") return ImageUri::from_path(disk.source);
  return ImageUri::parse(disk.source);
}

Task<void> PreflightCollector::look_at_disks() {
  for (const VmDisk& disk : facts_.machine.disks) {
    DiskFacts each{.disk = disk};
    const auto move = std::ranges::find(facts_.request.disks, disk.target, &MoveDisk::target);
    if (move != facts_.request.disks.end()) each.move = *move;
    if (!disk.source_type.empty()) {
      note_export(each);
      co_await look_at_source(each);
      if (each.move)
        co_await look_at_target(each);
      else
        co_await prove_disk_is_shared(each);
    }
    facts_.disks.push_back(std::move(each));
    if (co_await is_cancelled()) co_return;
  }
  facts_.goes_through = diskferry::goes_through(facts_.request, facts_.machine, peers_.disk_exports);
  for (DiskFacts& each : facts_.disks) {
    if (each.target && each.target->exists) co_await compare_with_sources(each);
    if (!each.own_export.empty() && each.move) co_await look_at_shared_target(each);
  }
}

Task<void> PreflightCollector::look_at_source(DiskFacts& disk) {
  const std::string& target = disk.disk.target;
  auto size = co_await peers_.source.disk_bytes(facts_.machine.name, target);
  if (size) disk.size_bytes = *size;
  // Of a machine that is shut off, libvirt tells the size of the storage.
  if (disk.disk.slice) disk.size_bytes = disk.disk.slice->length;
  disk.backing_layers = static_cast<unsigned>(disk.disk.backing.size());
  if (!disk.disk.has_block_job && facts_.machine.state != VmState::shut_off) {
    const auto job = co_await peers_.source.block_job(facts_.machine.name, target);
    disk.disk.has_block_job = job && job->has_value();
  }
  auto uri = source_uri(disk.disk);
  if (!uri) {
    if (!size) note_unknown(target, std::move(uri).error());
    co_return;
  }
  auto identity = co_await with_deadline(context_.clock, preflight_answer_limit, "identify the disk",
                                         storage_identity(context_, *uri));
  if (identity)
    disk.identity = *std::move(identity);
  else
    note_unknown(target, std::move(identity).error());
  if (uri->is_file()) co_await look_into_image(disk, *uri);
  if (disk.size_bytes == 0 && !size) note_unknown(target, std::move(size).error());
}

Task<void> PreflightCollector::look_into_image(DiskFacts& disk, ImageUri uri) {
  auto image = co_await with_deadline(context_.clock, preflight_answer_limit, "look into the image",
                                      look_into(context_, std::move(uri), disk.disk.format));
  if (!image) {
    note_unknown(disk.disk.target, std::move(image).error());
    co_return;
  }
  if (disk.size_bytes == 0) disk.size_bytes = image->size_bytes;
  disk.allocated_bytes = image->allocated_bytes;
  disk.backing_layers = std::max(disk.backing_layers, image->layers - 1);
  disk.internal_snapshots = image->snapshots;
  disk.storages = std::move(image->storages);
}

Task<Result<TargetDiskFacts>> PreflightCollector::ask_for_disk(const DiskFacts& disk, std::string uri,
                                                               std::string format) {
  TargetDiskRequest request{.move = "preflight",
                            .machine = facts_.machine.uuid,
                            .disk = disk.disk.target,
                            .uri = std::move(uri),
                            .format = std::move(format),
                            .size_bytes = disk.size_bytes,
                            .overwrite = facts_.request.overwrite};
  co_return co_await with_deadline(context_.clock, preflight_answer_limit, "look at the target",
                                   peers_.gateway->look(std::move(request)));
}

Task<void> PreflightCollector::look_at_target(DiskFacts& disk) {
  const auto uri = ImageUri::parse(disk.move->uri);
  const std::string format = format_there(*disk.move);
  if (uri && route_of(uri->scheme(), format, !facts_.is_cold) == DiskRoute::direct)
    co_return co_await look_at_network_target(disk, *uri);
  if (peers_.gateway == nullptr) co_return;  // that it does not answer is a finding of its own
  auto there = co_await ask_for_disk(disk, disk.move->uri, format);
  if (there)
    disk.target = *std::move(there);
  else
    disk.target_problem = std::move(there).error();
}

Task<void> PreflightCollector::look_at_network_target(DiskFacts& disk, ImageUri uri) {
  auto facts = co_await with_deadline(context_.clock, preflight_answer_limit, "look at the target",
                                      look_at_storage(context_, std::move(uri)));
  if (facts)
    disk.target = *std::move(facts);
  else
    disk.target_problem = std::move(facts).error();
}

}  // namespace diskferry
