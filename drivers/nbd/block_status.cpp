// Two lists of runs with their own boundaries become one list of extents.
#include "drivers/nbd/block_status.hpp"

#include "diskferry/units.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry::nbd {
namespace {
// NBD protocol, "base:allocation" metadata context.
constexpr std::uint64_t state_hole = 1;
constexpr std::uint64_t state_zero = 2;
constexpr std::uint64_t depth_unknown = UINT64_MAX;
constexpr std::uint64_t depth_max = Extent::depth_none - 1;
}  // namespace

void BlockStatus::begin(std::string_view context) {
  current_ = context == context_allocation ? &allocation_ : context == context_depth ? &depth_ : nullptr;
  if (current_ == nullptr) {
    problem_ = "it answered for a context that was not asked for";
  } else if (current_->is_seen) {
    problem_ = "it answered twice for one context";
  } else {
    current_->is_seen = true;
    current_->at = range_.offset;
  }
}

void BlockStatus::add(std::uint64_t length, std::uint64_t flags) {
  if (problem_ != nullptr || current_ == nullptr) return;
  Context& context = *current_;
  if (length == 0) {
    problem_ = "it sent an extent without length";
    return;
  }
  if (context.is_complete) {
    problem_ = "it sent extents beyond the range asked for";
    return;
  }
  // The last extent may reach beyond what was asked; what lies there is not our business now.
  const std::uint64_t end = length >= range_.end() - context.at ? range_.end() : context.at + length;
  context.is_complete = end == range_.end();
  context.at = end;
  if (context.is_full) return;
  if (!context.runs.empty() && context.runs.back().flags == flags) {
    context.runs.back().end = end;
  } else if (context.runs.size() < runs_max_) {
    context.runs.push_back({end, flags});
  } else {
    context.is_full = true;
  }
}

/// Goes through the runs of one context in step with the extents.
class BlockStatus::Cursor {
 public:
  Cursor(const Context& context, std::uint64_t otherwise) : runs_(context.runs), otherwise_(otherwise) {}

  /// End of the run that holds `at`, or `end` where nothing is known any more.
  std::uint64_t run_end(std::uint64_t at, std::uint64_t end) {
    while (index_ < runs_.size() && runs_[index_].end <= at) ++index_;
    return index_ < runs_.size() ? std::min(runs_[index_].end, end) : end;
  }
  /// Calls take(flags) for every run that has a part of [at, end), and for a part of which nothing is known.
  template <class Take>
  void each(std::uint64_t at, std::uint64_t end, Take take) {
    (void)run_end(at, end);
    for (std::size_t i = index_; at < end; ++i) {
      if (i == runs_.size()) return take(otherwise_);
      take(runs_[i].flags);
      at = runs_[i].end;
    }
  }

 private:
  const std::vector<Run>& runs_;
  const std::uint64_t otherwise_;
  std::size_t index_ = 0;
};

Result<std::vector<Extent>> BlockStatus::extents(std::uint32_t block_bytes, bool depth_expected) const {
  const auto broken = [&](std::string_view why) {
    return unexpected(fail(ErrorKind::protocol, "ask for block status")
                          .why(fmt::format("the server broke the protocol: {}", why))
                          .at(range_.offset, range_.length));
  };
  if (problem_ != nullptr) return broken(problem_);
  if (allocation_.runs.empty()) return broken("it sent no extent of base:allocation");
  if (depth_expected && depth_.runs.empty()) return broken("it sent no extent of qemu:allocation-depth");

  Cursor allocation(allocation_, 0);
  Cursor depth(depth_, depth_unknown);
  std::uint64_t known_end = allocation_.runs.back().end;
  if (depth_expected) known_end = std::min(known_end, depth_.runs.back().end);
  // A block that is known in part is one we answer for: what is not known of it counts as data.
  known_end = std::min(align_up(known_end - range_.offset, block_bytes) + range_.offset, range_.end());

  std::vector<Extent> found;
  for (std::uint64_t at = range_.offset; at < known_end && found.size() <= runs_max_;) {
    const std::uint64_t run_end = std::min(allocation.run_end(at, known_end), depth.run_end(at, known_end));
    std::uint64_t end = run_end == known_end ? run_end : align_down(run_end, block_bytes);
    if (end <= at) end = std::min(at + block_bytes, known_end);  // several runs share this block
    Extent extent{.offset = at, .length = end - at, .reads_zero = true, .is_hole = true};
    extent.depth = Extent::depth_none;
    allocation.each(at, end, [&](std::uint64_t flags) {
      extent.reads_zero = extent.reads_zero && (flags & state_zero) != 0;
      extent.is_hole = extent.is_hole && (flags & state_hole) != 0;
    });
    depth.each(at, end, [&](std::uint64_t layer) {
      // The server counts from 1; 0 is a range that no layer has.
      if (layer == depth_unknown) {
        extent.depth = 0;
      } else if (layer != 0) {
        extent.depth = std::min(extent.depth, static_cast<std::uint32_t>(std::min(layer - 1, depth_max)));
      }
    });
    append_merged(found, extent);
    at = end;
  }
  if (found.size() > runs_max_) found.resize(runs_max_);
  return found;
}
}  // namespace diskferry::nbd
