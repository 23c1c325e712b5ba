// What a copy does where its source cannot be read: it finds out which bytes are really lost, keeps account
// of them, and goes on with zeros in their place or not, as the operator says.
#pragma once

#include "diskferry/block_device.hpp"
#include "gateway/copy/range_set.hpp"

#include <atomic>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

namespace diskferry {

/// Thread: any, many at once. Errors of reading that are not `io` are none of a bad place, and passed on.
class Salvage {
 public:
  /// More than this is no bad place but a source that is dying: it is not skipped any more.
  static constexpr std::uint64_t lost_bytes_max = 16u << 20;
  static constexpr std::size_t lost_pieces_max = 256;

  /// What an earlier process has skipped.
  explicit Salvage(const std::vector<Range>& lost = {});

  /// Whether what cannot be read becomes zeros; else it is an error.
  void set_skips(bool skips) { skips_ = skips; }
  bool skips() const { return skips_; }

  /// For a read of `range` that failed with `first`: reads it in ever smaller parts, down to a block. What is
  /// lost is zeros in `into`, and listed. Errors: `first` where that is not io; io, with the first place that
  /// is lost, where that is not skipped or is more than can be.
  Task<Result<void>> read(BlockDevice& source, Range range, std::span<std::byte> into, Error first);

  /// The same of what is listed, with the source as it is now. Returns what can be read by now and is not
  /// listed any more. Errors: of the source, other than io.
  Task<Result<std::vector<Range>>> look_again(BlockDevice& source);
  /// Empties the list. Returns what it was.
  std::vector<Range> forget();

  std::vector<Range> lost() const;
  std::uint64_t lost_bytes() const;
  /// Grows with each change of the list.
  std::uint64_t changes() const { return changes_; }
  /// Why the last read() failed that did; nullopt since clear_failure().
  std::optional<Error> failure() const;
  void clear_failure();

 private:
  Task<Result<std::vector<Range>>> lost_parts(BlockDevice& source, Range range, std::span<std::byte> into);
  Result<void> note(Range range, const std::vector<Range>& lost);
  Error remembered(Error error);

  mutable std::mutex guard_;
  RangeSet lost_;
  std::optional<Error> failure_;
  std::atomic<bool> skips_ = false;
  std::atomic<std::uint64_t> changes_ = 0;
};

}  // namespace diskferry
