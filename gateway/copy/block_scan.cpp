// See block_scan.hpp.
#include "gateway/copy/block_scan.hpp"

#include "diskferry/units.hpp"

#include <algorithm>

namespace diskferry {
namespace {

void append(std::vector<DataRun>& runs, DataRun next) {
  if (!runs.empty() && runs.back().is_zero == next.is_zero) {
    runs.back().length += next.length;
  } else {
    runs.push_back(next);
  }
}

}  // namespace

void scan_runs(std::span<const std::byte> bytes, const ScanRules& rules, std::vector<DataRun>& runs) {
  runs.clear();
  DataRun zeros{.is_zero = true};
  const auto end_zeros = [&] {
    if (zeros.length == 0) return;
    zeros.is_zero = zeros.length >= rules.zero_run_bytes_min || zeros.length == bytes.size();
    append(runs, zeros);
    zeros = {.is_zero = true};
  };
  for (std::size_t at = 0; at < bytes.size(); at += rules.granularity_bytes) {
    const std::size_t now = std::min(rules.granularity_bytes, bytes.size() - at);
    if (is_zero(bytes.subspan(at, now))) {
      if (zeros.length == 0) zeros.offset = at;
      zeros.length += now;
    } else {
      end_zeros();
      append(runs, {.offset = at, .length = now});
    }
  }
  end_zeros();
}

}  // namespace diskferry
