// Loading of table slices and L1 tables.
#include "drivers/image/qcow2/metadata_cache.hpp"

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

Task<Result<std::unique_ptr<L1Table>>> load_l1(BlockDevice& storage, std::uint64_t offset,
                                               std::size_t entries) {
  if (!is_inside({offset, entries * 8}, storage.size_bytes()))
    co_return unexpected(fail(ErrorKind::corrupt, "read L1 table", storage.info().name)
                             .why("the table lies beyond the end of the file")
                             .at(offset, entries * 8));
  auto table = std::make_unique<L1Table>(entries);
  std::vector<std::byte> piece(std::min<std::size_t>(entries * 8, 256 * kib));
  for (std::size_t at = 0; at < entries;) {
    const std::size_t now = std::min(piece.size() / 8, entries - at);
    if (auto read = co_await read_storage(storage, offset + at * 8, std::span(piece).first(now * 8)); !read)
      co_return unexpected(std::move(read).error().in("read L1 table"));
    for (std::size_t i = 0; i < now; ++i) table->set(at + i, load_big<std::uint64_t>(piece.data() + i * 8));
    at += now;
  }
  co_return std::move(table);
}

}  // namespace diskferry::qcow2
