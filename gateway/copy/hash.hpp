// The hash of copied content: XXH3 with 128 bits. Guards against faults of storage, network and programs, not
// against somebody who makes collisions on purpose.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace diskferry {

struct ContentHash {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  bool operator==(const ContentHash&) const noexcept = default;
};

ContentHash content_hash(std::span<const std::byte> bytes) noexcept;

}  // namespace diskferry
