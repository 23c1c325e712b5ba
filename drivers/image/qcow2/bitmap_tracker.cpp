// See bitmap_tracker.hpp.
#include "drivers/image/qcow2/bitmap_tracker.hpp"

#include "drivers/image/qcow2/storage_read.hpp"

#include <algorithm>

namespace diskferry::qcow2 {
namespace {
constexpr std::size_t entry_bytes = 24;  // specification: the fixed part of a directory entry
constexpr std::size_t flags_at = 12;
constexpr std::uint64_t all_ones = 1;  // a table entry without a cluster
}  // namespace

std::vector<std::shared_ptr<const RecordedBitmap>> BitmapTracker::recorded() const {
  std::vector<std::shared_ptr<const RecordedBitmap>> all;
  for (const auto& one : tracked_) all.push_back(one->bitmap);
  return all;
}

Task<Result<bool>> BitmapTracker::open(ImageState& image, MetadataMap& metadata) {
  const BitmapsExtension& where = *image.header.bitmaps;
  if (where.directory_bytes > directory_bytes_max) co_return false;
  DISKFERRY_CO_TRY(const auto entries, co_await load_bitmap_directory(*image.storage, image.header));
  std::vector<std::byte> directory(where.directory_bytes);
  DISKFERRY_CO_CHECK(co_await read_storage(*image.storage, where.directory_offset, directory));
  std::uint64_t held = 0;
  std::size_t at = 0;
  struct InUse {
    std::uint64_t flags_offset;
    std::uint32_t flags;
  };
  std::vector<InUse> in_use;
  for (const BitmapEntry& entry : entries) {
    if (directory.size() - at < entry_bytes) co_return false;
    const std::byte* raw = directory.data() + at;
    const std::uint64_t name = load_big<std::uint16_t>(raw + 18);
    const std::uint64_t extra = load_big<std::uint32_t>(raw + 20);
    if (load_big<std::uint64_t>(raw) != entry.table_offset) co_return false;
    const std::uint64_t flags_offset = where.directory_offset + at + flags_at;
    const std::uint64_t next = at + align_up(entry_bytes + name + extra, 8);
    if (next > directory.size()) co_return false;
    at = next;
    // What does not record writes stays as it is; what is invalid stays invalid.
    if (!entry.is_auto() || entry.is_in_use() || !entry.problem.empty()) continue;
    const std::uint64_t bits = divide_up(image.size_bytes, entry.granularity_bytes());
    const std::uint64_t bytes = divide_up(bits, 8);
    in_use.push_back({flags_offset, entry.flags | bitmap_flag::in_use});
    held += bytes;
    if (held > bits_bytes_max || bytes > entry.table_entries * image.geometry.cluster_bytes()) continue;
    auto one = std::make_unique<Tracked>(std::make_shared<RecordedBitmap>(entry, image.size_bytes),
                                         flags_offset, std::vector<std::uint64_t>(entry.table_entries));
    DISKFERRY_CO_TRY(const bool can_be_kept, co_await load(image, metadata, *one));
    // The others stay in use: nobody will believe them again.
    if (can_be_kept) tracked_.push_back(std::move(one));
  }
  // Before the first change of the disk; and after all that can fail, so that an image that does not open
  // keeps its bitmaps.
  for (const auto& [offset, flags] : in_use) DISKFERRY_CO_CHECK(co_await write_flags(image, offset, flags));
  DISKFERRY_CO_CHECK(co_await image.storage->flush());
  co_return true;
}

Task<Result<bool>> BitmapTracker::load(ImageState& image, MetadataMap& metadata, Tracked& one) {
  const std::uint64_t cluster = image.geometry.cluster_bytes();
  std::vector<std::byte> table(one.table.size() * 8);
  DISKFERRY_CO_CHECK(co_await read_storage(*image.storage, one.bitmap->entry().table_offset, table));
  if (!metadata.add({one.bitmap->entry().table_offset, table.size()})) co_return false;
  std::vector<std::byte> data(cluster);
  for (std::size_t i = 0; i < one.table.size(); ++i) {
    one.table[i] = load_big<std::uint64_t>(table.data() + i * 8);
    const std::uint64_t host = one.table[i] & offset_mask;
    if (host != 0) {
      // It will be written: not what other tables own, and not where nothing is.
      if (!is_aligned(host, cluster) || host >= image.storage->size_bytes() || !metadata.add({host, cluster}))
        co_return false;
      DISKFERRY_CO_CHECK(co_await read_storage(*image.storage, host, data));
    } else {
      std::ranges::fill(data, one.table[i] == all_ones ? std::byte{0xff} : std::byte{0});
    }
    const std::uint64_t first = i * cluster;
    for (std::uint64_t b = first; b < std::min<std::uint64_t>(one.bitmap->bytes(), first + cluster); ++b)
      one.bitmap->set_byte(b, std::to_integer<std::uint8_t>(data[b - first]));
  }
  co_return true;
}

Task<Result<void>> BitmapTracker::write_flags(ImageState& image, std::uint64_t offset, std::uint32_t flags) {
  std::array<std::byte, 4> raw;
  store_big(raw.data(), flags);
  co_return co_await write_storage(*image.storage, offset, raw);
}

Task<Result<void>> BitmapTracker::store_data(ImageState& image, Allocator& allocator) {
  const std::uint64_t cluster = image.geometry.cluster_bytes();
  std::vector<std::byte> data(cluster);
  for (const auto& one : tracked_) {
    if (!one->bitmap->is_changed()) continue;
    const std::uint64_t used_bits = divide_up(image.size_bytes, one->bitmap->entry().granularity_bytes());
    for (std::size_t i = 0; i < one->table.size(); ++i) {
      const std::uint64_t first = i * cluster;
      std::ranges::fill(data, std::byte{0});
      for (std::uint64_t b = first; b < std::min<std::uint64_t>(one->bitmap->bytes(), first + cluster); ++b)
        data[b - first] = std::byte{one->bitmap->byte(b)};
      // The specification wants unused bits to be zero.
      if (used_bits % 8 != 0 && used_bits / 8 >= first && used_bits / 8 < first + cluster)
        data[used_bits / 8 - first] &= static_cast<std::byte>((1u << used_bits % 8) - 1);
      std::uint64_t host = one->table[i] & offset_mask;
      if (host == 0) {
        if (is_zero(data)) {
          one->table[i] = 0;
          continue;
        }
        DISKFERRY_CO_TRY(const auto run, co_await allocator.allocate(1, true));
        if (!run)
          co_return unexpected(
              fail(ErrorKind::no_space, "store a bitmap", image.name).why("the refcount table is full"));
        host = run->offset;
        one->table[i] = host;
      }
      DISKFERRY_CO_CHECK(co_await write_storage(*image.storage, host, data));
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> BitmapTracker::finish(ImageState& image) {
  if (tracked_.empty()) co_return Result<void>{};
  for (const auto& one : tracked_) {
    if (!one->bitmap->is_changed()) continue;
    std::vector<std::byte> table(one->table.size() * 8);
    for (std::size_t i = 0; i < one->table.size(); ++i) store_big(table.data() + i * 8, one->table[i]);
    DISKFERRY_CO_CHECK(co_await write_storage(*image.storage, one->bitmap->entry().table_offset, table));
  }
  DISKFERRY_CO_CHECK(co_await image.storage->flush());
  for (const auto& one : tracked_)
    DISKFERRY_CO_CHECK(co_await write_flags(image, one->flags_offset, one->bitmap->entry().flags));
  co_return co_await image.storage->flush();
}

}  // namespace diskferry::qcow2
