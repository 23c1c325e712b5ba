// What a copy has to do, found out lazily: the extents of the source, and where they are zeros those of the
// target, become units of work. Never holds more than a window of extents, so that the size of a disk costs
// neither memory nor time; never changes anything.
#pragma once

#include "diskferry/block_device.hpp"
#include "diskferry/sync.hpp"
#include "gateway/copy/range_set.hpp"
#include "gateway/copy/work.hpp"

#include <deque>
#include <mutex>

namespace diskferry {

struct PlanRules {
  std::uint64_t source_bytes = 0;
  std::uint64_t target_bytes = 0;  ///< at least source_bytes; the tail beyond the source becomes zeros
  /// Units of kind copy begin and end at multiples of this (but for the end of the target): the blocks of
  /// both sides, and whole clusters where the target compresses.
  std::uint64_t align_bytes = 512;
  std::uint64_t request_bytes = 1u << 20;  ///< longest unit of kind copy; a multiple of align_bytes
  /// Zeros between data that are shorter than this are read with the data.
  std::uint64_t gap_bytes_max = 64u << 10;
  /// Only the top layer is copied: what it does not have is left alone, and nothing is widened into it.
  bool top_only = false;
};

/// Turns extents, handed over in order without gaps, into runs of data and zeros. Pure.
class RunBuilder {
 public:
  struct Run {
    WorkKind kind = WorkKind::copy;  ///< copy, zero or leave
    Range range;
    bool operator==(const Run&) const noexcept = default;
  };

  explicit RunBuilder(const PlanRules& rules) : rules_(rules) {}
  /// `extent` goes on where the last one ended. Finished runs are appended to `runs`.
  void feed(const Extent& extent, std::vector<Run>& runs);
  /// Hands out what is known of the open run of data, up to a whole request: work can begin.
  void drain(std::vector<Run>& runs);
  /// The end of the source: the rest up to the end of the target.
  void finish(std::vector<Run>& runs);

 private:
  void feed_data(std::uint64_t begin, std::uint64_t end, std::vector<Run>& runs);
  void feed_rest(WorkKind kind, std::uint64_t begin, std::uint64_t end, std::vector<Run>& runs);
  void close(std::vector<Run>& runs);

  const PlanRules rules_;
  // What is not handed out yet: data, then zeros (or what is left alone) that touch it. Either may be empty.
  Range data_;
  Run rest_{WorkKind::zero, {}};
};

/// The first unit of a run of data: ends at a multiple of `request_bytes`.
Range first_request(Range run, std::uint64_t request_bytes) noexcept;

/// The plan of one cold copy. Lifetime: of both devices. Thread: next() as WorkSource says.
class CopyPlan final : public WorkSource {
 public:
  /// Bounds what is asked for at once, and so the memory of a plan.
  static constexpr std::size_t extents_per_call = 1024;
  /// Longest unit of zeros that a target has to write: cancelling and progress stay prompt.
  static constexpr std::uint64_t slow_zero_bytes_max = 32u << 20;
  static constexpr std::uint64_t fast_zero_bytes_max = 1u << 30;
  /// So much of a target is asked about at once, since a question may cost a round trip.
  static constexpr std::uint64_t target_bytes_per_call = 1u << 30;

  struct Devices {
    BlockDevice& source;
    BlockDevice*
        target;  ///< nullptr: nothing is known of it (it is not there yet, and will start with zeros)
  };
  /// `done`: what an earlier, interrupted copy has finished; it is not handed out.
  CopyPlan(Devices devices, PlanRules rules, RangeSet done = {});

  Task<Result<std::optional<Work>>> next() override;
  const PlanRules& rules() const noexcept { return rules_; }

 private:
  std::optional<Work> try_next();
  Task<Result<void>> refill();
  Task<Result<void>> add_zeros(Range range);
  Task<Result<void>> look_at_target(Range range);
  void push(const Work& work);

  const Devices devices_;
  const PlanRules rules_;
  const RangeSet done_;
  const std::uint64_t zero_bytes_max_;
  AsyncMutex refilling_;
  // Guarded by refilling_.
  RunBuilder builder_;
  std::uint64_t source_offset_ = 0;
  bool is_finished_ = false;
  // What the target was where it was asked about last. As with what is ready: who lets others write to it
  // knows where they have.
  std::deque<Extent> target_;
  // Guarded by guard_.
  std::mutex guard_;
  std::deque<Work> ready_;
};

/// What a plan comes to.
struct PlanTotals {
  std::uint64_t copy_bytes = 0;
  std::uint64_t zero_bytes = 0;
  std::uint64_t skip_bytes = 0;
  std::uint64_t leave_bytes = 0;
  std::uint64_t bytes() const noexcept { return copy_bytes + zero_bytes + skip_bytes + leave_bytes; }
};
Task<Result<PlanTotals>> total(WorkSource& plan);

}  // namespace diskferry
