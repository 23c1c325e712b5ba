// See recount.hpp. Each L2 table is walked once, however many snapshots share it.
#include "drivers/image/qcow2/recount.hpp"

#include "drivers/image/qcow2/bitmaps.hpp"
#include "drivers/image/qcow2/snapshots.hpp"
#include "drivers/image/qcow2/storage_read.hpp"

#include <fmt/format.h>

namespace diskferry::qcow2 {

Error Recount::refused(std::string why) const {
  return fail(ErrorKind::corrupt, "count the references of", image_.name)
      .why(std::move(why))
      .remedy("repair a copy of the image with qemu-img check -r all");
}

Result<void> Recount::add(Range host, std::uint64_t references, std::string_view what) {
  if (host.empty()) return {};
  const unsigned order = image_.geometry.refcount_order;
  const std::uint64_t last = (host.end() - 1) >> image_.geometry.cluster_bits;
  if (last >= clusters_)
    return unexpected(
        refused(fmt::format("{} at host offset {} lies beyond the end of the file", what, host.offset)));
  for (std::uint64_t at = host.offset >> image_.geometry.cluster_bits; at <= last; ++at) {
    const std::uint64_t before = of(at);
    if (references > refcount_max(order) - before)
      return unexpected(refused(fmt::format("the cluster at host offset {} has more than {} references",
                                            at << image_.geometry.cluster_bits, refcount_max(order))));
    store_refcount(counts_, at, order, before + references);
  }
  return {};
}

std::uint64_t Recount::take_free() {
  const unsigned order = image_.geometry.refcount_order;
  while (search_from_ < clusters_ &&
         (of(search_from_) != 0 || metadata_.overlaps({search_from_ << image_.geometry.cluster_bits, 1})))
    ++search_from_;
  if (search_from_ == clusters_) {
    ++clusters_;
    counts_.resize(divide_up(clusters_ << order, 8));
  }
  store_refcount(counts_, search_from_, order, 1);
  return search_from_++;
}

Task<Result<void>> Recount::count(std::span<const std::uint64_t> refcount_table) {
  const Header& header = image_.header;
  const std::uint64_t cluster = header.cluster_bytes();
  // One more: compressed data are named by sectors, the last of which may lie beyond the end.
  clusters_ = divide_up(image_.storage->size_bytes(), cluster) + 1;
  const std::uint64_t bytes = divide_up(clusters_ << image_.geometry.refcount_order, 8);
  if (bytes > counts_bytes_max)
    co_return unexpected(fail(ErrorKind::too_large, "count the references of", image_.name)
                             .why(fmt::format("{} clusters would take {} bytes of memory, the limit is {}",
                                              clusters_, bytes, counts_bytes_max))
                             .remedy("repair the image with qemu-img check -r all"));
  counts_.resize(bytes);
  DISKFERRY_CO_CHECK(add({0, cluster}, 1, "the header"));
  DISKFERRY_CO_CHECK(
      add({header.refcount_table_offset, header.refcount_table_clusters * cluster}, 1, "the refcount table"));
  for (const std::uint64_t block : refcount_table)
    if (block != 0) DISKFERRY_CO_CHECK(add({block, cluster}, 1, "a refcount block"));
  DISKFERRY_CO_CHECK(co_await add_l1(header.l1_offset, header.l1_entries, true));
  DISKFERRY_CO_CHECK(co_await add_snapshots());
  for (const auto& [offset, references] : l2_tables_) DISKFERRY_CO_CHECK(co_await add_l2(offset, references));
  co_return co_await add_bitmaps();
}

Task<Result<void>> Recount::add_l1(std::uint64_t l1_offset, std::size_t entries, bool is_active) {
  DISKFERRY_CO_CHECK(add({l1_offset, entries * 8}, 1, "an L1 table"));
  std::vector<std::byte> raw(std::min<std::size_t>(entries, L1Table::piece_entries) * 8);
  for (std::size_t first = 0; first < entries; first += L1Table::piece_entries) {
    const auto piece = std::span(raw).first(std::min(entries - first, L1Table::piece_entries) * 8);
    DISKFERRY_CO_CHECK(co_await read_storage(*image_.storage, l1_offset + first * 8, piece));
    for (std::size_t i = 0; i < piece.size() / 8; ++i) {
      const L1Entry entry = decode_l1(load_big<std::uint64_t>(piece.data() + i * 8), image_.geometry);
      if (entry.problem != EntryProblem::none)
        co_return unexpected(refused(fmt::format("L1 entry {} {}", first + i, to_string(entry.problem))));
      if (entry.l2_offset == 0) continue;
      auto [table, is_new] = l2_tables_.try_emplace(entry.l2_offset, 0);
      ++table->second;
      if (l2_tables_.size() > l2_tables_max)
        co_return unexpected(fail(ErrorKind::too_large, "count the references of", image_.name)
                                 .why(fmt::format("there are more than {} L2 tables", l2_tables_max))
                                 .remedy("repair the image with qemu-img check -r all"));
      // The active disk's are in `metadata_` themselves; they come first.
      if (!is_active && is_new && metadata_.overlaps({entry.l2_offset, image_.geometry.cluster_bytes()}))
        co_return unexpected(
            refused(fmt::format("the L2 table at host offset {} is something else, too", entry.l2_offset)));
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Recount::add_l2(std::uint64_t l2_offset, std::uint64_t references) {
  const Geometry& geometry = image_.geometry;
  DISKFERRY_CO_CHECK(add({l2_offset, geometry.cluster_bytes()}, references, "an L2 table"));
  const std::size_t words = geometry.l2_entry_bytes() / 8;
  for (std::uint64_t at = 0; at < geometry.cluster_bytes(); at += image_.tables.slice_bytes()) {
    DISKFERRY_CO_TRY(const auto slice, co_await image_.tables.load(l2_offset + at));
    std::lock_guard lock(slice->guard);
    for (std::size_t i = 0; i < slice->words.size(); i += words) {
      const L2Entry entry = decode_l2(slice->word(i), words == 2 ? slice->word(i + 1) : 0, image_.rules);
      if (entry.problem != EntryProblem::none)
        co_return unexpected(refused(fmt::format("an entry of the L2 table at host offset {} {}", l2_offset,
                                                 to_string(entry.problem))));
      Range host;
      if (entry.kind == ClusterKind::compressed) {
        host = {entry.compressed.host_offset, entry.compressed.bytes};
      } else if (entry.has_host_cluster && !image_.data_file) {
        host = {entry.host_offset, geometry.cluster_bytes()};
      }
      if (host.empty()) continue;
      if (metadata_.overlaps(host) || l2_tables_.contains(geometry.cluster_start(host.offset)))
        co_return unexpected(
            refused(fmt::format("the data at host offset {} lie where a table lies", host.offset)));
      DISKFERRY_CO_CHECK(add(host, references, "a cluster of data"));
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Recount::add_snapshots() {
  if (image_.header.snapshot_count == 0) co_return Result<void>{};
  DISKFERRY_CO_TRY(const auto snapshots, co_await load_snapshots(*image_.storage, image_.header));
  DISKFERRY_CO_CHECK(
      add({image_.header.snapshots_offset, snapshots.back().table_end}, 1, "the snapshot table"));
  for (const Snapshot& one : snapshots)
    DISKFERRY_CO_CHECK(co_await add_l1(one.disk.l1_offset, one.disk.l1_entries, false));
  co_return Result<void>{};
}

Task<Result<void>> Recount::add_bitmaps() {
  const auto& where = image_.header.bitmaps;
  if (!where) co_return Result<void>{};
  DISKFERRY_CO_CHECK(add({where->directory_offset, where->directory_bytes}, 1, "the bitmap directory"));
  DISKFERRY_CO_TRY(const auto bitmaps, co_await load_bitmap_directory(*image_.storage, image_.header));
  for (const BitmapEntry& one : bitmaps) {
    const Range table{one.table_offset, std::uint64_t{one.table_entries} * 8};
    if (table.empty()) continue;
    DISKFERRY_CO_CHECK(add(table, 1, "a bitmap's table"));
    for (std::uint64_t at = 0; at < table.length; at += 64 * kib) {
      std::vector<std::byte> raw(std::min<std::uint64_t>(64 * kib, table.length - at));
      DISKFERRY_CO_CHECK(co_await read_storage(*image_.storage, table.offset + at, raw));
      for (std::size_t i = 0; i < raw.size(); i += 8) {
        const std::uint64_t host = load_big<std::uint64_t>(raw.data() + i) & offset_mask;
        if (host == 0) continue;
        if (metadata_.overlaps({host, 1}) || l2_tables_.contains(host))
          co_return unexpected(
              refused(fmt::format("a bitmap's data at host offset {} lie where a table lies", host)));
        DISKFERRY_CO_CHECK(add({host, image_.geometry.cluster_bytes()}, 1, "a bitmap's data"));
      }
    }
  }
  co_return Result<void>{};
}

}  // namespace diskferry::qcow2
