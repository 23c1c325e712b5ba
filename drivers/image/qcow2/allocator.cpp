// See allocator.hpp. A missing refcount block is put on the first cluster it counts.
#include "drivers/image/qcow2/allocator.hpp"

#include "drivers/image/qcow2/storage_read.hpp"

#include <fmt/format.h>

namespace diskferry::qcow2 {

Task<Result<void>> Allocator::load() {
  const Header& header = image_.header;
  if (header.refcount_table_offset == 0)
    co_return unexpected(fail(ErrorKind::corrupt, "open for writing", image_.name)
                             .why("the image has no refcount table")
                             .remedy("repair a copy of the image with qemu-img check -r all"));
  std::vector<std::byte> bytes(header.refcount_table_clusters * header.cluster_bytes());
  if (!is_inside({header.refcount_table_offset, bytes.size()},
                 align_up(image_.storage->size_bytes(), header.cluster_bytes())))
    co_return unexpected(fail(ErrorKind::corrupt, "read refcount table", image_.name)
                             .why("the table lies beyond the end of the file")
                             .at(header.refcount_table_offset, bytes.size()));
  DISKFERRY_CO_CHECK(co_await read_storage(*image_.storage, header.refcount_table_offset, bytes));
  table_.resize(bytes.size() / 8);
  for (std::size_t i = 0; i < table_.size(); ++i) {
    const auto entry =
        decode_refcount_table_entry(load_big<std::uint64_t>(bytes.data() + i * 8), image_.geometry);
    if (!entry)
      co_return unexpected(fail(ErrorKind::corrupt, "read refcount table", image_.name)
                               .why(fmt::format("entry {} is not the address of a cluster", i))
                               .remedy("repair a copy of the image with qemu-img check -r all"));
    table_[i] = *entry;
  }
  end_bytes_ = align_up(image_.storage->size_bytes(), header.cluster_bytes());
  co_return Result<void>{};
}

Error Allocator::full() const {
  return fail(ErrorKind::no_space, "allocate a cluster", image_.name)
      .why(fmt::format("the image fills its storage of {} bytes, which cannot grow",
                       image_.storage->size_bytes()))
      .remedy("enlarge the storage, or use a larger one");
}

Error Allocator::overlap(std::uint64_t cluster) const {
  return fail(ErrorKind::corrupt, "allocate a cluster", image_.name)
      .why(fmt::format("the cluster at host offset {} counts as free, but holds metadata",
                       cluster << image_.geometry.cluster_bits))
      .remedy("repair a copy of the image with qemu-img check -r all");
}

Task<Result<Allocator::Place>> Allocator::place_of(std::uint64_t cluster) {
  const Geometry& geometry = image_.geometry;
  const std::uint64_t block = cluster / geometry.refcounts_per_block();
  const std::uint64_t index = cluster % geometry.refcounts_per_block();
  Place place;
  if (block >= table_.size() || table_[block] == 0) {
    place.left = geometry.refcounts_per_block() - index;
    co_return place;
  }
  const std::uint64_t per_slice = image_.tables.slice_bytes() * 8 >> geometry.refcount_order;
  DISKFERRY_CO_TRY(place.slice, co_await image_.tables.load(table_[block] +
                                                            index / per_slice * image_.tables.slice_bytes()));
  place.index = index % per_slice;
  place.left = per_slice - place.index;
  co_return place;
}

Task<Result<std::uint64_t>> Allocator::references(std::uint64_t offset) {
  DISKFERRY_CO_TRY(const Place place, co_await place_of(offset >> image_.geometry.cluster_bits));
  if (!place.slice) co_return 0;
  std::lock_guard lock(place.slice->guard);
  co_return load_refcount(place.slice->bytes(), place.index, image_.geometry.refcount_order);
}

Task<Result<void>> Allocator::set_references(std::uint64_t first, std::uint64_t clusters,
                                             std::uint64_t value) {
  const unsigned order = image_.geometry.refcount_order;
  while (clusters != 0) {
    DISKFERRY_CO_TRY(const Place place, co_await place_of(first));
    if (!place.slice)
      co_return unexpected(fail(ErrorKind::corrupt, "count references", image_.name)
                               .why(fmt::format("the cluster at host offset {} has no refcount block",
                                                first << image_.geometry.cluster_bits)));
    const std::uint64_t now = std::min(clusters, place.left);
    {
      std::lock_guard lock(place.slice->guard);
      for (std::uint64_t i = 0; i < now; ++i)
        store_refcount(place.slice->bytes(), place.index + i, order, value);
    }
    dirty_.mark(place.slice, (place.index << order) / 8, ((place.index + now - 1) << order) / 8 + 1,
                TableKind::refcount_block);
    first += now;
    clusters -= now;
  }
  co_return Result<void>{};
}

Task<Result<void>> Allocator::add_references(std::uint64_t offset, std::uint64_t count) {
  DISKFERRY_CO_TRY(const std::uint64_t before, co_await references(offset));
  co_return co_await set_references(offset >> image_.geometry.cluster_bits, 1, before + count);
}

std::uint64_t Allocator::room_for(std::uint64_t first, std::uint64_t clusters) const {
  std::uint64_t end = host_offset_max >> image_.geometry.cluster_bits;
  if (!image_.storage->info().can_grow)
    end = std::min(end, image_.storage->size_bytes() >> image_.geometry.cluster_bits);
  return first >= end ? 0 : std::min(clusters, end - first);
}

void Allocator::put_block_in_cache(std::uint64_t offset, std::uint64_t references_from_start) {
  const std::uint64_t slice_bytes = image_.tables.slice_bytes();
  const unsigned order = image_.geometry.refcount_order;
  const std::uint64_t per_slice = slice_bytes * 8 >> order;
  for (std::uint64_t at = 0; at < image_.geometry.cluster_bytes(); at += slice_bytes) {
    auto slice = std::make_shared<TableSlice>(offset + at, slice_bytes);
    const std::uint64_t taken = std::min(per_slice, references_from_start);
    for (std::uint64_t i = 0; i < taken; ++i) store_refcount(slice->bytes(), i, order, 1);
    references_from_start -= taken;
    image_.tables.insert(slice);
    dirty_.mark(slice, 0, slice_bytes, TableKind::refcount_block);
  }
}

Result<void> Allocator::add_block(std::uint64_t block) {
  const std::uint64_t cluster = block * image_.geometry.refcounts_per_block();
  if (room_for(cluster, 1) == 0) return unexpected(full());
  const Range host{cluster << image_.geometry.cluster_bits, image_.geometry.cluster_bytes()};
  if (!metadata_.add(host)) return unexpected(overlap(cluster));
  put_block_in_cache(host.offset, 1);
  table_[block] = host.offset;
  dirty_.mark_refcount_table(block);
  end_bytes_ = std::max(end_bytes(), host.end());
  return {};
}

Task<Result<void>> Allocator::take(HostRun& run) {
  const std::uint64_t first = run.offset >> image_.geometry.cluster_bits;
  DISKFERRY_CO_CHECK(co_await set_references(first, run.clusters, 1));
  const std::uint64_t end = run.offset + run.clusters * image_.geometry.cluster_bytes();
  run.is_fresh = image_.storage->info().can_grow && run.offset >= end_bytes();
  end_bytes_ = std::max(end_bytes(), end);
  co_return Result<void>{};
}

Task<Result<std::optional<HostRun>>> Allocator::allocate(std::uint64_t clusters_max, bool exact) {
  const Geometry& geometry = image_.geometry;
  const std::uint64_t per_block = geometry.refcounts_per_block();
  std::uint64_t at = search_from_;
  std::uint64_t run = 0;                  // free clusters right before `at`
  std::uint64_t first_free = UINT64_MAX;  // seen and perhaps left
  bool is_done = false;
  while (!is_done) {
    const std::uint64_t block = at / per_block;
    if (block >= table_.size() || table_[block] == 0) {
      if (run != 0 && !exact) break;
      if (block >= table_.size()) co_return std::nullopt;
      DISKFERRY_CO_CHECK(add_block(block));
      at = std::max(at, block * per_block + 1);
      run = 0;
      continue;
    }
    DISKFERRY_CO_TRY(const Place place, co_await place_of(at));
    std::lock_guard lock(place.slice->guard);
    for (std::uint64_t i = 0; i < place.left && !is_done; ++i, ++at) {
      if (load_refcount(place.slice->bytes(), place.index + i, geometry.refcount_order) != 0) {
        is_done = run != 0 && !exact;
        if (is_done) break;
        run = 0;
        continue;
      }
      if (metadata_.overlaps({at << geometry.cluster_bits, 1})) co_return unexpected(overlap(at));
      first_free = std::min(first_free, at);
      is_done = ++run == clusters_max;
    }
  }
  HostRun found{.offset = (at - run) << geometry.cluster_bits, .clusters = room_for(at - run, run)};
  if (found.clusters == 0 || (exact && found.clusters < clusters_max)) co_return unexpected(full());
  DISKFERRY_CO_CHECK(co_await take(found));
  // Without gaps before it, the next search starts behind this run.
  search_from_ = first_free == at - run ? at - run + found.clusters : first_free;
  co_return found;
}

Task<Result<bool>> Allocator::allocate_at(std::uint64_t offset, std::uint64_t clusters) {
  const std::uint64_t first = offset >> image_.geometry.cluster_bits;
  if (room_for(first, clusters) != clusters) co_return false;
  for (std::uint64_t i = 0; i < clusters; ++i) {
    DISKFERRY_CO_TRY(const Place place, co_await place_of(first + i));
    if (!place.slice || metadata_.overlaps({(first + i) << image_.geometry.cluster_bits, 1})) co_return false;
    std::lock_guard lock(place.slice->guard);
    if (load_refcount(place.slice->bytes(), place.index, image_.geometry.refcount_order) != 0)
      co_return false;
  }
  HostRun run{.offset = offset, .clusters = clusters};
  DISKFERRY_CO_CHECK(co_await take(run));
  if (search_from_ == first) search_from_ += clusters;
  co_return true;
}

Task<Result<void>> Allocator::give_back(HostRun run) {
  const std::uint64_t first = run.offset >> image_.geometry.cluster_bits;
  search_from_ = std::min(search_from_, first);
  co_return co_await set_references(first, run.clusters, 0);
}

Task<Result<std::vector<std::uint64_t>>> Allocator::drop_references(const std::vector<std::uint64_t>& freed) {
  std::vector<std::uint64_t> unused;
  for (std::size_t i = 0; i < freed.size();) {
    std::size_t count = 1;
    while (i + count < freed.size() && freed[i + count] == freed[i]) ++count;
    const std::uint64_t offset = freed[i];
    i += count;
    DISKFERRY_CO_TRY(const std::uint64_t before, co_await references(offset));
    if (before < count)
      co_return unexpected(
          fail(ErrorKind::corrupt, "free a cluster", image_.name)
              .why(fmt::format("the cluster at host offset {} was in use, but has {} references, not {}",
                               offset, before, count))
              .remedy("repair a copy of the image with qemu-img check -r all"));
    if (before == count) {
      unused.push_back(offset);
    } else {
      DISKFERRY_CO_CHECK(co_await set_references(offset >> image_.geometry.cluster_bits, 1, before - count));
    }
  }
  co_return unused;
}

Task<Result<void>> Allocator::forget_clusters(const std::vector<std::uint64_t>& clusters) {
  for (const std::uint64_t offset : clusters) {
    const std::uint64_t cluster = offset >> image_.geometry.cluster_bits;
    DISKFERRY_CO_CHECK(co_await set_references(cluster, 1, 0));
    search_from_ = std::min(search_from_, cluster);
  }
  co_return Result<void>{};
}

Result<void> Allocator::add_missing_blocks(Recount& recount) {
  const Geometry& geometry = image_.geometry;
  const std::uint64_t per_block = geometry.refcounts_per_block();
  // A block takes a cluster that is counted itself, perhaps at the end: until nothing is missing any more.
  for (std::uint64_t at = 0; at < recount.clusters(); ++at) {
    const std::uint64_t block = at / per_block;
    if (recount.of(at) == 0) continue;
    if (block >= table_.size())
      return unexpected(
          fail(ErrorKind::corrupt, "count references", image_.name)
              .why(fmt::format("the refcount table does not reach the cluster at host offset {}",
                               at << geometry.cluster_bits))
              .remedy("repair a copy of the image with qemu-img check -r all"));
    if (table_[block] == 0) {
      const std::uint64_t cluster = recount.take_free();
      if (room_for(cluster, 1) == 0) return unexpected(full());
      const Range host{cluster << geometry.cluster_bits, geometry.cluster_bytes()};
      if (!metadata_.add(host)) return unexpected(overlap(cluster));
      put_block_in_cache(host.offset, 0);
      table_[block] = host.offset;
      dirty_.mark_refcount_table(block);
      end_bytes_ = std::max(end_bytes(), host.end());
      // Before where we are: that block's turn comes once more.
      at = std::min(at, cluster) - 1;
      continue;
    }
    at = (block + 1) * per_block - 1;
  }
  return {};
}

Task<Result<void>> Allocator::correct_block(const Recount& recount, std::uint64_t block) {
  if (table_[block] == 0) co_return Result<void>{};
  const std::uint64_t first = block * image_.geometry.refcounts_per_block();
  const std::uint64_t end = first + image_.geometry.refcounts_per_block();
  const unsigned order = image_.geometry.refcount_order;
  for (std::uint64_t at = first; at < end;) {
    DISKFERRY_CO_TRY(const Place place, co_await place_of(at));
    std::uint64_t changed_first = UINT64_MAX;
    std::uint64_t changed_last = 0;
    {
      std::lock_guard lock(place.slice->guard);
      for (std::uint64_t i = 0; i < place.left; ++i) {
        const std::uint64_t wanted = at + i < recount.clusters() ? recount.of(at + i) : 0;
        if (load_refcount(place.slice->bytes(), place.index + i, order) == wanted) continue;
        store_refcount(place.slice->bytes(), place.index + i, order, wanted);
        changed_first = std::min(changed_first, place.index + i);
        changed_last = place.index + i;
      }
    }
    if (changed_first != UINT64_MAX)
      dirty_.mark(place.slice, (changed_first << order) / 8, (changed_last << order) / 8 + 1,
                  TableKind::refcount_block);
    at += place.left;
  }
  co_return Result<void>{};
}

Task<Result<void>> Allocator::grow_table() {
  const Geometry& geometry = image_.geometry;
  const std::uint64_t cluster_bytes = geometry.cluster_bytes();
  const std::uint64_t old_entries = table_.size();
  // Twice the size, so that growing stays rare; the new area lies where the old table's reach ends.
  const std::uint64_t table_clusters =
      std::min(old_entries * 8 * 2, refcount_table_bytes_max) / cluster_bytes;
  const std::uint64_t first = old_entries * geometry.refcounts_per_block();
  std::uint64_t blocks = 1;
  while (blocks * geometry.refcounts_per_block() < table_clusters + blocks) ++blocks;
  const std::uint64_t clusters = table_clusters + blocks;
  if (table_clusters * cluster_bytes / 8 < old_entries + blocks)
    co_return unexpected(
        fail(ErrorKind::too_large, "grow the refcount table", image_.name)
            .why(fmt::format("it has the largest size of {} bytes", refcount_table_bytes_max))
            .remedy("copy the image to one with larger clusters"));
  if (room_for(first, clusters) != clusters) co_return unexpected(full());
  const Range host{first << geometry.cluster_bits, clusters * cluster_bytes};
  if (metadata_.overlaps(host)) co_return unexpected(overlap(first));

  std::vector<std::byte> area(host.length);
  for (std::uint64_t i = 0; i < clusters; ++i)
    store_refcount(std::span(area).first(blocks * cluster_bytes), i, geometry.refcount_order, 1);
  std::vector<std::uint64_t> table = table_;
  table.resize(table_clusters * cluster_bytes / 8);
  for (std::uint64_t i = 0; i < blocks; ++i) table[old_entries + i] = host.offset + i * cluster_bytes;
  const std::uint64_t table_offset = host.offset + blocks * cluster_bytes;
  for (std::size_t i = 0; i < table.size(); ++i)
    store_big<std::uint64_t>(area.data() + blocks * cluster_bytes + i * 8, table[i]);
  end_bytes_ = std::max(end_bytes(), host.end());
  DISKFERRY_CO_CHECK(co_await write_storage(*image_.storage, host.offset, area));
  DISKFERRY_CO_CHECK(co_await flush_below(image_));
  metadata_.add(host);
  for (std::uint64_t at = 0; at < old_entries * 8; at += cluster_bytes)
    free_later(image_.header.refcount_table_offset + at);
  for (std::uint64_t at = 0; at < blocks * cluster_bytes; at += image_.tables.slice_bytes())
    image_.tables.forget(host.offset + at);
  table_ = std::move(table);
  image_.header.refcount_table_offset = table_offset;
  image_.header.refcount_table_clusters = static_cast<std::uint32_t>(table_clusters);
  dirty_.forget_refcount_table();
  is_header_behind_ = true;
  co_return co_await settle_header();
}

Task<Result<void>> Allocator::settle_header() {
  if (!is_header_behind_) co_return Result<void>{};
  // The two fields lie side by side (bytes 48 to 59), so that one write switches.
  std::array<std::byte, 12> fields;
  store_big<std::uint64_t>(fields.data(), image_.header.refcount_table_offset);
  store_big<std::uint32_t>(fields.data() + 8, image_.header.refcount_table_clusters);
  DISKFERRY_CO_CHECK(co_await write_storage(*image_.storage, 48, fields));
  DISKFERRY_CO_CHECK(co_await image_.storage->flush());
  is_header_behind_ = false;
  co_return Result<void>{};
}

}  // namespace diskferry::qcow2
