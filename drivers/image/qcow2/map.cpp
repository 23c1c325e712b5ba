// Walking of L1 and L2 tables. The synchronous part works on slices in memory; the coroutine around it loads
// what is missing.
#include "drivers/image/qcow2/map.hpp"

#include <fmt/format.h>

namespace diskferry::qcow2 {
namespace {

bool is_placed(ClusterKind kind) noexcept {
  return kind == ClusterKind::data || kind == ClusterKind::zero_allocated;
}

Error broken_entry(const ImageState& image, std::string_view table, EntryProblem problem, Range where) {
  return fail(ErrorKind::corrupt, "map", image.name)
      .why(fmt::format("the {} entry for this part of the disk {}", table, to_string(problem)))
      .at(where.offset, where.length)
      .remedy("repair a copy of the image with qemu-img check, or restore it");
}

/// Appends the runs of one cluster's entry, cut to [at, end). False when the list is full.
bool add_entry(const ImageState& image, const L2Entry& entry, Range part, Runs& into) {
  const Geometry& geometry = image.geometry;
  Run run{.kind = entry.kind,
          .offset = part.offset,
          .length = part.length,
          .host_offset = entry.host_offset + geometry.in_cluster(part.offset),
          .compressed = entry.compressed};
  if (entry.kind != ClusterKind::subclusters) return into.add(run);
  const std::uint64_t step = geometry.subcluster_bytes();
  for (std::uint64_t at = part.offset; at < part.end();) {
    const std::uint64_t end = std::min(part.end(), align_down(at, step) + step);
    run.kind = subcluster_kind(entry, geometry.subcluster_index(at));
    run.offset = at;
    run.length = end - at;
    run.host_offset = entry.host_offset + geometry.in_cluster(at);
    if (!into.add(run)) return false;
    at = end;
  }
  return true;
}

/// Where a walk stands.
struct Walk {
  ImageState& image;
  std::uint64_t at;
  std::uint64_t end;
  Runs& into;
  Stop stop{};
  bool is_full = false;
  std::uint64_t entries_left = walk_entries_max;

  bool is_done() const {
    return at >= end || is_full || entries_left == 0 || stop.error || stop.missing_slice != Stop::no_slice ||
           stop.missing_l1 != Stop::no_slice;
  }
  void l1_entry();
  void slice(TableSlice& slice, std::uint64_t first_index);
};

void Walk::l1_entry() {
  const Geometry& geometry = image.geometry;
  const std::uint64_t index = geometry.l1_index(at);
  if (!image.l1->is_loaded(index)) {
    stop.missing_l1 = index;
    return;
  }
  const std::uint64_t covered_end = (index + 1) * geometry.l1_entry_covers_bytes();
  const L1Entry entry = decode_l1(image.l1->get(index), geometry);
  if (entry.problem != EntryProblem::none) {
    stop.error = broken_entry(image, "L1", entry.problem, {at, std::min(end, covered_end) - at});
    return;
  }
  if (entry.l2_offset == 0) {
    const std::uint64_t part_end = std::min(end, covered_end);
    if (into.add({.kind = ClusterKind::unallocated, .offset = at, .length = part_end - at})) {
      at = part_end;
    } else {
      is_full = true;
    }
    return;
  }
  const std::uint64_t l2_index = geometry.l2_index(at);
  const std::uint64_t entry_at = entry.l2_offset + l2_index * geometry.l2_entry_bytes();
  const std::uint64_t slice_at = image.tables.slice_start(entry_at);
  const auto found = image.tables.find(slice_at);
  if (!found) {
    stop.missing_slice = slice_at;
    return;
  }
  slice(*found, (entry_at - slice_at) / geometry.l2_entry_bytes());
}

void Walk::slice(TableSlice& slice, std::uint64_t first_index) {
  const Geometry& geometry = image.geometry;
  const std::size_t words_per_entry = geometry.extended_l2 ? 2 : 1;
  const std::size_t entries = slice.words.size() / words_per_entry;
  std::lock_guard lock(slice.guard);
  for (std::size_t i = first_index; i < entries && at < end && entries_left != 0; ++i) {
    --entries_left;
    const std::uint64_t raw = slice.word(i * words_per_entry);
    const std::uint64_t bitmap = geometry.extended_l2 ? slice.word(i * words_per_entry + 1) : 0;
    const L2Entry entry = decode_l2(raw, bitmap, image.rules);
    const std::uint64_t part_end = std::min(end, geometry.cluster_start(at) + geometry.cluster_bytes());
    if (entry.problem != EntryProblem::none) {
      stop.error = broken_entry(image, "L2", entry.problem, {at, part_end - at});
      return;
    }
    if (!add_entry(image, entry, {at, part_end - at}, into)) {
      at = into.end();  // subclusters may have got in
      is_full = true;
      return;
    }
    at = part_end;
  }
}

}  // namespace

bool Runs::add(const Run& run) noexcept {
  if (count != 0) {
    Run& last = runs[count - 1];
    const bool goes_on = last.kind == run.kind && run.kind != ClusterKind::compressed &&
                         (!is_placed(run.kind) || last.host_offset + last.length == run.host_offset);
    if (goes_on) {
      last.length += run.length;
      return true;
    }
  }
  if (count == max) return false;
  runs[count++] = run;
  return true;
}

Stop map_cached(ImageState& image, Range range, Runs& into) {
  Walk walk{.image = image, .at = range.offset, .end = range.end(), .into = into};
  while (!walk.is_done()) walk.l1_entry();
  return std::move(walk.stop);
}

Task<Result<void>> map(ImageState& image, Range range, Runs& into, unsigned slices_max) {
  MetadataCache::Pointer held;  // the slice just loaded stays in memory until it has been walked
  for (unsigned loaded = 0;; ++loaded) {
    const std::uint64_t at = into.empty() ? range.offset : into.end();
    if (at >= range.end()) co_return Result<void>{};
    Stop stop = map_cached(image, {at, range.end() - at}, into);
    if (stop.error) {
      if (!into.empty()) co_return Result<void>{};
      co_return unexpected(*std::move(stop.error));
    }
    if (loaded >= slices_max && !into.empty()) co_return Result<void>{};
    if (stop.missing_l1 != Stop::no_slice) {
      DISKFERRY_CO_CHECK(co_await image.l1->load(stop.missing_l1));
      continue;
    }
    if (stop.missing_slice == Stop::no_slice) co_return Result<void>{};
    auto slice = co_await image.tables.load(stop.missing_slice);
    if (!slice) {
      if (!into.empty() && slice.error().kind() == ErrorKind::corrupt) co_return Result<void>{};
      co_return unexpected(std::move(slice).error().in(fmt::format("map {} at {}", image.name, at)));
    }
    held = *std::move(slice);
  }
}

}  // namespace diskferry::qcow2
