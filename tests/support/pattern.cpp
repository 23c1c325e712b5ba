#include "tests/support/pattern.hpp"

namespace diskferry::test {
namespace {
constexpr std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}
std::byte at(std::uint64_t offset, std::uint64_t seed) {
  const std::uint64_t word = mix((offset / 8) ^ (seed << 48)) | 0x0101010101010101ULL;
  return static_cast<std::byte>(word >> (8 * (offset % 8)));
}
}  // namespace

void fill_pattern(std::span<std::byte> into, std::uint64_t offset, std::uint64_t seed) {
  for (std::size_t i = 0; i < into.size(); ++i) into[i] = at(offset + i, seed);
}
std::vector<std::byte> pattern(std::uint64_t offset, std::size_t length, std::uint64_t seed) {
  std::vector<std::byte> bytes(length);
  fill_pattern(bytes, offset, seed);
  return bytes;
}
std::size_t first_difference(std::span<const std::byte> got, std::uint64_t offset, std::uint64_t seed) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (got[i] != at(offset + i, seed)) return i;
  }
  return SIZE_MAX;
}

}  // namespace diskferry::test
