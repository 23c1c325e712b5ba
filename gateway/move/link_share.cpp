#include "gateway/move/link_share.hpp"

#include <algorithm>

namespace diskferry {
namespace {

/// A guest that writes goes on to.
constexpr std::uint64_t bound_min = 256u << 10;
/// Bytes that vanish into buffers look like a fast link for a moment: what was seen counts less with each
/// call.
constexpr std::uint64_t memory_of_the_past = 32;
constexpr unsigned calm_calls = 10;
/// Of a budget, what the memory gets at least.
constexpr std::uint64_t memory_part = 4;

}  // namespace

std::uint64_t LinkShare::next(bool do_disks_wait, std::uint64_t disk_rate,
                              std::uint64_t memory_rate) noexcept {
  if (do_disks_wait) {
    calm_ = 0;
    link_ = std::max(link_ - link_ / memory_of_the_past, disk_rate + memory_rate);
    bound_ = std::max(link_ / disks_link_part, bound_min);
  } else if (bound_ != 0 && ++calm_ >= calm_calls) {
    link_ = 0;
    bound_ = 0;
  }
  return bound_;
}

LinkRates rates_within(std::uint64_t budget, std::uint64_t share, std::uint64_t disk_rate) noexcept {
  if (budget == 0) return {.disks = share};
  const std::uint64_t disks = share == 0 ? budget : std::min(share, budget);
  const std::uint64_t used = std::min(disk_rate, disks);
  // 0 would be no bound.
  return {.disks = disks, .memory = std::max<std::uint64_t>({budget / memory_part, budget - used, 1})};
}

}  // namespace diskferry
