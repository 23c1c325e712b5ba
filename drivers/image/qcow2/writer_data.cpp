// Writing of data: in place where the cluster is ours alone, else to a new place with what the guest had
// around the data copied along (copy on write).
#include "drivers/image/qcow2/read.hpp"
#include "drivers/image/qcow2/writer.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace diskferry::qcow2 {
namespace {
/// The most that one allocation covers: long enough for large writes to stay contiguous, short enough not to
/// hold the clusters' lock for long.
constexpr std::uint64_t target_bytes_max = 8 * mib;
/// Up to here payload and what is copied around it go out as one write.
constexpr std::uint64_t merged_bytes_max = 256 * kib;

std::uint32_t unit_mask(unsigned first, unsigned end) {
  const std::uint32_t below_end = end == subclusters ? UINT32_MAX : (std::uint32_t{1} << end) - 1;
  return below_end & ~((std::uint32_t{1} << first) - 1);
}
/// The cluster is there, it is ours, and data may be put into it.
bool is_owned(const L2Entry& entry, bool has_data_file) {
  if (entry.kind == ClusterKind::compressed) return false;
  return has_data_file || (entry.has_host_cluster && entry.is_copied);
}
bool has_data(const L2Entry& entry) {
  return entry.kind == ClusterKind::data || entry.kind == ClusterKind::compressed ||
         entry.allocated_bits != 0;
}
}  // namespace

Result<void> Writer::check_host(Range host, std::uint64_t guest) const {
  if (image_.data_file) return {};
  const char* why = nullptr;
  if (host.end() > align_up(allocator_.end_bytes(), geometry_.cluster_bytes()))
    why = "lies beyond the end of the file";
  if (metadata_.overlaps(host)) why = "holds metadata";
  if (why == nullptr) return {};
  return unexpected(
      fail(ErrorKind::corrupt, "write", image_.name)
          .why(fmt::format("the cluster for this part of the disk, at host offset {}, {}", host.offset, why))
          .at(guest, host.length)
          .remedy("repair a copy of the image with qemu-img check -r all"));
}

Writer::InPlace Writer::find_in_place(std::uint64_t offset, std::uint64_t length) {
  InPlace found;
  const std::uint64_t end = offset + length;
  for (std::uint64_t at = offset; at < end;) {
    const L1Entry l1 = decode_l1(image_.l1->get(geometry_.l1_index(at)), geometry_);
    if (l1.problem != EntryProblem::none || l1.l2_offset == 0 || !l1.is_copied) break;
    const std::uint64_t entry_at = l1.l2_offset + geometry_.l2_index(at) * geometry_.l2_entry_bytes();
    const auto slice = image_.tables.find(image_.tables.slice_start(entry_at));
    if (!slice) break;
    Entries entries{.slice = slice,
                    .first_cluster = geometry_.cluster_start(at),
                    .first_index = (entry_at - slice->host_offset) / geometry_.l2_entry_bytes()};
    const std::size_t in_slice =
        image_.tables.slice_bytes() / geometry_.l2_entry_bytes() - entries.first_index;
    bool goes_on = true;
    for (std::size_t i = 0; goes_on && i < in_slice && at < end; ++i) {
      const L2Entry one = entry(entries, i);
      const std::uint64_t cluster_end = geometry_.cluster_start(at) + geometry_.cluster_bytes();
      std::uint64_t part_end = std::min(end, cluster_end);
      goes_on = one.problem == EntryProblem::none && one.has_host_cluster && one.is_copied &&
                (one.kind == ClusterKind::data || one.kind == ClusterKind::subclusters);
      if (goes_on && one.kind == ClusterKind::subclusters) {
        std::uint64_t data_end = at;
        while (data_end < part_end &&
               subcluster_kind(one, geometry_.subcluster_index(data_end)) == ClusterKind::data)
          data_end = align_down(data_end, geometry_.subcluster_bytes()) + geometry_.subcluster_bytes();
        part_end = std::min(part_end, data_end);
      }
      const std::uint64_t host = one.host_offset + geometry_.in_cluster(at);
      if (found.length == 0) found.host_offset = host;
      goes_on = goes_on && part_end > at && host == found.host_offset + found.length;
      if (!goes_on) break;
      found.length += part_end - at;
      at = part_end;
      goes_on = part_end == std::min(end, cluster_end);
    }
    if (!goes_on) break;
  }
  // Errors are told by the other path, which meets the same entry.
  if (found.length != 0 && !check_host({found.host_offset, found.length}, offset)) found.length = 0;
  return found;
}

std::optional<Result<void>> Writer::try_write(std::uint64_t offset, std::span<const std::byte> from) {
  if (is_condemned_.load(std::memory_order_relaxed)) return std::nullopt;
  BlockDevice& data = image_.data();
  RangeLock::Hold ordered;
  if (has_raw_data_file_ && !raw_data_.try_lock(ordered, {offset, from.size()}, RangeLock::Mode::shared))
    return std::nullopt;
  const Readers::Token reading = image_.readers.enter();
  const InPlace place = find_in_place(offset, from.size());
  if (place.length != from.size()) return std::nullopt;
  const std::uint32_t block = data.info().block_bytes;
  if (!is_aligned(place.host_offset, block) || !is_aligned(from.size(), block)) return std::nullopt;
  bitmaps_.note({offset, from.size()});
  return data.try_write(place.host_offset, from);
}

Task<Result<std::size_t>> Writer::write_in_place(std::uint64_t offset, std::span<const std::byte> from,
                                                 WriteFlags flags) {
  const Readers::Token reading = image_.readers.enter();
  const InPlace place = find_in_place(offset, from.size());
  if (place.length == 0) co_return std::size_t{0};
  const std::uint32_t block = image_.data().info().block_bytes;
  if (!is_aligned(place.host_offset, block) || !is_aligned(place.length, block)) co_return std::size_t{0};
  DISKFERRY_CO_CHECK(co_await image_.data().write(place.host_offset, from.first(place.length), flags));
  co_return place.length;
}

Task<Result<void>> Writer::write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) {
  const std::uint64_t cluster = geometry_.cluster_bytes();
  bitmaps_.note({offset, from.size()});
  RangeLock::Hold ordered;
  if (has_raw_data_file_)
    DISKFERRY_CO_CHECK(co_await raw_data_.lock(ordered, {offset, from.size()}, RangeLock::Mode::shared));
  while (!from.empty()) {
    DISKFERRY_CO_CHECK(check_usable());
    std::size_t done = 0;
    if (compress_ && is_aligned(offset, cluster) &&
        (from.size() >= cluster || offset + from.size() == image_.size_bytes)) {
      DISKFERRY_CO_TRY(done, co_await write_compressed(offset, from));
    } else {
      // Up to where whole clusters begin, when those are to be compressed.
      const std::uint64_t room = compress_ ? cluster - geometry_.in_cluster(offset) : from.size();
      const auto part = from.first(std::min<std::uint64_t>(room, from.size()));
      DISKFERRY_CO_CHECK(co_await write_data(offset, part, flags));
      done = part.size();
    }
    offset += done;
    from = from.subspan(done);
  }
  co_return co_await commit_if_full();
}

Task<Result<void>> Writer::write_data(std::uint64_t offset, std::span<const std::byte> from,
                                      WriteFlags flags) {
  while (!from.empty()) {
    DISKFERRY_CO_CHECK(check_usable());
    DISKFERRY_CO_TRY(std::size_t done, co_await write_in_place(offset, from, flags));
    if (done == 0) {
      DISKFERRY_CO_TRY(done, co_await write_allocating(offset, from, flags));
    }
    offset += done;
    from = from.subspan(done);
  }
  co_return Result<void>{};
}

Task<Result<void>> Writer::after_full(const Error& error, bool& tried) {
  // What was freed and not committed yet may be just what is missing.
  if (error.kind() != ErrorKind::no_space || std::exchange(tried, true)) co_return unexpected(error);
  co_return co_await commit();
}

Task<Result<std::size_t>> Writer::write_allocating(std::uint64_t offset, std::span<const std::byte> from,
                                                   WriteFlags flags) {
  Range payload{offset, std::min<std::uint64_t>(from.size(), target_bytes_max)};
  const std::uint64_t first = geometry_.cluster_start(offset);
  DISKFERRY_CO_TRY(const auto held, co_await clusters_.lock(
                                        {first, align_up(payload.end(), geometry_.cluster_bytes()) - first}));
  std::optional<Target> target;
  bool tried = false;
  while (!target) {
    Lock lock = co_await lock_metadata();
    auto chosen = co_await choose_target(payload);
    const std::size_t entries_seen = allocator_.table().size();
    lock.unlock();
    if (!chosen) {
      co_await condemn(chosen.error());
      DISKFERRY_CO_CHECK(co_await after_full(chosen.error(), tried));
    } else if (!*chosen) {
      DISKFERRY_CO_CHECK(co_await make_room(entries_seen));
    } else {
      target = **chosen;
      auto written = co_await write_target(*target, from.first(target->payload.length), flags);
      if (written) break;
      bool may_help = false;
      {
        const Lock again = co_await lock_metadata();
        if (target->allocated.clusters != 0) (void)co_await allocator_.give_back(target->allocated);
        may_help = allocator_.freed_count() != 0;
      }
      if (!may_help) co_return unexpected(std::move(written).error());
      // A file system that is full: what the guest gave up and no commit has freed yet is inside the file.
      DISKFERRY_CO_CHECK(co_await after_full(written.error(), tried));
      target.reset();
    }
  }
  if (target->needs_entries) {
    const Lock lock = co_await lock_metadata();
    enter_target(*target);
  }
  co_return target->payload.length;
}

Task<Result<std::optional<Writer::Target>>> Writer::choose_target(Range payload) {
  DISKFERRY_CO_TRY(auto found, co_await entries_for_writing(payload));
  if (!found) co_return std::nullopt;
  Target target{.entries = *std::move(found), .payload = payload};
  Entries& entries = target.entries;
  const L2Entry first = entry(entries, 0);
  const bool owned = is_owned(first, image_.data_file != nullptr);
  target.host_offset = image_.data_file ? entries.first_cluster : first.host_offset;
  std::size_t count = 0;
  for (; count < entries.count; ++count) {
    const L2Entry one = entry(entries, count);
    const std::uint64_t guest = entries.first_cluster + count * geometry_.cluster_bytes();
    if (one.problem != EntryProblem::none)
      co_return unexpected(
          fail(ErrorKind::corrupt, "write", image_.name)
              .why(fmt::format("the L2 entry for this part of the disk {}", to_string(one.problem)))
              .at(guest, geometry_.cluster_bytes()));
    if (is_owned(one, image_.data_file != nullptr) != owned) break;
    if (owned && !image_.data_file &&
        one.host_offset != target.host_offset + count * geometry_.cluster_bytes())
      break;
    // Extended entries that keep part of their state are handled one by one.
    if (geometry_.extended_l2 && count != 0 && payload.end() < guest + geometry_.cluster_bytes()) break;
  }
  if (!owned) {
    DISKFERRY_CO_TRY(const auto run, co_await allocator_.allocate(count, false));
    if (!run) co_return std::nullopt;
    target.allocated = *run;
    target.host_offset = run->offset;
    count = run->clusters;
    target.needs_entries = true;
  } else {
    DISKFERRY_CO_CHECK(
        check_host({target.host_offset, count * geometry_.cluster_bytes()}, entries.first_cluster));
    for (std::size_t i = 0; i < count; ++i)
      target.needs_entries |= entry(entries, i).kind != ClusterKind::data;
  }
  entries.count = count;
  const std::uint64_t end = entries.first_cluster + count * geometry_.cluster_bytes();
  target.payload.length = std::min(payload.end(), end) - payload.offset;
  plan_edges(target);
  co_return target;
}

void Writer::plan_edges(Target& target) const {
  const Entries& entries = target.entries;
  const L2Entry first = entry(entries, 0);
  const L2Entry last = entry(entries, entries.count - 1);
  const bool is_new = target.allocated.clusters != 0;
  const std::uint64_t unit = geometry_.extended_l2 ? geometry_.subcluster_bytes() : geometry_.cluster_bytes();
  const Range payload = target.payload;
  std::uint64_t from = align_down(payload.offset, unit);
  std::uint64_t to = align_up(payload.end(), unit);
  const auto unit_kind = [&](const L2Entry& one, std::uint64_t at) {
    return subcluster_kind(one, geometry_.extended_l2 ? geometry_.subcluster_index(at) : 0);
  };
  if (is_new) {
    // A cluster that moves takes all its data along.
    if (geometry_.extended_l2 && (has_data(first) || has_data(last))) {
      target.is_whole_copy = true;
      from = entries.first_cluster;
      to = align_up(payload.end(), geometry_.cluster_bytes());
    }
  } else {
    if (unit_kind(first, payload.offset) == ClusterKind::data) from = payload.offset;
    if (unit_kind(last, payload.end() - 1) == ClusterKind::data) to = payload.end();
  }
  // A data file keeps the disk's size: its last cluster need not be whole.
  if (image_.data_file) to = std::max(payload.end(), std::min(to, image_.size_bytes));
  target.guest = {from, to - from};
  const auto is_zero_edge = [&](const L2Entry& one, std::uint64_t at) {
    if (target.is_whole_copy) return false;
    const ClusterKind kind = one.kind == ClusterKind::compressed ? one.kind : unit_kind(one, at);
    if (kind == ClusterKind::unallocated) return is_zero_below({align_down(at, unit), unit});
    return kind == ClusterKind::zero || kind == ClusterKind::zero_allocated;
  };
  target.fill_is_zero = is_new && target.allocated.is_fresh &&
                        (from == payload.offset || is_zero_edge(first, payload.offset)) &&
                        (to == payload.end() || is_zero_edge(last, payload.end() - 1));
}

Task<Result<void>> Writer::read_old(std::uint64_t offset, std::span<std::byte> into) {
  const std::uint64_t inside =
      offset >= image_.size_bytes ? 0 : std::min<std::uint64_t>(into.size(), image_.size_bytes - offset);
  std::ranges::fill(into.subspan(inside), std::byte{0});
  if (inside == 0) co_return Result<void>{};
  co_return co_await read_guest(image_, offset, into.first(inside));
}

Task<Result<void>> Writer::write_target(const Target& target, std::span<const std::byte> from,
                                        WriteFlags flags) {
  BlockDevice& data = image_.data();
  const auto host_of = [&](std::uint64_t guest) {
    return target.host_offset + (guest - target.entries.first_cluster);
  };
  const std::uint32_t block = data.info().block_bytes;
  Range guest = target.guest;
  const Range payload = target.payload;
  if (target.fill_is_zero) guest = payload;
  // The storage's blocks: inside a cluster of ours, whose rest is known by now.
  const std::uint64_t from_block = align_down(guest.offset, block);
  const std::uint64_t to_block = align_up(guest.end(), block);
  const std::uint64_t head = payload.offset - from_block;
  const std::uint64_t tail = to_block - payload.end();
  if (head == 0 && tail == 0) co_return co_await data.write(host_of(payload.offset), from, flags);
  if (payload.length <= merged_bytes_max) {
    DISKFERRY_CO_TRY(Buffer merged, co_await edges_.acquire(head + payload.length + tail));
    const auto bytes = merged.span().first(head + payload.length + tail);
    DISKFERRY_CO_CHECK(co_await read_old(from_block, bytes.first(head)));
    std::memcpy(bytes.data() + head, from.data(), from.size());
    DISKFERRY_CO_CHECK(co_await read_old(payload.end(), bytes.last(tail)));
    co_return co_await data.write(host_of(from_block), bytes, flags);
  }
  // Large: the edges go out with the blocks of payload they share, the middle from where it is.
  const std::uint64_t middle_from = align_up(payload.offset, block);
  const std::uint64_t middle_to = align_down(payload.end(), block);
  DISKFERRY_CO_TRY(Buffer edge,
                   co_await edges_.acquire(std::max(middle_from - from_block, to_block - middle_to) + 1));
  if (middle_from > from_block) {
    const auto bytes = edge.span().first(middle_from - from_block);
    DISKFERRY_CO_CHECK(co_await read_old(from_block, bytes.first(head)));
    std::memcpy(bytes.data() + head, from.data(), bytes.size() - head);
    DISKFERRY_CO_CHECK(co_await data.write(host_of(from_block), bytes, flags));
  }
  if (to_block > middle_to) {
    const auto bytes = edge.span().first(to_block - middle_to);
    const std::uint64_t shared = payload.end() - middle_to;
    std::memcpy(bytes.data(), from.data() + (middle_to - payload.offset), shared);
    DISKFERRY_CO_CHECK(co_await read_old(payload.end(), bytes.subspan(shared)));
    DISKFERRY_CO_CHECK(co_await data.write(host_of(middle_to), bytes, flags));
  }
  co_return co_await data.write(host_of(middle_from),
                                from.subspan(middle_from - payload.offset, middle_to - middle_from), flags);
}

void Writer::enter_target(const Target& target) {
  const Entries& entries = target.entries;
  const std::uint64_t cluster = geometry_.cluster_bytes();
  for (std::size_t i = 0; i < entries.count; ++i) {
    const L2Entry old = entry(entries, i);
    const std::uint64_t guest = entries.first_cluster + i * cluster;
    L2Entry now{.kind = ClusterKind::data,
                .is_copied = true,
                .host_offset = target.host_offset + i * cluster,
                .has_host_cluster = true};
    if (geometry_.extended_l2 && !target.is_whole_copy) {
      const Range part = intersect(target.guest, {guest, cluster});
      const unsigned first = geometry_.subcluster_index(part.offset);
      const unsigned end = geometry_.subcluster_index(part.end() - 1) + 1;
      const std::uint32_t mask = unit_mask(first, end);
      const bool keeps_data = target.allocated.clusters == 0;
      std::uint32_t old_data = 0;
      std::uint32_t old_zero = 0;
      if (old.kind != ClusterKind::compressed) {
        for (unsigned unit = 0; unit < subclusters; ++unit) {
          const ClusterKind kind = subcluster_kind(old, unit);
          if (kind == ClusterKind::data) old_data |= 1u << unit;
          if (kind == ClusterKind::zero || kind == ClusterKind::zero_allocated) old_zero |= 1u << unit;
        }
      }
      now.kind = ClusterKind::subclusters;
      now.allocated_bits = (keeps_data ? old_data : 0) | mask;
      now.zero_bits = old_zero & ~mask;
    }
    set_entry(entries, i, now);
    if (target.allocated.clusters != 0) free_entry(old);
  }
}

}  // namespace diskferry::qcow2
