// The unit of work of the copy engine, and where units come from: a plan for a cold copy, a map of dirty
// ranges for a live one. The engine copies what it is handed and never looks for work on its own.
#pragma once

#include "diskferry/extent.hpp"
#include "diskferry/task.hpp"

#include <cstdint>
#include <optional>

namespace diskferry {

enum class WorkKind : std::uint8_t {
  copy,  ///< read from the source, written to the target
  zero,  ///< zeros at the source, not proved zero at the target
  skip,  ///< zeros at the source, proved zero at the target: nothing is sent
  leave  ///< not part of this copy: unallocated in the only layer that is copied
};

struct Work {
  WorkKind kind = WorkKind::copy;
  Range range;
  /// Proved before the copy began: zeros found inside the data need not be written.
  bool target_reads_zero = false;
  bool operator==(const Work&) const noexcept = default;
};

class WorkSource {
 public:
  virtual ~WorkSource() = default;
  /// The next unit, or nullopt at the end; then it is not called again by that worker. No unit of kind copy
  /// is longer than EngineOptions::request_bytes. Thread: any, several workers at once.
  /// Errors: of the devices that are asked for extents; cancelled.
  virtual Task<Result<std::optional<Work>>> next() = 0;
  /// A unit that was handed out has ended, well or not. Called once for each, from any thread; never blocks.
  virtual void ended(const Work& /*unit*/, bool /*is_done*/) noexcept {}
};

}  // namespace diskferry
