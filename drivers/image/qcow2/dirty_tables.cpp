// See dirty_tables.hpp for the order and why.
#include "drivers/image/qcow2/dirty_tables.hpp"

#include "drivers/image/qcow2/storage_read.hpp"

#include <cstring>

namespace diskferry::qcow2 {
namespace {

std::vector<std::byte> big_endian(std::size_t words, auto word) {
  std::vector<std::byte> bytes(words * 8);
  for (std::size_t i = 0; i < words; ++i) store_big<std::uint64_t>(bytes.data() + i * 8, word(i));
  return bytes;
}

Task<Result<void>> write_slices(ImageState& image, const TableChanges& changes, TableKind kind) {
  for (const auto& change : changes.slices) {
    if (change.kind != kind) continue;
    DISKFERRY_CO_CHECK(co_await write_storage(*image.storage, change.piece.offset, change.piece.bytes));
  }
  co_return Result<void>{};
}

Task<Result<void>> write_pieces(ImageState& image, const std::vector<TablePiece>& pieces) {
  for (const TablePiece& piece : pieces)
    DISKFERRY_CO_CHECK(co_await write_storage(*image.storage, piece.offset, piece.bytes));
  co_return Result<void>{};
}

}  // namespace

void DirtyTables::mark(const MetadataCache::Pointer& slice, std::size_t first, std::size_t end,
                       TableKind kind) {
  auto [at, is_new] = slices_.try_emplace(slice->host_offset, Dirty{slice, first, end, kind});
  Dirty& dirty = at->second;
  if (is_new) return;
  if (dirty.slice != slice) {  // the cluster has become another table since
    dirty = {slice, 0, slice->bytes().size(), kind};
    return;
  }
  dirty.first = std::min(dirty.first, first);
  dirty.end = std::max(dirty.end, end);
  // What is new stays new until it was written.
  if (dirty.kind == TableKind::l2_table) dirty.kind = kind;
}

TableChanges DirtyTables::take(std::span<const std::uint64_t> refcount_table) {
  TableChanges changes;
  changes.slices.reserve(slices_.size());
  for (auto& [offset, dirty] : slices_) {
    const std::size_t first = align_down(dirty.first, piece_bytes);
    std::lock_guard lock(dirty.slice->guard);
    const auto bytes = dirty.slice->bytes();
    const std::size_t end = std::min<std::size_t>(align_up(dirty.end, piece_bytes), bytes.size());
    dirty.slice->is_dirty = false;
    changes.slices.push_back({.slice = dirty.slice,
                              .first = first,
                              .end = end,
                              .kind = dirty.kind,
                              .piece = {offset + first,
                                        {bytes.begin() + static_cast<std::ptrdiff_t>(first),
                                         bytes.begin() + static_cast<std::ptrdiff_t>(end)}}});
  }
  constexpr std::size_t words = piece_bytes / 8;
  for (const std::uint64_t block : l1_blocks_) {
    const std::size_t first = block * words;
    const std::size_t count = std::min(words, image_.l1->size() - first);
    changes.l1.push_back({image_.header.l1_offset + first * 8,
                          big_endian(count, [&](std::size_t i) { return image_.l1->get(first + i); })});
  }
  for (const std::uint64_t block : refcount_table_blocks_) {
    const std::size_t first = block * words;
    const std::size_t count = std::min(words, refcount_table.size() - first);
    changes.refcount_table.push_back(
        {image_.header.refcount_table_offset + first * 8,
         big_endian(count, [&](std::size_t i) { return refcount_table[first + i]; })});
  }
  changes.is_retry = std::exchange(is_retry_, false);
  changes.l1_blocks = std::move(l1_blocks_);
  changes.refcount_table_blocks = std::move(refcount_table_blocks_);
  slices_.clear();
  l1_blocks_.clear();
  refcount_table_blocks_.clear();
  return changes;
}

void DirtyTables::put_back(const TableChanges& changes) {
  is_retry_ = true;
  for (const auto& change : changes.slices) {
    const auto found = slices_.find(change.slice->host_offset);
    // Marked again meanwhile, as part of another table: this one is history.
    if (found != slices_.end() && found->second.slice != change.slice) continue;
    mark(change.slice, change.first, change.end, change.kind);
    if (change.kind == TableKind::new_table)
      slices_.at(change.slice->host_offset).kind = TableKind::new_table;
  }
  l1_blocks_.insert(changes.l1_blocks.begin(), changes.l1_blocks.end());
  refcount_table_blocks_.insert(changes.refcount_table_blocks.begin(), changes.refcount_table_blocks.end());
}

Task<Result<void>> write_tables(ImageState& image, const TableChanges& changes) {
  DISKFERRY_CO_CHECK(co_await write_slices(image, changes, TableKind::refcount_block));
  if (changes.is_retry) DISKFERRY_CO_CHECK(co_await flush_below(image));
  DISKFERRY_CO_CHECK(co_await write_slices(image, changes, TableKind::new_table));
  if (!changes.refcount_table.empty()) {
    DISKFERRY_CO_CHECK(co_await flush_below(image));
    DISKFERRY_CO_CHECK(co_await write_pieces(image, changes.refcount_table));
  }
  DISKFERRY_CO_CHECK(co_await flush_below(image));
  bool anything_pointed_to = !changes.l1.empty();
  for (const auto& change : changes.slices) anything_pointed_to |= change.kind == TableKind::l2_table;
  if (!anything_pointed_to) co_return Result<void>{};
  DISKFERRY_CO_CHECK(co_await write_slices(image, changes, TableKind::l2_table));
  DISKFERRY_CO_CHECK(co_await write_pieces(image, changes.l1));
  co_return co_await image.storage->flush();
}

Task<Result<void>> write_storage(BlockDevice& storage, std::uint64_t offset,
                                 std::span<const std::byte> from) {
  const std::uint32_t block = storage.info().block_bytes;
  if (is_aligned(offset, block) && is_aligned(from.size(), block))
    co_return co_await storage.write(offset, from, {});
  const std::uint64_t first = align_down(offset, block);
  std::vector<std::byte> whole(align_up(offset + from.size(), block) - first);
  DISKFERRY_CO_CHECK(co_await read_storage(storage, first, whole));
  std::memcpy(whole.data() + (offset - first), from.data(), from.size());
  co_return co_await storage.write(first, whole, {});
}

Task<Result<void>> flush_below(ImageState& image) {
  if (image.data_file) DISKFERRY_CO_CHECK(co_await image.data_file->flush());
  co_return co_await image.storage->flush();
}

}  // namespace diskferry::qcow2
