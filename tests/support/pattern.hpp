// Recognisable content: a pattern that depends on the position, so that a block in the wrong place is seen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace diskferry::test {

/// Fills `into` with bytes that depend on `offset` and `seed`; never all zeros.
void fill_pattern(std::span<std::byte> into, std::uint64_t offset, std::uint64_t seed = 0);
std::vector<std::byte> pattern(std::uint64_t offset, std::size_t length, std::uint64_t seed = 0);
/// Position of the first byte that differs from the pattern; SIZE_MAX when none does.
std::size_t first_difference(std::span<const std::byte> got, std::uint64_t offset, std::uint64_t seed = 0);

}  // namespace diskferry::test
