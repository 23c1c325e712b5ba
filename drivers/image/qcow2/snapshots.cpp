// Reading of the snapshot table.
#include "drivers/image/qcow2/snapshots.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/image/qcow2/table_stream.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry::qcow2 {
namespace {

constexpr std::uint64_t table_bytes_max = 64 * mib;  // QEMU
constexpr std::size_t extra_bytes_max = 1024;        // QEMU
constexpr std::size_t fixed_bytes = 40;

Error damaged(const BlockDevice& storage, std::size_t index, std::string why) {
  return fail(ErrorKind::corrupt, fmt::format("read snapshot {}", index), storage.info().name)
      .why(std::move(why));
}

Task<Result<Snapshot>> next_snapshot(TableStream& table, const Header& header, BlockDevice& storage,
                                     std::size_t index) {
  DISKFERRY_CO_TRY(const auto fixed, co_await table.next(fixed_bytes));
  Snapshot snapshot;
  snapshot.disk.l1_offset = load_big<std::uint64_t>(fixed.data());
  snapshot.disk.l1_entries = load_big<std::uint32_t>(fixed.data() + 8);
  const auto id_bytes = load_big<std::uint16_t>(fixed.data() + 12);
  const auto name_bytes = load_big<std::uint16_t>(fixed.data() + 14);
  snapshot.created_s = load_big<std::uint32_t>(fixed.data() + 16);
  snapshot.vm_state_bytes = load_big<std::uint32_t>(fixed.data() + 32);
  const auto extra_bytes = load_big<std::uint32_t>(fixed.data() + 36);
  snapshot.disk.size_bytes = header.size_bytes;
  if (extra_bytes > extra_bytes_max)
    co_return unexpected(
        damaged(storage, index,
                fmt::format("{} bytes of extra data; the limit is {}", extra_bytes, extra_bytes_max)));
  DISKFERRY_CO_TRY(const auto extra, co_await table.next(extra_bytes));
  // Version 3 requires both fields; images without them exist and are read as what they were taken of.
  if (extra.size() >= 8) snapshot.vm_state_bytes = load_big<std::uint64_t>(extra.data());
  if (extra.size() >= 16) snapshot.disk.size_bytes = load_big<std::uint64_t>(extra.data() + 8);
  DISKFERRY_CO_TRY(const auto texts, co_await table.next(std::size_t{id_bytes} + name_bytes));
  const auto* text = reinterpret_cast<const char*>(texts.data());
  snapshot.id.assign(text, id_bytes);
  snapshot.name.assign(text + id_bytes, name_bytes);
  DISKFERRY_CO_CHECK(co_await table.align());
  snapshot.table_end = table.position();
  co_return snapshot;
}

}  // namespace

Task<Result<std::vector<Snapshot>>> load_snapshots(BlockDevice& storage, const Header& header) {
  std::vector<Snapshot> all;
  TableStream table(storage, {header.snapshots_offset, table_bytes_max}, "snapshot table");
  for (std::size_t i = 0; i < header.snapshot_count; ++i) {
    DISKFERRY_CO_TRY(all.emplace_back(), co_await next_snapshot(table, header, storage, i));
  }
  co_return all;
}

Result<Snapshot> find_snapshot(const std::vector<Snapshot>& all, std::string_view wanted,
                               const Header& header, std::uint64_t storage_bytes) {
  auto found = std::ranges::find(all, wanted, &Snapshot::id);
  if (found == all.end()) found = std::ranges::find(all, wanted, &Snapshot::name);
  if (found == all.end())
    return unexpected(
        fail(ErrorKind::not_found, "open snapshot", printable(wanted))
            .why(fmt::format("the image has {} snapshots, none of that name or id", all.size())));
  const Geometry geometry(header);
  const DiskView& disk = found->disk;
  const auto bad = [&](std::string why) {
    return unexpected(fail(ErrorKind::corrupt, "open snapshot", printable(wanted)).why(std::move(why)));
  };
  if (disk.l1_entries > l1_bytes_max / 8) return bad("its L1 table is too large");
  if (disk.size_bytes > INT64_MAX || geometry.l1_entries_needed(disk.size_bytes) > disk.l1_entries)
    return bad("its L1 table is too small for its disk");
  if (!is_aligned(disk.l1_offset, header.cluster_bytes()) || disk.l1_offset == 0 ||
      !is_inside({disk.l1_offset, std::uint64_t{disk.l1_entries} * 8}, storage_bytes))
    return bad(fmt::format("its L1 table cannot lie at host offset {}", disk.l1_offset));
  return *found;
}

}  // namespace diskferry::qcow2
