// Writing compressed clusters: deflated by the calling threads, as many at once as there are, then packed one
// behind the other into host clusters that they share, many with one write.
#include "drivers/image/qcow2/compression.hpp"
#include "drivers/image/qcow2/packing.hpp"
#include "drivers/image/qcow2/writer.hpp"

#include <algorithm>
#include <cstring>

namespace diskferry::qcow2 {
namespace {
/// Guest data that one batch takes: large enough to write in long pieces, small enough to go on in parallel.
constexpr std::uint64_t batch_bytes_max = 1 * mib;
}  // namespace

/// A batch of compressed clusters, in guest order and one behind the other.
struct Writer::Packed {
  std::uint64_t guest_offset = 0;
  std::vector<std::size_t> sizes{};  ///< compressed, by cluster
  std::span<const std::byte> bytes{};
  Entries entries{};
  Packing packing{};
  std::uint64_t host_offset = 0;         ///< what packing counts from
  std::vector<std::uint64_t> counted{};  ///< a host cluster for each reference taken
};

Task<Result<std::size_t>> Writer::write_compressed(std::uint64_t offset, std::span<const std::byte> from) {
  const std::uint64_t cluster = geometry_.cluster_bytes();
  const std::uint64_t batch =
      std::max(cluster, std::min(batch_bytes_max, geometry_.refcounts_per_block() / 2 * cluster));
  DISKFERRY_CO_TRY(Buffer work, co_await deflated_.acquire(batch + cluster));
  std::size_t used = 0;  // of `work`
  Packed packed{.guest_offset = offset};
  std::size_t done = 0;
  enum class Next : std::uint8_t { none, zero, plain } next = Next::none;
  std::size_t next_bytes = 0;
  while (done < from.size() && (packed.sizes.size() + 1) * cluster <= batch) {
    auto content = from.subspan(done, std::min<std::uint64_t>(cluster, from.size() - done));
    const bool is_last = content.size() < cluster;
    if (is_last && offset + from.size() != image_.size_bytes) break;  // part of a cluster: not here
    next_bytes = content.size();
    if (is_zero(content)) {
      next = Next::zero;
      break;
    }
    std::vector<std::byte> padded;
    if (is_last) {
      padded.assign(content.begin(), content.end());
      padded.resize(cluster);
      content = padded;
    }
    const auto size =
        deflate_cluster(image_.header.compression_type, content, work.span().subspan(used, cluster - 1));
    if (!size) {
      next = Next::plain;
      break;
    }
    packed.sizes.push_back(*size);
    used += *size;
    done += next_bytes;
  }
  if (!packed.sizes.empty()) {
    packed.bytes = work.span().first(used);
    DISKFERRY_CO_TRY(const bool stored, co_await store_packed(packed));
    work.reset();  // before anything else takes memory of the same pool
    if (!stored) DISKFERRY_CO_CHECK(co_await write_data(offset, from.first(done), {}));
  }
  work.reset();
  if (next == Next::plain)
    DISKFERRY_CO_CHECK(co_await write_data(offset + done, from.subspan(done, next_bytes), {}));
  if (next == Next::zero) {
    if (image_.header.version >= 3 || is_zero_below({offset + done, cluster})) {
      DISKFERRY_CO_CHECK(co_await zero_units({offset + done, cluster}, Zeroing::give_space_back));
    } else {
      DISKFERRY_CO_CHECK(co_await write_data(offset + done, from.subspan(done, next_bytes), {}));
    }
  }
  if (next != Next::none) done += next_bytes;
  co_return done;
}

/// False: the format cannot point that far; store the data as they are.
Task<Result<bool>> Writer::store_packed(Packed& packed) {
  const std::uint64_t cluster = geometry_.cluster_bytes();
  const Range guest{packed.guest_offset, packed.sizes.size() * cluster};
  DISKFERRY_CO_TRY(const auto held, co_await clusters_.lock(guest));
  std::size_t first =
      0;  // of the clusters not stored yet: a batch may cross from one table slice to the next
  std::size_t first_byte = 0;
  const std::vector<std::size_t> sizes = std::move(packed.sizes);
  const auto bytes = packed.bytes;
  while (first < sizes.size()) {
    packed.guest_offset = guest.offset + first * cluster;
    packed.sizes.assign(sizes.begin() + static_cast<std::ptrdiff_t>(first), sizes.end());
    std::optional<bool> placed;
    for (bool tried = false; !placed;) {
      Lock lock = co_await lock_metadata();
      auto answer = co_await place_packed(packed);
      const std::size_t entries_seen = allocator_.table().size();
      lock.unlock();
      if (!answer) {
        co_await condemn(answer.error());
        DISKFERRY_CO_CHECK(co_await after_full(answer.error(), tried));
      } else if (!*answer) {
        DISKFERRY_CO_CHECK(co_await make_room(entries_seen));
      } else {
        placed = *answer;
      }
    }
    if (!*placed) co_return false;
    const std::size_t count = packed.sizes.size();
    std::size_t length = 0;
    for (const std::size_t size : packed.sizes) length += size;
    auto written = co_await write_packed(packed, bytes.subspan(first_byte, length));
    const Lock lock = co_await lock_metadata();
    if (!written) {
      for (const std::uint64_t one : packed.counted) allocator_.free_later(one);
      co_return unexpected(std::move(written).error());
    }
    for (std::size_t i = 0; i < count; ++i) {
      const L2Entry old = entry(packed.entries, i);
      set_entry(packed.entries, i,
                {.kind = ClusterKind::compressed,
                 .compressed = {.host_offset = packed.host_offset + packed.packing.offsets[i],
                                .bytes = packed.sizes[i]}});
      free_entry(old);
    }
    first += count;
    first_byte += length;
  }
  co_return true;
}

/// One write for all of `bytes`, the clusters of `packed` back to back.
Task<Result<void>> Writer::write_packed(const Packed& packed, std::span<const std::byte> bytes) {
  const Packing& packing = packed.packing;
  const std::uint64_t from = packed.host_offset + packing.offsets.front();
  const std::uint64_t to = align_up(packed.host_offset + packing.end, image_.storage->info().block_bytes);
  if (to - from == bytes.size()) co_return co_await image_.storage->write(from, bytes, {});
  // Whole blocks of the storage, and the gaps where a host cluster takes no more references: zeros.
  std::vector<std::byte> spaced(to - from);
  std::size_t at = 0;
  for (std::size_t i = 0; i < packed.sizes.size(); ++i) {
    std::memcpy(spaced.data() + (packing.offsets[i] - packing.offsets.front()), bytes.data() + at,
                packed.sizes[i]);
    at += packed.sizes[i];
  }
  co_return co_await image_.storage->write(from, spaced, {});
}

/// Finds room for as many clusters of the batch as one table slice describes. nullopt: the refcount table
/// must grow.
Task<Result<std::optional<bool>>> Writer::place_packed(Packed& packed) {
  const std::uint64_t cluster = geometry_.cluster_bytes();
  DISKFERRY_CO_TRY(auto entries,
                   co_await entries_for_writing({packed.guest_offset, packed.sizes.size() * cluster}));
  if (!entries) co_return std::nullopt;
  packed.entries = *std::move(entries);
  packed.sizes.resize(packed.entries.count);
  packed.counted.clear();
  const std::uint64_t most = refcount_max(geometry_.refcount_order);
  const std::uint32_t block = image_.storage->info().block_bytes;

  // Behind the last batch, if what more is needed lies right there; else somewhere new.
  const std::uint64_t tail = align_up(packed_at_, block);
  if (packed_at_ != 0 && geometry_.in_cluster(tail) != 0) {
    const std::uint64_t tail_cluster = geometry_.cluster_start(tail);
    DISKFERRY_CO_TRY(const std::uint64_t before, co_await allocator_.references(tail_cluster));
    packed.packing = pack(packed.sizes, {.start = geometry_.in_cluster(tail), .references = before},
                          {.cluster_bytes = cluster, .references_max = most});
    packed.host_offset = tail_cluster;
    const std::uint64_t more = packed.packing.references.size() - 1;
    bool fits = more == 0;
    if (!fits) {
      DISKFERRY_CO_TRY(fits, co_await allocator_.allocate_at(tail_cluster + cluster, more));
    }
    if (!fits) packed_at_ = 0;
  } else {
    packed_at_ = 0;
  }
  if (packed_at_ == 0) {
    packed.packing = pack(packed.sizes, {}, {.cluster_bytes = cluster, .references_max = most});
    DISKFERRY_CO_TRY(const auto run, co_await allocator_.allocate(packed.packing.references.size(), true));
    if (!run) co_return std::nullopt;
    packed.host_offset = run->offset;
  }
  const bool in_tail = packed_at_ != 0;
  const auto& counts = packed.packing.references;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const std::uint64_t host = packed.host_offset + i * cluster;
    // A newly allocated cluster has one reference already.
    const std::uint64_t more = counts[i] - (in_tail && i == 0 ? 0 : 1);
    if (more != 0) DISKFERRY_CO_CHECK(co_await allocator_.add_references(host, more));
    packed.counted.insert(packed.counted.end(), counts[i], host);
  }
  packed_at_ = packed.host_offset + packed.packing.end;
  if (geometry_.in_cluster(packed_at_) == 0) packed_at_ = 0;
  if (packed.host_offset + counts.size() * cluster >
      std::uint64_t{1} << std::min(56u, compressed_offset_bits(image_.header.cluster_bits))) {
    for (const std::uint64_t one : packed.counted) allocator_.free_later(one);
    packed_at_ = 0;
    co_return false;
  }
  co_return true;
}

}  // namespace diskferry::qcow2
