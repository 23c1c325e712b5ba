// Byte amounts as people write them, and bytes in wire order.
#pragma once

#include "diskferry/error.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace diskferry {

inline constexpr std::uint64_t kib = 1024;
inline constexpr std::uint64_t mib = 1024 * kib;
inline constexpr std::uint64_t gib = 1024 * mib;
inline constexpr std::uint64_t tib = 1024 * gib;

/// "64K", "1.5G", "4096" -> bytes; suffixes K M G T P E (powers of 1024), optional "iB" or "B".
/// Errors: invalid_argument.
Result<std::uint64_t> parse_bytes(std::string_view text);
/// "1.5 GiB": at most one decimal, for people only.
std::string format_bytes(std::uint64_t bytes);

constexpr std::uint64_t align_down(std::uint64_t value, std::uint64_t power_of_two) {
  return value & ~(power_of_two - 1);
}
constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t power_of_two) {
  return align_down(value + power_of_two - 1, power_of_two);
}
constexpr bool is_aligned(std::uint64_t value, std::uint64_t power_of_two) {
  return (value & (power_of_two - 1)) == 0;
}
constexpr std::uint64_t divide_up(std::uint64_t value, std::uint64_t by) {
  return value / by + (value % by != 0);
}

/// Big-endian integers at any address. The caller has checked that the bytes are there.
template <class T>
T load_big(const std::byte* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  if constexpr (std::endian::native == std::endian::little) value = std::byteswap(value);
  return value;
}
template <class T>
void store_big(std::byte* to, T value) noexcept {
  if constexpr (std::endian::native == std::endian::little) value = std::byteswap(value);
  std::memcpy(to, &value, sizeof value);
}

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// True when every byte is zero. Vectorised by the compiler; at memory speed for whole requests.
bool is_zero(std::span<const std::byte> bytes) noexcept;

}  // namespace diskferry
