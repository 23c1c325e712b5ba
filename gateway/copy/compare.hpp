// Are two disks the same to a guest? Reads only where either may hold something else than zeros.
#pragma once

#include "diskferry/driver.hpp"
#include "diskferry/progress.hpp"

#include <optional>

namespace diskferry {

struct Comparison {
  bool is_same = false;
  /// Lowest offset that differs; beyond the end of the shorter disk when only the longer one's rest does.
  std::optional<std::uint64_t> first_difference;
  std::uint64_t a_bytes = 0;
  std::uint64_t b_bytes = 0;
  std::uint64_t compared_bytes = 0;  ///< read from both
  std::uint64_t skipped_bytes = 0;   ///< both promised zeros
};

struct CompareOptions {
  std::uint64_t request_bytes = 1u << 20;
  unsigned requests = 16;
  bool strict_size = false;  ///< another size is a difference, even when the rest is zeros
};

/// Errors: of the devices; cancelled.
Task<Result<Comparison>> compare(DriverContext& context, BlockDevice& a, BlockDevice& b,
                                 CompareOptions options, ProgressSink* progress);

}  // namespace diskferry
