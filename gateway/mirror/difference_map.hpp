// What may differ between a primary and its target, in granules. The owner (MirrorDevice) keeps to one rule:
// a granule that is not dirty, and that no write and no copy in flight touches, holds the same on both, as
// far as the target has been told. What the target was told is unsettled until a flush of it has succeeded.
//
// Everything that is dirty or unsettled is in the file, too, before the primary is written; a mapped file,
// so that this costs nothing and survives the end of the process.
#pragma once

#include "diskferry/extent.hpp"
#include "gateway/mirror/granule_map.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace diskferry {

struct DifferenceShape {
  std::uint64_t size_bytes = 0;
  std::uint64_t granule_bytes = 0;
  std::uint64_t granules() const noexcept {
    return granule_bytes == 0 ? 0 : (size_bytes + granule_bytes - 1) / granule_bytes;
  }
  bool operator==(const DifferenceShape&) const noexcept = default;
};

/// 64 KiB, or what keeps a map of the disk at 32 MiB: 256 KiB for 64 TiB.
DifferenceShape difference_shape(std::uint64_t size_bytes) noexcept;

/// Not thread-safe: the mirror's mutex guards it. Every call is a few memory accesses for what guests write.
class DifferenceMap {
 public:
  /// `kept`: the bits of a file, all of which are dirty now; empty: everything is dirty, and nothing is kept.
  /// Lifetime: `kept` outlives it.
  DifferenceMap(DifferenceShape shape, std::span<std::uint64_t> kept);

  const DifferenceShape& shape() const noexcept { return shape_; }
  std::uint64_t dirty_bytes() const noexcept;
  /// Nothing is dirty, and what the target was told is settled.
  bool is_settled() const noexcept {
    return dirty_.count() == 0 && unsettled_.count() == 0 && flushing_.count() == 0;
  }

  /// The target does not have these bytes.
  void mark_dirty(Range bytes);
  /// As mark_dirty(), where a guest writes: it is recent, and what was planned for it is void.
  void mark_written(Range bytes);
  /// The same of those granules that are dirty already.
  void note_written(Range bytes);
  /// The parts of `bytes` in granules that are not dirty, in order.
  void clean_parts(Range bytes, std::vector<Range>& parts) const;
  bool is_dirty(Range bytes) const noexcept;
  /// Begins and ends with granules, or with the disk.
  bool is_whole(Range bytes) const noexcept;
  /// The target is being told these bytes, whose granules are not dirty.
  void mark_unsettled(Range bytes);
  /// Takes the dirty granules of `bytes` to be copied: they are unsettled now. Whole granules.
  void begin_copy(Range bytes);
  /// The first run that is dirty and may be taken, from `from` on, at most `bytes_max`; nullopt at the end.
  /// `skip_recent`: leaves out what guests have written since the age before the last next_age().
  std::optional<Range> first_dirty(std::uint64_t from, std::uint64_t bytes_max, bool skip_recent) const;
  /// The first run inside `bytes` that is dirty and was written by a guest (`was_written`), or was not.
  std::optional<Range> first_part(Range bytes, bool was_written) const;
  /// What was recent is less so.
  void next_age();
  /// Nothing is recent.
  void forget_recent();

  /// A flush of the target begins: it covers what is unsettled now.
  void flush_begins();
  /// It has succeeded: what it covered, and is not told again or dirty, is settled.
  void flush_succeeded();
  /// The target has failed or gone: nobody knows what it has of what is unsettled, so it is dirty.
  void lose_unsettled();
  /// Everything is dirty.
  void mark_all_dirty();
  /// Source and target are the same everywhere, and durably so.
  void mark_all_settled();

 private:
  GranuleRun granules_of(Range bytes) const noexcept;
  Range bytes_of(GranuleRun run) const noexcept;

  const DifferenceShape shape_;
  GranuleMap dirty_;
  GranuleMap unsettled_;  // since the last flush of the target began
  GranuleMap flushing_;   // before that
  GranuleMap written_;    // by guests, of what has not been copied yet
  GranuleMap recent_;
  GranuleMap less_recent_;
  std::optional<GranuleMap> kept_;
};

}  // namespace diskferry
