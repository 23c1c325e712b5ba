// Parsing and printing of byte amounts, the zero scan, and where assertions end.
#include "diskferry/units.hpp"

#include "diskferry/assert.hpp"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>

namespace diskferry {

void assertion_failed(const char* expression, const char* explanation, std::source_location where) noexcept {
  std::fprintf(stderr, "diskferry: defect: %s (%s) at %s:%u in %s\n", explanation, expression,
               where.file_name(), static_cast<unsigned>(where.line()), where.function_name());
  std::fflush(stderr);
  std::abort();
}

Result<std::uint64_t> parse_bytes(std::string_view text) {
  const auto bad = [&] {
    return unexpected(fail(ErrorKind::invalid_argument, "parse byte amount", std::string(text))
                          .why("expected a number with an optional suffix K, M, G, T, P or E"));
  };
  double amount = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), amount, std::chars_format::fixed);
  if (error != std::errc{} || amount < 0 || text.empty() || text.front() == '-') return bad();
  std::string_view suffix(end, static_cast<std::size_t>(text.data() + text.size() - end));
  int power = 0;
  if (!suffix.empty()) {
    constexpr std::string_view letters = "KMGTPE";
    const auto at = letters.find(static_cast<char>(suffix.front() & ~0x20));
    if (at != std::string_view::npos) {
      power = static_cast<int>(at) + 1;
      suffix.remove_prefix(1);
      if (suffix == "iB" || suffix == "B") suffix = {};
    } else if (suffix == "B") {
      suffix = {};
    }
    if (!suffix.empty()) return bad();
  }
  const std::string_view digits(text.data(), static_cast<std::size_t>(end - text.data()));
  if (digits.find('.') == std::string_view::npos) {  // integers stay exact
    std::uint64_t whole = 0;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), whole).ec != std::errc{}) return bad();
    const int shift = 10 * power;
    if (whole != 0 && (shift >= 64 || whole > (UINT64_MAX >> shift))) return bad();
    return whole << shift;
  }
  for (int i = 0; i < power; ++i) amount *= 1024;
  if (amount >= 18446744073709549568.0) return bad();
  return static_cast<std::uint64_t>(amount);
}

std::string format_bytes(std::uint64_t bytes) {
  constexpr std::string_view names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double amount = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (amount >= 1024 && unit + 1 < std::size(names)) {
    amount /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", amount, names[unit]);
}

bool is_zero(std::span<const std::byte> bytes) noexcept {
  // Most data blocks differ from zero in their first words: look there before the long scan.
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  while (left >= 64) {
    std::uint64_t words[8];
    std::memcpy(words, at, sizeof words);
    if ((words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7]) != 0)
      return false;
    at += sizeof words;
    left -= sizeof words;
  }
  std::byte rest{};
  while (left-- != 0) rest |= *at++;
  return rest == std::byte{};
}

}  // namespace diskferry
