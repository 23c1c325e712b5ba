// What a block holds, told by its hash: XXH3 with 128 bits under a seed of its own for each table. The seed
// is random, so that a guest which can make collisions for a known seed gains nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace diskferry {

/// A block of zeros has one representation, whatever the seed and the length; `unknown` equals no content.
struct BlockHash {
  std::uint64_t high = 0;
  std::uint64_t low = 0;

  static constexpr BlockHash zero() noexcept { return {0, 0}; }
  static constexpr BlockHash unknown() noexcept { return {0, 1}; }
  constexpr bool is_zero() const noexcept { return *this == zero(); }
  constexpr bool is_known() const noexcept { return *this != unknown(); }
  constexpr bool operator==(const BlockHash&) const noexcept = default;
};

/// Of whole blocks only; looks for zeros first. Never unknown.
BlockHash hash_block(std::span<const std::byte> bytes, std::uint64_t seed) noexcept;

}  // namespace diskferry
