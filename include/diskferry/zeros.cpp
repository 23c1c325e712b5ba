#include "diskferry/zeros.hpp"

#include <algorithm>
#include <array>

namespace diskferry {
namespace {
// Few calls for a large range, and a small part of a processor's second-level cache.
alignas(4096) constinit const std::array<std::byte, 256u << 10> zeros{};
}  // namespace

ZeroPiece take_zeros(Range& range, std::uint64_t bytes_max) noexcept {
  const auto length = std::min<std::uint64_t>({range.length, bytes_max, zeros.size()});
  const ZeroPiece piece{.offset = range.offset, .bytes = std::span(zeros).first(length)};
  range.offset += length;
  range.length -= length;
  return piece;
}

}  // namespace diskferry
