// Reading: tables into runs once, then one storage read per run; runs of the image below by its own verbs.
#include "drivers/image/qcow2/read.hpp"

#include "drivers/image/qcow2/compression.hpp"
#include "drivers/image/qcow2/device.hpp"
#include "drivers/image/qcow2/map.hpp"
#include "drivers/image/qcow2/storage_read.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry::qcow2 {
namespace {

Error beyond_end(const ImageState& image, const Run& run) {
  return fail(ErrorKind::corrupt, "read", image.name)
      .why(fmt::format("the cluster is said to lie at host offset {}, beyond the end of the file",
                       run.host_offset))
      .at(run.offset, run.length);
}

/// The file may end inside its last cluster: what is missing of that reads as zeros.
bool starts_beyond_end(ImageState& image, const Run& run) {
  return image.geometry.cluster_start(run.host_offset) >= image.data().size_bytes();
}

/// The part of a request's memory that belongs to a run.
std::span<std::byte> part_of(std::span<std::byte> into, std::uint64_t offset, const Run& run) {
  return into.subspan(run.offset - offset, run.length);
}

/// Inflates one cluster. `from`: what the storage has at its descriptor, perhaps with more behind it.
Result<void> inflate_run(const ImageState& image, const Run& run, std::span<const std::byte> from,
                         std::span<std::byte> cluster) {
  auto inflated = inflate_cluster(image.header.compression_type, from, cluster);
  if (inflated) return {};
  return unexpected(
      std::move(inflated)
          .error()
          .object(image.name)
          .at(run.offset, run.length)
          .in(fmt::format("inflate the cluster at host offset {}", run.compressed.host_offset)));
}

/// Compressed clusters that lie close together in the storage are fetched in one read of at most this.
constexpr std::uint64_t group_bytes_max = 1 * mib;
/// Unwanted bytes between two of them that are read along rather than asked around.
constexpr std::uint64_t group_gap_bytes_max = 16 * kib;

bool is_whole_cluster(const ImageState& image, const Run& run) {
  return run.length == image.geometry.cluster_bytes();
}

/// How many of `runs`, from the first on, are whole compressed clusters close together; `window` becomes the
/// part of the storage that holds them.
std::size_t group_of(const ImageState& image, std::span<const Run> runs, Range& window) {
  window = {runs[0].compressed.host_offset, runs[0].compressed.bytes};
  std::size_t count = 1;
  for (; count < runs.size(); ++count) {
    const Run& run = runs[count];
    if (run.kind != ClusterKind::compressed || !is_whole_cluster(image, run)) break;
    const Range next{run.compressed.host_offset, run.compressed.bytes};
    if (next.offset < window.offset || next.offset > window.end() + group_gap_bytes_max) break;
    const std::uint64_t end = std::max(window.end(), next.end());
    if (end - window.offset > group_bytes_max) break;
    window.length = end - window.offset;
  }
  return count;
}

/// Brings a window of compressed data into memory of `staging`, cut at the end of the storage.
Task<Result<std::span<const std::byte>>> fetch(ImageState& image, Range window, const Run& run,
                                               Buffer& staging) {
  const std::uint64_t size = image.storage->size_bytes();
  if (window.offset >= size)
    co_return unexpected(
        beyond_end(image, {.offset = run.offset, .length = run.length, .host_offset = window.offset}));
  window.length = std::min(window.length, size - window.offset);
  // Whole storage blocks, so that they arrive where they are wanted without another copy.
  const std::uint64_t first = align_down(window.offset, image.storage->info().block_bytes);
  const std::uint64_t end = std::min(size, align_up(window.end(), image.storage->info().block_bytes));
  DISKFERRY_CO_TRY(staging, co_await image.staging.acquire(end - first));
  const auto bytes = staging.span().first(end - first);
  if (auto now = try_read_storage(*image.storage, first, bytes); now) {
    if (!*now) co_return unexpected(std::move(*now).error());
  } else {
    DISKFERRY_CO_CHECK(co_await read_storage(*image.storage, first, bytes));
  }
  co_return bytes.subspan(window.offset - first, window.length);
}

Task<Result<void>> read_whole_clusters(ImageState& image, std::span<const Run> runs, Range window,
                                       std::span<std::byte> into) {
  Buffer staging;
  DISKFERRY_CO_TRY(const auto bytes, co_await fetch(image, window, runs[0], staging));
  for (const Run& run : runs) {
    const std::uint64_t at = run.compressed.host_offset - window.offset;
    if (at >= bytes.size())
      co_return unexpected(beyond_end(
          image, {.offset = run.offset, .length = run.length, .host_offset = run.compressed.host_offset}));
    const auto from = bytes.subspan(at, std::min<std::uint64_t>(run.compressed.bytes, bytes.size() - at));
    DISKFERRY_CO_CHECK(inflate_run(image, run, from, into.subspan(run.offset - runs[0].offset, run.length)));
  }
  co_return Result<void>{};
}

Task<Result<void>> read_part_of_cluster(ImageState& image, const Run& run, std::span<std::byte> into) {
  DISKFERRY_CO_TRY(auto lookup, co_await image.inflated.find_or_claim(run.compressed.host_offset));
  if (!lookup.value) {
    Buffer staging;
    DISKFERRY_CO_TRY(const auto bytes,
                     co_await fetch(image, {run.compressed.host_offset, run.compressed.bytes}, run, staging));
    auto cluster = std::make_shared<InflatedCluster>(image.geometry.cluster_bytes());
    DISKFERRY_CO_CHECK(inflate_run(image, run, bytes, *cluster));
    lookup.value = cluster;
    lookup.claim.publish(std::move(cluster), image.geometry.cluster_bytes());
  }
  std::memcpy(into.data(), lookup.value->data() + image.geometry.in_cluster(run.offset), run.length);
  co_return Result<void>{};
}

/// Reads the first of `runs` and as many after it as one storage read serves; returns how many.
Task<Result<std::size_t>> read_some(ImageState& image, std::span<const Run> runs, std::uint64_t offset,
                                    std::span<std::byte> into) {
  const Run& run = runs[0];
  const auto part = part_of(into, offset, run);
  switch (run.kind) {
    case ClusterKind::data:
      if (starts_beyond_end(image, run)) co_return unexpected(beyond_end(image, run));
      DISKFERRY_CO_CHECK(co_await read_storage(image.data(), run.host_offset, part));
      break;
    case ClusterKind::unallocated:
      DISKFERRY_CO_CHECK(co_await read_backing(image, run.offset, part));
      break;
    case ClusterKind::compressed: {
      if (!is_whole_cluster(image, run)) {
        DISKFERRY_CO_CHECK(co_await read_part_of_cluster(image, run, part));
        break;
      }
      Range window;
      const std::size_t count = group_of(image, runs, window);
      DISKFERRY_CO_CHECK(
          co_await read_whole_clusters(image, runs.first(count), window, into.subspan(run.offset - offset)));
      co_return count;
    }
    default:
      std::ranges::fill(part, std::byte{0});
  }
  co_return 1;
}

/// False: not without waiting.
bool try_read_run(ImageState& image, const Run& run, std::span<std::byte> part) {
  switch (run.kind) {
    case ClusterKind::data: {
      if (starts_beyond_end(image, run)) return false;
      const auto done = try_read_storage(image.data(), run.host_offset, part);
      return done && *done;
    }
    case ClusterKind::unallocated: {
      if (!image.backing) break;
      const std::uint64_t size = image.backing->size_bytes();
      const std::uint64_t inside = run.offset >= size ? 0 : std::min(run.length, size - run.offset);
      std::ranges::fill(part.subspan(inside), std::byte{0});
      if (inside == 0) return true;
      const auto done = try_read_storage(*image.backing, run.offset, part.first(inside));
      return done && *done;
    }
    case ClusterKind::compressed: {
      const auto cluster = image.inflated.find(run.compressed.host_offset);
      if (!cluster) return false;
      std::memcpy(part.data(), cluster->data() + image.geometry.in_cluster(run.offset), run.length);
      return true;
    }
    default:
      break;
  }
  std::ranges::fill(part, std::byte{0});
  return true;
}

/// How many table entries one call for extents looks at before it answers with what it has: some milliseconds
/// on its thread.
constexpr std::uint64_t entries_per_call_max = 16 * walk_entries_max;

/// Extents of a run that no table of this image decides, or of the start of it.
Task<Result<void>> add_backing_extents(ImageState& image, Range range, std::size_t extents_max,
                                       std::vector<Extent>& found) {
  const std::uint64_t below_bytes = image.backing ? image.backing->size_bytes() : 0;
  if (range.offset < below_bytes) {
    const Range inside = intersect(range, {0, below_bytes});
    // Once: an image below that answers with a part of it has done its share of work.
    DISKFERRY_CO_TRY(auto below, co_await image.backing->extents(inside, extents_max));
    for (Extent& extent : below) {
      if (extent.depth != Extent::depth_none) ++extent.depth;
      append_merged(found, extent);
    }
    if (below.back().end() < inside.end()) co_return Result<void>{};
    range.length -= inside.length;
    range.offset += inside.length;
  }
  if (!range.empty())
    append_merged(found, {.offset = range.offset,
                          .length = range.length,
                          .reads_zero = true,
                          .is_hole = true,
                          .depth = Extent::depth_none});
  co_return Result<void>{};
}

Extent extent_of(const Run& run) {
  const bool is_zero = run.kind == ClusterKind::zero || run.kind == ClusterKind::zero_allocated;
  const bool is_placed = run.kind == ClusterKind::data || run.kind == ClusterKind::zero_allocated;
  return {.offset = run.offset,
          .length = run.length,
          .reads_zero = is_zero,
          .is_hole = run.kind == ClusterKind::zero,
          .is_compressed = run.kind == ClusterKind::compressed,
          .depth = 0,
          .host_offset = is_placed ? run.host_offset : Extent::no_host_offset};
}

}  // namespace

Task<Result<void>> read_backing(ImageState& image, std::uint64_t offset, std::span<std::byte> into) {
  if (image.backing) co_return co_await read_storage(*image.backing, offset, into);
  std::ranges::fill(into, std::byte{0});
  co_return Result<void>{};
}

Task<Result<void>> read_guest(ImageState& image, std::uint64_t offset, std::span<std::byte> into) {
  while (!into.empty()) {
    Runs runs;
    DISKFERRY_CO_CHECK(co_await map(image, {offset, into.size()}, runs));
    const std::uint64_t mapped = runs.end() - offset;
    for (auto left = runs.span(); !left.empty();) {
      DISKFERRY_CO_TRY(const std::size_t done, co_await read_some(image, left, offset, into.first(mapped)));
      left = left.subspan(done);
    }
    offset += mapped;
    into = into.subspan(mapped);
  }
  co_return Result<void>{};
}

std::optional<Result<void>> try_read_guest(ImageState& image, std::uint64_t offset,
                                           std::span<std::byte> into) {
  if (into.empty()) return Result<void>{};
  Runs runs;
  (void)map_cached(image, {offset, into.size()}, runs);
  if (runs.empty() || runs.end() != offset + into.size()) return std::nullopt;
  for (const Run& run : runs.span()) {
    if (!try_read_run(image, run, part_of(into, offset, run))) return std::nullopt;
  }
  return Result<void>{};
}

Task<Result<std::vector<Extent>>> guest_extents(ImageState& image, Range range, std::size_t extents_max) {
  std::vector<Extent> found;
  bool is_part = false;  // of a run
  std::uint64_t entries = 0;
  while (!range.empty() && !is_part && found.size() <= extents_max) {
    if (entries >= entries_per_call_max) {
      // Others had no turn meanwhile, and a caller who asks for the rest at once would leave them none.
      co_await boost::asio::post(co_await boost::asio::this_coro::executor,
                                 boost::asio::use_awaitable_t<Executor>{});
      break;
    }
    Runs runs;
    auto mapped = co_await map(image, range, runs);
    if (!mapped) {
      if (!found.empty()) break;  // the caller gets what is known and meets the error at its place
      co_return unexpected(std::move(mapped).error());
    }
    for (const Run& run : runs.span()) {
      if (is_part || found.size() > extents_max) break;
      if (run.kind == ClusterKind::unallocated) {
        DISKFERRY_CO_CHECK(co_await add_backing_extents(image, {run.offset, run.length}, extents_max, found));
        is_part = found.back().end() < run.offset + run.length;
      } else {
        append_merged(found, extent_of(run));
      }
    }
    const std::uint64_t done = runs.end() - range.offset;
    entries += std::min(walk_entries_max, divide_up(done, image.geometry.cluster_bytes()));
    range.offset += done;
    range.length -= done;
  }
  if (found.size() > extents_max) found.resize(extents_max);
  co_return found;
}

Task<Result<void>> Qcow2Device::read(std::uint64_t offset, std::span<std::byte> into) {
  if (!image_.is_writable) co_return co_await read_guest(image_, offset, into);
  const Readers::Token reading = image_.readers.enter();
  co_return co_await read_guest(image_, offset, into);
}

std::optional<Result<void>> Qcow2Device::try_read(std::uint64_t offset, std::span<std::byte> into) {
  if (!image_.is_writable) return try_read_guest(image_, offset, into);
  const Readers::Token reading = image_.readers.enter();
  return try_read_guest(image_, offset, into);
}

Task<Result<std::vector<Extent>>> Qcow2Device::extents(Range range, std::size_t extents_max) {
  co_return co_await guest_extents(image_, range, extents_max);
}

}  // namespace diskferry::qcow2
