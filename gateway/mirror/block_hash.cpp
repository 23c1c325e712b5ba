// XXH3 from libxxhash, inlined: its vector width is that of this file.
#include "gateway/mirror/block_hash.hpp"

#include "diskferry/units.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace diskferry {

BlockHash hash_block(std::span<const std::byte> bytes, std::uint64_t seed) noexcept {
  if (is_zero(bytes)) return BlockHash::zero();
  const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes.data(), bytes.size(), seed);
  // High 0 is kept for the two special values. Content whose hash begins so is one of 2^64.
  return {hash.high64 == 0 ? 1 : hash.high64, hash.low64};
}

}  // namespace diskferry
