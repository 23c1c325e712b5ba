// Which parts of a buffer are zeros worth leaving out. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace diskferry {

struct ScanRules {
  /// Runs begin and end at multiples of this; at least 4 KiB (what file systems allocate).
  std::size_t granularity_bytes = 4096;
  /// Shorter runs of zeros count as data: a request of their own would cost more than the bytes do.
  std::size_t zero_run_bytes_min = 4096;
};

struct DataRun {
  std::size_t offset = 0;
  std::size_t length = 0;
  bool is_zero = false;
  bool operator==(const DataRun&) const noexcept = default;
};

/// Splits `bytes` into alternating runs that cover it. The last block may be shorter than the granularity.
void scan_runs(std::span<const std::byte> bytes, const ScanRules& rules, std::vector<DataRun>& runs);

}  // namespace diskferry
