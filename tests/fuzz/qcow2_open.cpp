// Opens whatever bytes come as a qcow2 image over a memory device, maps it, and reads some of it: no crash,
// no unbounded memory or time, nothing outside the given memory.
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/image/qcow2/bitmaps.hpp"
#include "drivers/image/qcow2/device.hpp"
#include "drivers/image/qcow2/snapshots.hpp"
#include "drivers/memory/memory_device.hpp"
#include "gateway/runtime/runtime.hpp"

#include <algorithm>

namespace diskferry {
namespace {

Runtime& runtime() {
  static Runtime instance(RuntimeOptions{.reactors = 1, .blocking_threads = 1, .buffer_bytes = 16u << 20});
  return instance;
}

/// Extents of the whole disk, at most a few hundred calls, and the start and end of the first of them.
Task<Result<void>> walk(BlockDevice& device) {
  std::vector<std::byte> data(70000);
  const std::uint64_t size = device.size_bytes();
  int reads = 0;
  std::uint64_t at = 0;
  for (int calls = 0; at < size && calls < 200; ++calls) {
    const auto extents = co_await device.extents({at, size - at}, 16);
    if (!extents) {
      at = align_down(at, 65536) + 65536;  // behind what is damaged
      continue;
    }
    for (const Extent& extent : *extents) {
      if (extent.reads_zero || ++reads > 32) continue;
      const auto part = std::span(data).first(std::min<std::uint64_t>(extent.length, data.size()));
      (void)co_await device.read(extent.offset, part);
      if (!device.try_read(extent.offset, part)) (void)co_await device.read(extent.end() - part.size(), part);
    }
    at = extents->back().end();
  }
  const auto all = std::span(data).first(std::min<std::uint64_t>(size, data.size()));
  (void)co_await device.read(0, all);
  (void)co_await device.read(size - all.size(), all);
  co_return Result<void>{};
}

Task<Result<void>> open_and_walk(std::span<const std::byte> bytes) {
  auto parsed = qcow2::parse_header(bytes, "fuzz");
  if (!parsed || !qcow2::check_tables_inside(*parsed, bytes.size(), "fuzz")) co_return Result<void>{};
  const qcow2::Header& header = *parsed;
  if (auto written = qcow2::serialize_header(header)) (void)qcow2::parse_header(*written, "again");
  std::shared_ptr<BlockDevice> storage = checked(make_memory_device({.size_bytes = bytes.size()}));
  DISKFERRY_CO_CHECK(co_await storage->write(0, bytes, {}));
  std::vector<qcow2::DiskView> views;
  if (const auto snapshots = co_await qcow2::load_snapshots(*storage, header)) {
    for (const auto& one : *snapshots) {
      const auto found = qcow2::find_snapshot(*snapshots, one.id, header, bytes.size());
      if (found && views.size() < 2) views.push_back(found->disk);
    }
  }
  if (auto bitmaps = co_await qcow2::load_bitmap_directory(*storage, header)) {
    for (auto& one : *bitmaps) {
      if (!one.problem.empty()) continue;
      qcow2::BitmapReader reader(storage, header, std::move(one));
      (void)co_await reader.ranges({0, header.size_bytes}, 100);
    }
  }
  views.push_back({header.l1_offset, header.l1_entries, header.size_bytes});
  for (std::size_t i = 0; i < views.size(); ++i) {
    // A device closes its storage: each gets its own.
    std::shared_ptr<BlockDevice> copy = checked(make_memory_device({.size_bytes = bytes.size()}));
    DISKFERRY_CO_CHECK(co_await copy->write(0, bytes, {}));
    auto opened = co_await qcow2::Qcow2Device::open(
        runtime().context(), {.name = "fuzz", .header = header, .storage = copy, .snapshot = views[i]});
    if (!opened) continue;
    const DevicePtr device = checked(*std::move(opened));
    (void)co_await walk(*device);
    DISKFERRY_CO_CHECK(co_await device->close());
  }
  co_return co_await storage->close();
}

}  // namespace
}  // namespace diskferry

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // Larger inputs find nothing more and cost time.
  if (size > 1 << 20) return 0;
  (void)diskferry::runtime().run(diskferry::open_and_walk(std::as_bytes(std::span(data, size))));
  return 0;
}
