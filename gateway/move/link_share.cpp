#include "gateway/move/link_share.hpp"

#include <algorithm>

namespace diskferry {
namespace {

/// Of the link, what the disks keep.
constexpr std::uint64_t disk_part = 4;
/// A guest that writes goes on to.
constexpr std::uint64_t bound_min = 256u << 10;
/// Bytes that vanish into buffers look like a fast link for a moment: what was seen counts less with each
/// call.
constexpr std::uint64_t memory_of_the_past = 32;
constexpr unsigned calm_calls = 10;

}  // namespace

std::uint64_t LinkShare::next(bool do_disks_wait, std::uint64_t disk_rate,
                              std::uint64_t memory_rate) noexcept {
  if (do_disks_wait) {
    calm_ = 0;
    link_ = std::max(link_ - link_ / memory_of_the_past, disk_rate + memory_rate);
    bound_ = std::max(link_ / disk_part, bound_min);
  } else if (bound_ != 0 && ++calm_ >= calm_calls) {
    link_ = 0;
    bound_ = 0;
  }
  return bound_;
}

}  // namespace diskferry
