// How a disk is opened and offered to the gateway that writes it, and withdrawn.
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/align.hpp"
#include "drivers/filters/deferred.hpp"
#include "drivers/filters/slice.hpp"
#include "drivers/image/image.hpp"
#include "drivers/registry.hpp"
#include "gateway/copy/target.hpp"
#include "gateway/move/target_disks_parts.hpp"

#include <fmt/format.h>

namespace diskferry {

namespace {
/// A hypervisor that is to start and listen: libvirt prepares the target within seconds; storage that hangs
/// takes longer.
constexpr Duration hypervisor_limit = std::chrono::seconds(60);
/// What QEMU's NBD server takes for qcow2 on any storage; smaller requests are made whole by the filter in
/// front.
constexpr std::uint32_t hypervisor_block_bytes = 4096;
}  // namespace

Task<Result<std::shared_ptr<BlockDevice>>> TargetDisks::open(TargetDiskRequest request, bool is_again) {
  if (request.through_hypervisor) {
    DISKFERRY_CO_TRY(ImageUri uri, ImageUri::parse("nbd+unix:///?socket=/"));
    uri.set_path("/" + request.hypervisor_export);
    uri.set_query("socket", move_socket(options_.move_folder, request.move));
    DeviceInfo promised{.name = uri.to_string(),
                        .block_bytes = hypervisor_block_bytes,
                        .preferred_bytes = 64 * kib,
                        .zero = ZeroSupport::unmapping,
                        .is_read_only = false,
                        .can_discard = true,
                        .can_multi_connection = true};
    co_return checked(make_deferred_device(
        context_.clock,
        {.info = std::move(promised), .size_bytes = request.size_bytes, .open_limit = hypervisor_limit},
        [this, uri] { return open_storage(context_, uri, {.writable = true}); }));
  }
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(request.uri));
  if (request.format != "raw") {
    // Nobody else has it open: the machine is shut off, and the lock of the image says so.
    DISKFERRY_CO_TRY(const Image image,
                     co_await open_image(context_, uri, {.format = request.format, .writable = true}));
    co_return image.shared_device();
  }
  // Once with the lock, so that nobody else has it; then without, for the destination's QEMU opens it, too,
  // and writes nothing before the switchover. A gateway that comes back finds that QEMU, and its lock, there.
  if (!is_again) {
    DISKFERRY_CO_TRY(const DevicePtr locked, co_await open_storage(context_, uri, {.writable = true}));
    DISKFERRY_CO_CHECK(co_await locked->close());
  }
  co_return co_await open_storage(context_, uri, {.writable = true, .without_lock = true});
}

namespace {
Task<Result<void>> refuse(BlockDevice& device, Error error) {
  (void)co_await device.close();
  co_return unexpected(std::move(error));
}
}  // namespace

Task<Result<void>> TargetDisks::offer(Disk& disk, std::string client, bool is_again) {
  const TargetDiskRequest& request = disk.record.request;
  DISKFERRY_CO_TRY(std::shared_ptr<BlockDevice> opened, co_await open(request, is_again));
  // A block device is as large as it is: its start becomes the disk.
  if (const auto uri = ImageUri::parse(request.uri); uri && request.format == "raw" && is_block_device(*uri))
    if (auto part = slice_of(opened, {0, request.size_bytes})) opened = *std::move(part);
  std::shared_ptr<BlockDevice> device = with_byte_granularity(std::move(opened));
  if (device->size_bytes() != request.size_bytes)
    co_return co_await refuse(*device, fail(ErrorKind::mismatch, "offer the disk", printable(request.uri))
                                           .why(fmt::format("it has {} bytes and {} are needed",
                                                            device->size_bytes(), request.size_bytes))
                                           .remedy("name a target of that size, or one that can be created"));
  nbd::ExportOptions options{
      .name = export_name(request), .description = "disk " + request.disk + " of a move", .writable = true};
  if (options_.clients_have_names && !client.empty()) options.allow = {client};
  auto offered = nbd::Export::make(std::move(options), device);
  if (!offered) co_return co_await refuse(*device, std::move(offered).error());
  auto added = server_.exports().add(*offered);
  if (!added) co_return co_await refuse(*device, std::move(added).error());
  disk.device = std::move(device);
  disk.offered = *std::move(offered);
  co_return Result<void>{};
}

Task<Result<void>> TargetDisks::withdraw(Disk& disk) {
  if (!disk.offered) co_return Result<void>{};
  disk.device->stop_waiting();
  server_.exports().remove(disk.offered->name());
  auto result = co_await server_.disconnect(disk.offered);
  disk.offered.reset();
  auto closed = co_await disk.device->close();
  disk.device.reset();
  if (!result) co_return result;
  co_return closed;
}

}  // namespace diskferry
