// XXH3 from libxxhash, which picks its vector width when it is built. Inlined here, so that the width is that
// of this file; see CMakeLists.txt.
#include "gateway/copy/hash.hpp"

#include <xxhash.h>

namespace diskferry {

ContentHash content_hash(std::span<const std::byte> bytes) noexcept {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.high64, hash.low64};
}

}  // namespace diskferry
