// Loading of table slices and L1 tables.
#include "drivers/image/qcow2/metadata_cache.hpp"

#include "diskferry/assert.hpp"
#include "drivers/image/qcow2/storage_read.hpp"

#include <algorithm>

namespace diskferry::qcow2 {

Task<Result<MetadataCache::Pointer>> MetadataCache::load(std::uint64_t host_offset) {
  DISKFERRY_CO_TRY(auto lookup, co_await slices_.find_or_claim(host_offset));
  if (lookup.value) co_return std::move(lookup.value);
  if (!is_inside({host_offset, slice_bytes_}, storage_.size_bytes()))
    co_return unexpected(fail(ErrorKind::corrupt, "read table", storage_.info().name)
                             .why("a table lies beyond the end of the file")
                             .at(host_offset, slice_bytes_));
  auto slice = std::make_shared<TableSlice>(host_offset, slice_bytes_);
  if (auto read = co_await read_storage(storage_, host_offset, slice->bytes()); !read)
    co_return unexpected(std::move(read).error().in("read table"));
  lookup.claim.publish(slice, slice_bytes_);
  co_return slice;
}

L1Table::L1Table(BlockDevice& storage, std::uint64_t host_offset, std::size_t entries)
    : storage_(storage),
      host_offset_(host_offset),
      size_(entries),
      pieces_(divide_up(entries, piece_entries)) {}

L1Table::~L1Table() {
  for (auto& one : pieces_) delete[] one.load();
}

Task<Result<void>> L1Table::load(std::size_t index) {
  DISKFERRY_ASSERT(index < size_, "an L1 index lies inside the table");
  const std::size_t number = index / piece_entries;
  const std::size_t first = number * piece_entries;
  const std::size_t count = std::min(piece_entries, size_ - first);
  const Range where{host_offset_ + first * 8, count * 8};
  if (!is_inside(where, storage_.size_bytes()))
    co_return unexpected(fail(ErrorKind::corrupt, "read L1 table", storage_.info().name)
                             .why("the table lies beyond the end of the file")
                             .at(where.offset, where.length));
  std::vector<std::byte> bytes(where.length);
  if (auto read = co_await read_storage(storage_, where.offset, bytes); !read)
    co_return unexpected(std::move(read).error().in("read L1 table"));
  auto entries = std::make_unique<Entry[]>(count);
  for (std::size_t i = 0; i < count; ++i)
    entries[i].store(load_big<std::uint64_t>(bytes.data() + i * 8), std::memory_order_relaxed);
  // Two may have loaded it at the same time; the first one's stays.
  Entry* none = nullptr;
  if (pieces_[number].compare_exchange_strong(none, entries.get())) (void)entries.release();
  co_return Result<void>{};
}

Task<Result<void>> L1Table::load_all() {
  for (std::size_t at = 0; at < size_; at += piece_entries) {
    if (!is_loaded(at)) DISKFERRY_CO_CHECK(co_await load(at));
  }
  co_return Result<void>{};
}

}  // namespace diskferry::qcow2
