// A piece of a copy that is finished: what the engine reports, the ledger records and verification reads
// again.
#pragma once

#include "diskferry/extent.hpp"
#include "gateway/copy/hash.hpp"

#include <cstdint>

namespace diskferry {

enum class PieceState : std::uint8_t {
  copied = 1,        ///< written
  zeroed = 2,        ///< zeros written
  verified = 3,      ///< copied, and a re-read gave the same bytes
  verified_zero = 4  ///< zeroed, and a re-read gave zeros
};

struct Piece {
  Range range;  ///< length below 2^56
  PieceState state = PieceState::copied;
  ContentHash hash;  ///< of what was read from the source; nothing for zeros
  bool operator==(const Piece&) const noexcept = default;
  bool is_zero() const noexcept { return state == PieceState::zeroed || state == PieceState::verified_zero; }
  /// The same piece after a successful re-read.
  Piece as_verified() const noexcept {
    return {range, is_zero() ? PieceState::verified_zero : PieceState::verified, hash};
  }
};

}  // namespace diskferry
