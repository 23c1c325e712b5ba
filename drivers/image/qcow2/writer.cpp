// What all kinds of writing share: locks, making L2 tables our own, and the commit.
#include "drivers/image/qcow2/writer.hpp"

#include "drivers/image/qcow2/storage_read.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry::qcow2 {
namespace {
/// Clusters that wait for a commit to be free.
constexpr std::size_t freed_max = 16384;
/// Memory for copying around writes: each takes at most two clusters of 2 MiB and the payload between.
constexpr std::size_t edge_bytes_max = 32 * mib;
}  // namespace

Writer::Writer(ImageState& image, bool compress_writes)
    : image_(image),
      geometry_(image.geometry),
      compress_(compress_writes && !image.data_file),
      has_raw_data_file_(image.data_file && image.header.has_raw_data_file()),
      metadata_(image.header.cluster_bits),
      dirty_(image),
      allocator_(image, dirty_, metadata_),
      edges_(edge_bytes_max),
      deflated_(edge_bytes_max) {}
Writer::~Writer() = default;

Task<Writer::Lock> Writer::lock_always(AsyncMutex& mutex) {
  // What was begun must be finished also when the task is cancelled meanwhile: a cancelled task cannot queue,
  // so it tries again after everybody else had a turn.
  while (true) {
    if (auto now = mutex.try_lock()) co_return *std::move(now);
    if (auto lock = co_await mutex.lock()) co_return *std::move(lock);
    co_await boost::asio::post(co_await boost::asio::this_coro::executor,
                               boost::asio::use_awaitable_t<Executor>{});
  }
}

Result<void> Writer::check_usable() const {
  if (!is_condemned_.load(std::memory_order_relaxed)) return {};
  return unexpected(fail(ErrorKind::corrupt, "write", image_.name)
                        .why("the image was found to be damaged and is not written any more")
                        .remedy("repair a copy of the image with qemu-img check -r all"));
}

Task<void> Writer::condemn(const Error& error) {
  if (error.kind() != ErrorKind::corrupt || is_condemned_.exchange(true)) co_return;
  if (image_.header.version < 3) co_return;
  image_.header.incompatible_features |= incompatible::corrupt;
  // If this fails, the image is as damaged as before; the first error is what counts.
  (void)co_await patch_header(72, image_.header.incompatible_features);
}

bool Writer::is_zero_below(Range guest) const {
  return !image_.backing || guest.offset >= image_.backing->size_bytes();
}

Task<Result<std::optional<std::uint64_t>>> Writer::own_l2_table(std::uint64_t l1_index) {
  const L1Entry old = decode_l1(image_.l1->get(l1_index), geometry_);
  if (old.problem != EntryProblem::none)
    co_return unexpected(fail(ErrorKind::corrupt, "write", image_.name)
                             .why(fmt::format("L1 entry {} {}", l1_index, to_string(old.problem))));
  if (old.l2_offset != 0 && old.is_copied) co_return old.l2_offset;

  const std::uint64_t slice_bytes = image_.tables.slice_bytes();
  std::vector<MetadataCache::Pointer> content;
  if (old.l2_offset != 0) {
    for (std::uint64_t at = 0; at < geometry_.cluster_bytes(); at += slice_bytes) {
      DISKFERRY_CO_TRY(auto slice, co_await image_.tables.load(old.l2_offset + at));
      content.push_back(std::move(slice));
    }
  }
  DISKFERRY_CO_TRY(const auto host, co_await allocator_.allocate(1, true));
  if (!host) co_return std::nullopt;
  const bool clear_copied = !image_.data_file;
  for (std::uint64_t at = 0; at < geometry_.cluster_bytes(); at += slice_bytes) {
    auto slice = std::make_shared<TableSlice>(host->offset + at, slice_bytes);
    if (!content.empty()) {
      TableSlice& from = *content[at / slice_bytes];
      std::lock_guard lock(from.guard);
      slice->words = from.words;
      // Whatever a shared table points to is shared, too.
      for (std::size_t i = 0; clear_copied && i < slice->words.size(); i += geometry_.l2_entry_bytes() / 8)
        slice->set_word(i, slice->word(i) & ~flag_copied);
    }
    image_.tables.insert(slice);
    dirty_.mark(slice, 0, slice_bytes, TableKind::new_table);
  }
  metadata_.add({host->offset, geometry_.cluster_bytes()});
  image_.l1->set(l1_index, encode_l1(host->offset, true));
  dirty_.mark_l1(l1_index);
  if (old.l2_offset != 0) allocator_.free_later(old.l2_offset);
  co_return host->offset;
}

Task<Result<std::optional<Writer::Entries>>> Writer::entries_for_writing(Range range) {
  DISKFERRY_CO_TRY(const auto l2_offset, co_await own_l2_table(geometry_.l1_index(range.offset)));
  if (!l2_offset) co_return std::nullopt;
  const std::uint64_t at = *l2_offset + geometry_.l2_index(range.offset) * geometry_.l2_entry_bytes();
  const std::uint64_t slice_at = image_.tables.slice_start(at);
  Entries entries{.first_cluster = geometry_.cluster_start(range.offset)};
  DISKFERRY_CO_TRY(entries.slice, co_await image_.tables.load(slice_at));
  entries.first_index = (at - slice_at) / geometry_.l2_entry_bytes();
  const std::uint64_t wanted = divide_up(range.end() - entries.first_cluster, geometry_.cluster_bytes());
  const std::uint64_t in_slice =
      image_.tables.slice_bytes() / geometry_.l2_entry_bytes() - entries.first_index;
  entries.count = std::min(wanted, in_slice);
  co_return entries;
}

L2Entry Writer::entry(const Entries& entries, std::size_t i) const {
  const std::size_t words = geometry_.l2_entry_bytes() / 8;
  const std::size_t at = (entries.first_index + i) * words;
  std::lock_guard lock(entries.slice->guard);
  return decode_l2(entries.slice->word(at), words == 2 ? entries.slice->word(at + 1) : 0, image_.rules);
}

void Writer::set_entry(const Entries& entries, std::size_t i, const L2Entry& value) {
  const std::size_t words = geometry_.l2_entry_bytes() / 8;
  const std::size_t at = (entries.first_index + i) * words;
  const L2Words raw = encode_l2(value, image_.rules);
  {
    std::lock_guard lock(entries.slice->guard);
    entries.slice->set_word(at, raw.entry);
    if (words == 2) entries.slice->set_word(at + 1, raw.bitmap);
  }
  dirty_.mark(entries.slice, at * 8, (at + words) * 8, TableKind::l2_table);
  if (dirty_.held_bytes() > dirty_bytes_max) is_full_of_dirt_ = true;
}

void Writer::free_entry(const L2Entry& old) {
  if (image_.data_file) return;
  const Range host = old.kind == ClusterKind::compressed
                         ? Range{old.compressed.host_offset, old.compressed.bytes}
                         : Range{old.host_offset, old.has_host_cluster ? geometry_.cluster_bytes() : 0};
  // A damaged table may name metadata as data: better leak than free that.
  if (!host.empty() && metadata_.overlaps(host)) return;
  if (old.kind == ClusterKind::compressed) {
    freed_compressed_.push_back(old.compressed.host_offset);
    const std::uint64_t end = old.compressed.host_offset + old.compressed.bytes;
    for (std::uint64_t at = geometry_.cluster_start(old.compressed.host_offset); at < end;
         at += geometry_.cluster_bytes())
      allocator_.free_later(at);
  } else if (old.has_host_cluster) {
    allocator_.free_later(old.host_offset);
  }
  if (allocator_.freed_count() > freed_max) is_full_of_dirt_ = true;
}

Task<Result<void>> Writer::make_room(std::size_t entries_seen) {
  const Lock committing = co_await lock_always(commit_lock_);
  const Lock lock = co_await lock_metadata();
  // Many writes find the table too small at the same moment: one of them makes it larger for all.
  if (allocator_.table().size() > entries_seen) co_return Result<void>{};
  const Lock header = co_await lock_always(header_lock_);
  DISKFERRY_CO_CHECK(co_await allocator_.settle_header());
  // Everything the new table names must be in the storage before; nothing may change meanwhile. Rare: the
  // table doubles each time.
  const TableChanges changes = dirty_.take(allocator_.table());
  if (auto written = co_await write_tables(image_, changes); !written) {
    dirty_.put_back(changes);
    co_return unexpected(std::move(written).error());
  }
  co_return co_await allocator_.grow_table();
}

Task<Result<void>> Writer::commit() {
  // One commit serves all that asked before it began.
  const std::uint64_t needed = commits_started_.load() + 1;
  const Lock committing = co_await lock_always(commit_lock_);
  if (commits_done_.load() >= needed) co_return Result<void>{};
  co_return co_await commit_locked();
}

Task<Result<void>> Writer::commit_locked() {
  TableChanges changes;
  Freed freed;
  std::uint64_t number = 0;
  {
    const Lock lock = co_await lock_metadata();
    number = ++commits_started_;
    is_full_of_dirt_ = false;
    changes = dirty_.take(allocator_.table());
    freed = {allocator_.take_freed(), std::exchange(freed_compressed_, {})};
  }
  Result<void> written;
  {
    const Lock header = co_await lock_always(header_lock_);
    written = co_await allocator_.settle_header();
  }
  if (written)
    written = changes.is_empty() ? co_await flush_below(image_) : co_await write_tables(image_, changes);
  if (!written) {
    const Lock lock = co_await lock_metadata();
    dirty_.put_back(changes);
    allocator_.put_back_freed(freed.clusters);
    is_full_of_dirt_ = dirty_.held_bytes() > dirty_bytes_max || allocator_.freed_count() > freed_max;
    freed_compressed_.insert(freed_compressed_.end(), freed.compressed.begin(), freed.compressed.end());
    co_return unexpected(std::move(written).error().in(fmt::format("flush {}", image_.name)));
  }
  commits_done_ = number;
  if (!freed.clusters.empty()) DISKFERRY_CO_CHECK(co_await release(std::move(freed)));
  co_return Result<void>{};
}

Task<Result<void>> Writer::release(Freed freed) {
  co_await image_.readers.wait_for_earlier();
  std::ranges::sort(freed.clusters);
  for (const std::uint64_t key : freed.compressed) image_.inflated.forget(key);
  std::vector<std::uint64_t> unused;
  {
    const Lock lock = co_await lock_metadata();
    auto dropped = co_await allocator_.drop_references(freed.clusters);
    if (!dropped) {
      co_await condemn(dropped.error());
      co_return unexpected(std::move(dropped).error());
    }
    unused = *std::move(dropped);
    for (const std::uint64_t cluster : unused) {
      if (packed_at_ != 0 && geometry_.cluster_start(packed_at_) == cluster) packed_at_ = 0;
      metadata_.remove({cluster, geometry_.cluster_bytes()});
      for (std::uint64_t at = 0; at < geometry_.cluster_bytes(); at += image_.tables.slice_bytes())
        image_.tables.forget(cluster + at);
    }
  }
  // The space goes back while the clusters still count as taken: a hole never hits what has been reused.
  if (image_.storage->info().can_discard) {
    for (std::size_t i = 0; i < unused.size();) {
      Range hole{unused[i], geometry_.cluster_bytes()};
      for (++i; i < unused.size() && unused[i] == hole.end(); ++i) hole.length += geometry_.cluster_bytes();
      hole = intersect(hole, {0, image_.storage->size_bytes()});
      // A hint; and what does not become a hole can be reused as it is.
      if (!hole.empty()) (void)co_await image_.storage->discard(hole);
    }
  }
  const Lock lock = co_await lock_metadata();
  co_return co_await allocator_.forget_clusters(unused);
}

Task<Result<void>> Writer::commit_if_full() {
  if (is_full_of_dirt_.load(std::memory_order_relaxed)) co_return co_await commit();
  co_return Result<void>{};
}

Task<Result<void>> Writer::flush() {
  DISKFERRY_CO_CHECK(check_usable());
  co_return co_await commit();
}

Task<Result<void>> Writer::finish() {
  if (is_condemned_) {
    const Lock lock = co_await lock_metadata();
    // Nothing was lost when all had been flushed before the damage was found.
    if (dirty_.empty()) co_return Result<void>{};
    co_return check_usable();
  }
  // The guest's data first: storing bitmaps may need space that is not there, and they can be done without.
  DISKFERRY_CO_CHECK(co_await commit());
  // Bitmaps last, when nothing changes any more: data and their counts, then what names them, then "not in
  // use".
  {
    const Lock lock = co_await lock_metadata();
    DISKFERRY_CO_CHECK(co_await bitmaps_.store_data(image_, allocator_));
  }
  // What the first commit frees is known only after it, and counts in blocks that the second writes.
  DISKFERRY_CO_CHECK(co_await commit());
  DISKFERRY_CO_CHECK(co_await commit());
  co_return co_await bitmaps_.finish(image_);
}

}  // namespace diskferry::qcow2
