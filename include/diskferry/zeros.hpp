// Zeros to write where a device cannot zero a range by a shorter way. Used by drivers and by the checking
// layer.
#pragma once

#include "diskferry/extent.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace diskferry {

struct ZeroPiece {
  std::uint64_t offset;
  std::span<const std::byte> bytes;  ///< zeros, aligned to 4096, that live as long as the program
};

/// Takes the first piece off `range` (not empty), for a loop that writes it all: `bytes_max` (> 0) at the
/// most, and no more than 256 KiB.
ZeroPiece take_zeros(Range& range, std::uint64_t bytes_max = UINT64_MAX) noexcept;

}  // namespace diskferry
