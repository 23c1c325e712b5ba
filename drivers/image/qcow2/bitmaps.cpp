// Reading of the bitmap directory and of bitmaps.
#include "drivers/image/qcow2/bitmaps.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/image/qcow2/table_stream.hpp"
#include "drivers/image/qcow2/tables.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <unordered_set>

namespace diskferry::qcow2 {
namespace {

constexpr std::size_t fixed_bytes = 24;
constexpr std::size_t extra_bytes_max = 64 * kib;
constexpr std::size_t name_bytes_max = 1023;     // specification
constexpr unsigned granularity_bits_min = 9;     // QEMU
constexpr unsigned granularity_bits_max = 31;    // QEMU
constexpr std::uint8_t type_dirty_tracking = 1;  // specification
constexpr std::uint64_t cache_bytes = 1 * mib;   // of one bitmap's table and data
constexpr unsigned slices_per_call_max = 64;     // 4 MiB of bits: a call does not hold its thread for long
constexpr std::uint64_t table_entry_reserved_mask = 0xff000000000001fe;

/// How many entries the bitmap's table must have: one a cluster of bits.
std::uint64_t table_entries_needed(const Header& header, unsigned granularity_bits) {
  const std::uint64_t bits = divide_up(header.size_bytes, std::uint64_t{1} << granularity_bits);
  return divide_up(bits, header.cluster_bytes() * 8);
}

std::string problem_of(const BitmapEntry& entry, const Header& header, std::uint64_t storage_bytes) {
  if (entry.type != type_dirty_tracking) return fmt::format("unknown bitmap type {}", entry.type);
  if (entry.granularity_bits < granularity_bits_min || entry.granularity_bits > granularity_bits_max)
    return fmt::format("granularity of 2^{} bytes; 2^{} to 2^{} are valid", entry.granularity_bits,
                       granularity_bits_min, granularity_bits_max);
  if ((entry.flags & ~bitmap_flag::known) != 0) return "reserved flags are set";
  if (!entry.extra_data.empty() && (entry.flags & bitmap_flag::extra_data_compatible) == 0)
    return "it carries extra data that must be understood";
  if (entry.name.empty()) return "it has no name";
  if (entry.is_in_use()) return "it was not closed properly and may miss writes";
  if (entry.table_entries != table_entries_needed(header, entry.granularity_bits))
    return fmt::format("its table has {} entries, not {}", entry.table_entries,
                       table_entries_needed(header, entry.granularity_bits));
  if (!is_aligned(entry.table_offset, header.cluster_bytes()) ||
      !is_inside({entry.table_offset, std::uint64_t{entry.table_entries} * 8}, storage_bytes))
    return fmt::format("its table cannot lie at host offset {}", entry.table_offset);
  return {};
}

Task<Result<BitmapEntry>> next_entry(TableStream& table) {
  DISKFERRY_CO_TRY(const auto fixed, co_await table.next(fixed_bytes));
  BitmapEntry entry;
  entry.table_offset = load_big<std::uint64_t>(fixed.data());
  entry.table_entries = load_big<std::uint32_t>(fixed.data() + 8);
  entry.flags = load_big<std::uint32_t>(fixed.data() + 12);
  entry.type = std::to_integer<std::uint8_t>(fixed[16]);
  entry.granularity_bits = std::to_integer<unsigned>(fixed[17]);
  const auto name_bytes = load_big<std::uint16_t>(fixed.data() + 18);
  const auto extra_bytes = load_big<std::uint32_t>(fixed.data() + 20);
  if (extra_bytes > extra_bytes_max || name_bytes > name_bytes_max)
    co_return unexpected(fail(ErrorKind::corrupt, "read bitmap directory")
                             .why(fmt::format("an entry with {} bytes of extra data and a name of {} bytes",
                                              extra_bytes, name_bytes)));
  DISKFERRY_CO_TRY(const auto rest, co_await table.next(extra_bytes + name_bytes));
  entry.extra_data.assign(rest.begin(), rest.begin() + extra_bytes);
  entry.name.assign(reinterpret_cast<const char*>(rest.data()) + extra_bytes, name_bytes);
  DISKFERRY_CO_CHECK(co_await table.align());
  co_return entry;
}

BitmapEntry nameless(std::string problem) {
  BitmapEntry entry;
  entry.problem = std::move(problem);
  return entry;
}

/// Merges; false when the list is full.
bool add(std::vector<DirtyRange>& found, DirtyRange next, std::size_t ranges_max) {
  if (!found.empty() && found.back().is_dirty == next.is_dirty) {
    found.back().length += next.length;
    return true;
  }
  if (found.size() == ranges_max) return false;
  found.push_back(next);
  return true;
}

}  // namespace

Task<Result<std::vector<BitmapEntry>>> load_bitmap_directory(BlockDevice& storage, const Header& header) {
  std::vector<BitmapEntry> all;
  const bool is_consistent = header.version >= 3 && (header.autoclear_features & autoclear::bitmaps) != 0;
  if (!header.bitmaps) {
    if (is_consistent) all.push_back(nameless("the image declares bitmaps, but has none"));
    co_return all;
  }
  const BitmapsExtension& where = *header.bitmaps;
  if (where.count == 0 || where.count > bitmaps_max || where.directory_bytes > bitmap_directory_bytes_max ||
      !is_aligned(where.directory_offset, header.cluster_bytes()) ||
      !is_inside({where.directory_offset, where.directory_bytes}, storage.size_bytes())) {
    all.push_back(
        nameless(fmt::format("the bitmap directory cannot have {} entries in {} bytes at host offset {}",
                             where.count, where.directory_bytes, where.directory_offset)));
    co_return all;
  }
  std::unordered_set<std::string> names;
  TableStream table(storage, {where.directory_offset, where.directory_bytes}, "bitmap directory");
  for (std::uint32_t i = 0; i < where.count; ++i) {
    auto entry = co_await next_entry(table);
    if (!entry) {
      if (entry.error().kind() != ErrorKind::corrupt) co_return unexpected(std::move(entry).error());
      all.push_back(nameless("the bitmap directory is damaged: " + entry.error().why()));
      break;
    }
    entry->problem = is_consistent ? problem_of(*entry, header, storage.size_bytes())
                                   : "the image was changed by a program that does not know bitmaps";
    if (!names.insert(entry->name).second) entry->problem = "another bitmap has the same name";
    all.push_back(*std::move(entry));
  }
  co_return all;
}

BitmapReader::BitmapReader(std::shared_ptr<BlockDevice> storage, const Header& header, BitmapEntry entry)
    : storage_(std::move(storage)),
      entry_(std::move(entry)),
      cluster_bytes_(header.cluster_bytes()),
      slices_(*storage_, cluster_bytes_, cache_bytes) {}

Task<Result<std::uint64_t>> BitmapReader::table_entry(std::uint64_t index) {
  const std::uint64_t at = entry_.table_offset + index * 8;
  DISKFERRY_CO_TRY(const auto slice, co_await slices_.load(slices_.slice_start(at)));
  const std::uint64_t raw = slice->word((at - slice->host_offset) / 8);
  const std::uint64_t offset = raw & offset_mask;
  if ((raw & table_entry_reserved_mask) != 0 || !is_aligned(offset, cluster_bytes_) ||
      (offset != 0 && (raw & 1) != 0))
    co_return unexpected(fail(ErrorKind::corrupt, "read bitmap", printable(entry_.name))
                             .why(fmt::format("table entry {} is invalid", index))
                             .at(at, 8));
  co_return raw;
}

Task<Result<std::vector<DirtyRange>>> BitmapReader::ranges(Range range, std::size_t ranges_max) {
  std::vector<DirtyRange> found;
  const std::uint64_t granularity = entry_.granularity_bytes();
  const std::uint64_t bits_per_cluster = cluster_bytes_ * 8;
  std::uint64_t at = range.offset;
  unsigned slices_looked_at = 0;
  while (at < range.end()) {
    const std::uint64_t bit = at / granularity;
    DISKFERRY_CO_TRY(const std::uint64_t entry, co_await table_entry(bit / bits_per_cluster));
    if (entry <= 1) {  // a whole cluster of bits
      const std::uint64_t end =
          std::min(range.end(), (bit / bits_per_cluster + 1) * bits_per_cluster * granularity);
      if (!add(found, {at, end - at, entry == 1}, ranges_max)) break;
      at = end;
      continue;
    }
    if (++slices_looked_at > slices_per_call_max && !found.empty()) break;
    const std::uint64_t byte_at = entry + bit % bits_per_cluster / 8;
    DISKFERRY_CO_TRY(const auto slice, co_await slices_.load(slices_.slice_start(byte_at)));
    const auto bytes = std::as_const(*slice).bytes();
    std::uint64_t bit_in_slice = (byte_at - slice->host_offset) * 8 + bit % 8;
    bool is_full = false;
    while (at < range.end() && bit_in_slice < bytes.size() * 8) {
      const auto byte = std::to_integer<unsigned>(bytes[bit_in_slice / 8]);
      const bool is_uniform = bit_in_slice % 8 == 0 && (byte == 0 || byte == 0xff);
      const std::uint64_t bits = is_uniform ? 8 : 1;
      const std::uint64_t end = std::min(range.end(), (at / granularity + bits) * granularity);
      if (!add(found, {at, end - at, (byte >> (bit_in_slice % 8) & 1) != 0}, ranges_max)) {
        is_full = true;
        break;
      }
      at = end;
      bit_in_slice += bits;
    }
    if (is_full) break;
  }
  co_return found;
}

}  // namespace diskferry::qcow2
