// Opening and closing; the verbs are in read.cpp and write.cpp.
#include "drivers/image/qcow2/device.hpp"

#include "drivers/image/qcow2/read.hpp"

#include <algorithm>

namespace diskferry::qcow2 {

Qcow2Device::Qcow2Device(DeviceParts parts)
    : image_(std::move(parts.name), std::move(parts.header), std::move(parts.storage)) {
  image_.data_file = std::move(parts.data_file);
  image_.backing = std::move(parts.backing);
  image_.size_bytes = parts.snapshot ? parts.snapshot->size_bytes : image_.header.size_bytes;
  info_.name = image_.name;
  info_.block_bytes = 1;
  info_.preferred_bytes = static_cast<std::uint32_t>(image_.header.cluster_bytes());
  info_.can_report_extents = true;
  info_.can_multi_connection = true;
  info_.is_rotational = image_.data().info().is_rotational;
  info_.parallel_requests = std::max(16u, image_.data().info().parallel_requests);
}

Task<Result<std::unique_ptr<Qcow2Device>>> Qcow2Device::open(DriverContext& context, DeviceParts parts) {
  const DiskView view = parts.snapshot.value_or(DiskView{.l1_offset = parts.header.l1_offset,
                                                         .l1_entries = parts.header.l1_entries,
                                                         .size_bytes = parts.header.size_bytes});
  const bool writable = parts.writable;
  DeviceParts for_writing{
      .snapshot = parts.snapshot, .writable = writable, .compress_writes = parts.compress_writes};
  std::unique_ptr<Qcow2Device> device(new Qcow2Device(std::move(parts)));
  // Entries beyond the end of the disk (VM state) are of no interest to a reader, but the writer keeps them.
  const std::uint64_t entries =
      writable ? view.l1_entries : device->image_.geometry.l1_entries_needed(view.size_bytes);
  device->image_.l1 = std::make_unique<L1Table>(*device->image_.storage, view.l1_offset, entries);
  if (writable) DISKFERRY_CO_CHECK(co_await device->image_.l1->load_all());
  if (writable) DISKFERRY_CO_CHECK(co_await device->open_for_writing(context, std::move(for_writing)));
  co_return std::move(device);
}

std::uint64_t Qcow2Device::repeated_requests() const noexcept {
  std::uint64_t sum = 0;
  for (const BlockDevice* below : {image_.data_file.get(), image_.storage.get(), image_.backing.get()})
    sum += below != nullptr ? below->repeated_requests() : 0;
  return sum;
}

void Qcow2Device::stop_waiting() noexcept {
  for (BlockDevice* below : {image_.data_file.get(), image_.storage.get(), image_.backing.get()}) {
    if (below != nullptr) below->stop_waiting();
  }
}

Task<Result<void>> Qcow2Device::close_below() {
  Result<void> first;
  for (BlockDevice* below : {image_.data_file.get(), image_.storage.get(), image_.backing.get()}) {
    if (below == nullptr) continue;
    auto closed = co_await below->close();
    if (!closed && first) first = std::move(closed);
  }
  co_return first;
}

}  // namespace diskferry::qcow2
