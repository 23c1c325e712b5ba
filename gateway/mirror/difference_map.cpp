#include "gateway/mirror/difference_map.hpp"

#include "diskferry/units.hpp"

#include <algorithm>

namespace diskferry {
namespace {
constexpr std::uint64_t granule_bytes_min = 64 * kib;
constexpr std::uint64_t map_bytes_max = 32 * mib;
constexpr std::uint64_t bits_per_byte = 8;
}  // namespace

DifferenceShape difference_shape(std::uint64_t size_bytes) noexcept {
  std::uint64_t granule_bytes = granule_bytes_min;
  while (divide_up(size_bytes, granule_bytes) > map_bytes_max * bits_per_byte) granule_bytes *= 2;
  return {size_bytes, granule_bytes};
}

DifferenceMap::DifferenceMap(DifferenceShape shape, std::span<std::uint64_t> kept)
    : shape_(shape),
      dirty_(shape.granules()),
      unsettled_(shape.granules()),
      flushing_(shape.granules()),
      written_(shape.granules()),
      recent_(shape.granules()),
      less_recent_(shape.granules()) {
  if (kept.empty()) {
    dirty_.set({0, dirty_.size()});
    return;
  }
  kept_.emplace(shape.granules(), kept);
  dirty_.add(*kept_);
}

std::uint64_t DifferenceMap::dirty_bytes() const noexcept {
  const std::uint64_t bytes = dirty_.count() * shape_.granule_bytes;
  const bool has_end = dirty_.size() != 0 && dirty_.is_set(dirty_.size() - 1);
  return has_end ? bytes - (dirty_.size() * shape_.granule_bytes - shape_.size_bytes) : bytes;
}

GranuleRun DifferenceMap::granules_of(Range bytes) const noexcept {
  if (bytes.empty()) return {bytes.offset / shape_.granule_bytes, 0};
  const std::uint64_t first = bytes.offset / shape_.granule_bytes;
  return {first, (bytes.end() - 1) / shape_.granule_bytes + 1 - first};
}

Range DifferenceMap::bytes_of(GranuleRun run) const noexcept {
  const std::uint64_t begin = run.first * shape_.granule_bytes;
  return {begin, std::min(run.end() * shape_.granule_bytes, shape_.size_bytes) - begin};
}

void DifferenceMap::mark_dirty(Range bytes) {
  const GranuleRun run = granules_of(bytes);
  dirty_.set(run);
  if (kept_) kept_->set(run);
}

void DifferenceMap::mark_written(Range bytes) {
  mark_dirty(bytes);
  written_.set(granules_of(bytes));
  recent_.set(granules_of(bytes));
}

void DifferenceMap::note_written(Range bytes) {
  for (GranuleRun left = granules_of(bytes); left.count != 0;) {
    const auto run = dirty_.first_set(left);
    if (!run) return;
    written_.set(*run);
    recent_.set(*run);
    left = {run->end(), left.end() - run->end()};
  }
}

void DifferenceMap::clean_parts(Range bytes, std::vector<Range>& parts) const {
  parts.clear();
  for (GranuleRun left = granules_of(bytes); left.count != 0;) {
    const auto run = dirty_.first_clear(left);
    if (!run) return;
    parts.push_back(intersect(bytes_of(*run), bytes));
    left = {run->end(), left.end() - run->end()};
  }
}

bool DifferenceMap::is_dirty(Range bytes) const noexcept {
  return dirty_.first_set(granules_of(bytes), 1).has_value();
}

bool DifferenceMap::is_whole(Range bytes) const noexcept {
  return bytes.empty() || bytes == bytes_of(granules_of(bytes));
}

void DifferenceMap::mark_unsettled(Range bytes) {
  const GranuleRun run = granules_of(bytes);
  unsettled_.set(run);
  if (kept_) kept_->set(run);
}

void DifferenceMap::begin_copy(Range bytes) {
  const GranuleRun run = granules_of(bytes);
  dirty_.clear(run);
  written_.clear(run);
  unsettled_.set(run);
}

std::optional<Range> DifferenceMap::first_dirty(std::uint64_t from, std::uint64_t bytes_max,
                                                bool skip_recent) const {
  const std::uint64_t most = std::max<std::uint64_t>(1, bytes_max / shape_.granule_bytes);
  std::uint64_t at = divide_up(from, shape_.granule_bytes);
  while (at < dirty_.size()) {
    auto run = dirty_.first_set({at, dirty_.size() - at}, most);
    if (!run || !skip_recent) return run ? std::optional(bytes_of(*run)) : std::nullopt;
    for (const GranuleMap* map : {&recent_, &less_recent_}) {
      const auto cool = map->first_clear(*run);
      if (!cool) {
        at = run->end();
        run.reset();
        break;
      }
      run = cool;
    }
    if (run) return bytes_of(*run);
  }
  return std::nullopt;
}

std::optional<Range> DifferenceMap::first_part(Range bytes, bool was_written) const {
  GranuleRun left = granules_of(bytes);
  while (left.count != 0) {
    const auto dirty = dirty_.first_set(left);
    if (!dirty) return std::nullopt;
    const auto found = was_written ? written_.first_set(*dirty) : written_.first_clear(*dirty);
    if (found) return bytes_of(*found);
    left = {dirty->end(), left.end() - dirty->end()};
  }
  return std::nullopt;
}

void DifferenceMap::next_age() {
  less_recent_.clear_all();
  less_recent_.add(recent_);
  recent_.clear_all();
}

void DifferenceMap::forget_recent() {
  less_recent_.clear_all();
  recent_.clear_all();
}

void DifferenceMap::flush_begins() {
  flushing_.add(unsettled_);
  unsettled_.clear_all();
}

void DifferenceMap::flush_succeeded() {
  for (GranuleRun left{0, flushing_.size()}; kept_;) {
    const auto run = flushing_.first_set(left);
    if (!run) break;
    for (GranuleRun part = *run; part.count != 0;) {
      const auto clean = dirty_.first_clear(part);
      if (!clean) break;
      const auto settled = unsettled_.first_clear(*clean);
      if (settled) kept_->clear(*settled);
      const std::uint64_t next = settled ? settled->end() : clean->end();
      part = {next, part.end() - next};
    }
    left = {run->end(), flushing_.size() - run->end()};
  }
  flushing_.clear_all();
}

void DifferenceMap::lose_unsettled() {
  dirty_.add(unsettled_);
  dirty_.add(flushing_);
  unsettled_.clear_all();
  flushing_.clear_all();
}

void DifferenceMap::mark_all_dirty() {
  dirty_.set({0, dirty_.size()});
  if (kept_) kept_->set({0, dirty_.size()});
}

void DifferenceMap::mark_all_settled() {
  for (GranuleMap* map : {&dirty_, &unsettled_, &flushing_, &written_, &recent_, &less_recent_})
    map->clear_all();
  if (kept_) kept_->clear_all();
}

}  // namespace diskferry
