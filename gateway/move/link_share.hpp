// How the disks of a move share the link, or the operator's budget for both, with its memory. A guest that
// writes more than there is room for keeps the windows full, and what is left for its memory is the share of
// one connection among many: the move would take for ever. So the disks step back, and the guest, whose
// writes wait for the windows, with them; the memory comes to its end, and then nobody waits any more.
#pragma once

#include <cstdint>

namespace diskferry {

/// Of the link, what the disks keep when they step back: one part of so many.
inline constexpr std::uint64_t disks_link_part = 4;

class LinkShare {
 public:
  /// What was seen since the last call, in bytes a second, and whether the windows are so full that the guest
  /// waits. Returns what the disks may send a second; 0: no bound.
  std::uint64_t next(bool do_disks_wait, std::uint64_t disk_rate, std::uint64_t memory_rate) noexcept;

 private:
  std::uint64_t link_ = 0;  ///< what both got together
  std::uint64_t bound_ = 0;
  unsigned calm_ = 0;  ///< calls since the guest waited
};

/// In bytes a second; 0: no bound.
struct LinkRates {
  std::uint64_t disks = 0;
  std::uint64_t memory = 0;
};
/// `budget` for both (0: none), of which the disks are to keep to `share` (0: to nothing less) and use
/// `disk_rate` now. The memory gets the rest, and never nothing. Pure.
LinkRates rates_within(std::uint64_t budget, std::uint64_t share, std::uint64_t disk_rate) noexcept;

}  // namespace diskferry
