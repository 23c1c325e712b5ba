// Zeroing and discarding: whole units (clusters, or subclusters of extended L2) in the tables, edges as data.
#include "diskferry/zeros.hpp"
#include "drivers/image/qcow2/map.hpp"
#include "drivers/image/qcow2/writer.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry::qcow2 {

bool Writer::reads_zero(const L2Entry& entry, std::uint64_t guest) const {
  switch (entry.kind) {
    case ClusterKind::zero:
    case ClusterKind::zero_allocated:
      return true;
    case ClusterKind::unallocated:
      return is_zero_below({guest, geometry_.cluster_bytes()});
    default:
      return false;
  }
}

Task<Result<void>> Writer::write_zeroes(Range range, ZeroFlags flags) {
  bitmaps_.note(range);
  RangeLock::Hold ordered;
  if (has_raw_data_file_) {
    // The data file must read right without the tables.
    DISKFERRY_CO_CHECK(co_await raw_data_.lock(ordered, range, RangeLock::Mode::exclusive));
    DISKFERRY_CO_CHECK(co_await image_.data_file->write_zeroes(
        intersect(range, {0, image_.data_file->size_bytes()}), flags));
  }
  const std::uint64_t unit = geometry_.cluster_bytes();
  // The disk's last cluster is whole when the range reaches the disk's end.
  const std::uint64_t end = range.end() == image_.size_bytes ? align_up(range.end(), unit) : range.end();
  const std::uint64_t first = align_up(range.offset, unit);
  const std::uint64_t last = align_down(end, unit);
  if (first >= last) {
    DISKFERRY_CO_CHECK(co_await zero_as_data(range));
    co_return co_await commit_if_full();
  }
  DISKFERRY_CO_CHECK(co_await zero_as_data({range.offset, first - range.offset}));
  DISKFERRY_CO_CHECK(co_await zero_units({first, last - first},
                                         flags.may_unmap ? Zeroing::give_space_back : Zeroing::keep_space));
  if (range.end() > last) DISKFERRY_CO_CHECK(co_await zero_as_data({last, range.end() - last}));
  co_return co_await commit_if_full();
}

Task<Result<void>> Writer::discard(Range range) {
  bitmaps_.note(range);
  const std::uint64_t unit = geometry_.cluster_bytes();
  const std::uint64_t end = range.end() == image_.size_bytes ? align_up(range.end(), unit) : range.end();
  const std::uint64_t first = align_up(range.offset, unit);
  const std::uint64_t last = align_down(end, unit);
  // Parts of clusters are not worth the work: a discard is a hint.
  if (first >= last || has_raw_data_file_) co_return Result<void>{};
  DISKFERRY_CO_CHECK(co_await zero_units({first, last - first}, Zeroing::forget));
  co_return co_await commit_if_full();
}

Task<Result<void>> Writer::zero_units(Range units, Zeroing how) {
  while (!units.empty()) {
    DISKFERRY_CO_CHECK(check_usable());
    DISKFERRY_CO_TRY(std::uint64_t done, co_await zero_some(units, how));
    if (done == 0) {  // a version 2 cluster over a backing image: only data can hide that
      done = geometry_.cluster_bytes();
      DISKFERRY_CO_CHECK(
          co_await zero_as_data({units.offset, std::min(done, image_.size_bytes - units.offset)}));
    }
    units.offset += done;
    units.length -= std::min(done, units.length);
    if (is_full_of_dirt_.load(std::memory_order_relaxed)) DISKFERRY_CO_CHECK(co_await commit());
  }
  co_return Result<void>{};
}

/// What the entry of `guest` becomes where no data has to hide what is below; nullopt: it is right already.
std::optional<L2Entry> Writer::zeroed(const L2Entry& old, Range guest, Zeroing how) const {
  const bool has_zero_flag = image_.header.version >= 3;
  const bool owned = old.has_host_cluster && old.is_copied && old.kind != ClusterKind::compressed;
  const bool keeps = how == Zeroing::keep_space && owned && has_zero_flag;
  if (reads_zero(old, guest.offset) && (keeps || !old.has_host_cluster)) return std::nullopt;
  if (keeps)
    return L2Entry{.kind = ClusterKind::zero_allocated,
                   .is_copied = true,
                   .host_offset = old.host_offset,
                   .has_host_cluster = true};
  L2Entry now;
  if (has_zero_flag && !(how == Zeroing::forget && is_zero_below(guest))) now.kind = ClusterKind::zero;
  return now;
}

/// Handles what one slice of an L2 table describes, or all that a missing table would; returns the bytes
/// done, 0 when the first cluster needs data.
Task<Result<std::uint64_t>> Writer::zero_some(Range units, Zeroing how) {
  const std::uint64_t cluster = geometry_.cluster_bytes();
  const std::uint64_t l1_end = (geometry_.l1_index(units.offset) + 1) * geometry_.l1_entry_covers_bytes();
  Range part = intersect(units, {units.offset, l1_end - units.offset});
  DISKFERRY_CO_TRY(const auto held, co_await clusters_.lock(part));
  std::optional<Entries> entries;
  Lock lock;
  for (bool tried = false; !entries;) {
    lock = co_await lock_metadata();
    // No table: unallocated, which is all that is wanted where nothing below shows through.
    const bool is_bare = (image_.l1->get(geometry_.l1_index(part.offset)) & offset_mask) == 0;
    if (is_bare && (is_zero_below(part) || (image_.header.version == 2 && how == Zeroing::forget)))
      co_return part.length;
    auto found = co_await entries_for_writing(part);
    if (found && *found) {
      entries = **found;
      break;
    }
    const std::size_t entries_seen = allocator_.table().size();
    lock.unlock();
    if (!found) {
      co_await condemn(found.error());
      DISKFERRY_CO_CHECK(co_await after_full(found.error(), tried));
    } else {
      DISKFERRY_CO_CHECK(co_await make_room(entries_seen));
    }
  }
  part.length = std::min<std::uint64_t>(part.length, entries->count * cluster);
  const bool has_zero_flag = image_.header.version >= 3;
  for (std::size_t i = 0; i < entries->count; ++i) {
    const L2Entry old = entry(*entries, i);
    const std::uint64_t guest = entries->first_cluster + i * cluster;
    if (old.problem != EntryProblem::none) {
      const Error error =
          fail(ErrorKind::corrupt, "zero", image_.name)
              .why(fmt::format("the L2 entry for this part of the disk {}", to_string(old.problem)))
              .at(guest, cluster);
      lock.unlock();
      co_await condemn(error);
      co_return unexpected(error);
    }
    if (!has_zero_flag && !is_zero_below({guest, cluster})) {
      // Version 2 has no zero clusters, and giving the cluster up would show what is below.
      if (how == Zeroing::forget) continue;
      co_return i* cluster;
    }
    const auto now = zeroed(old, {guest, cluster}, how);
    if (!now) continue;
    set_entry(*entries, i, *now);
    if (now->kind != ClusterKind::zero_allocated) free_entry(old);
  }
  co_return part.length;
}

Task<Result<void>> Writer::zero_as_data(Range range) {
  while (!range.empty()) {
    Runs runs;
    {
      const Readers::Token reading = image_.readers.enter();
      DISKFERRY_CO_CHECK(co_await map(image_, range, runs));
    }
    for (const Run& run : runs.span()) {
      const bool is_zero_already =
          run.kind == ClusterKind::zero || run.kind == ClusterKind::zero_allocated ||
          (run.kind == ClusterKind::unallocated && is_zero_below({run.offset, run.length}));
      if (is_zero_already) continue;
      for (Range left{run.offset, run.length}; !left.empty();) {
        const ZeroPiece piece = take_zeros(left);
        DISKFERRY_CO_CHECK(co_await write_data(piece.offset, piece.bytes, {}));
      }
    }
    const std::uint64_t mapped = runs.end() - range.offset;
    range.offset += mapped;
    range.length -= mapped;
  }
  co_return Result<void>{};
}

}  // namespace diskferry::qcow2
