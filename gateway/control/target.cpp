// Targets, taken apart before they are decoded, so that an escaped slash stays in its segment.
#include "gateway/control/target.hpp"

#include "diskferry/image_uri.hpp"

#include <cctype>
#include <charconv>
#include <fmt/format.h>

namespace diskferry::control {
namespace {

constexpr std::size_t target_bytes_max = 8192;
constexpr std::size_t segments_max = 8;
constexpr std::size_t query_keys_max = 16;

Error refuse(std::string_view text, std::string why) {
  return fail(ErrorKind::invalid_argument, "read request", printable(text)).why(std::move(why));
}

/// A NUL is refused: no name that is meant has one, and it would end the name elsewhere.
Result<std::string> unescape(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '%') {
      result += text[at];
      continue;
    }
    unsigned value = 0;
    const std::string_view digits = text.substr(at + 1, 2);
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (digits.size() != 2 || parsed.ec != std::errc() || parsed.ptr != digits.data() + 2 || value == 0)
      return unexpected(refuse(text, "a percent sign is followed by two hexadecimal digits that are not 00"));
    result += static_cast<char>(value);
    at += 2;
  }
  return result;
}

Result<void> parse_query(std::string_view text, Target& target) {
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(text.size(), pair.size() + 1));
    const auto equals = pair.find('=');
    DISKFERRY_TRY(std::string key, unescape(pair.substr(0, equals)));
    DISKFERRY_TRY(std::string value,
                  unescape(equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1)));
    if (target.query.size() == query_keys_max ||
        !target.query.emplace(std::move(key), std::move(value)).second)
      return unexpected(refuse(pair, "there are too many settings, or one of them twice"));
  }
  return {};
}

}  // namespace

Result<Target> parse_target(std::string_view text) {
  if (text.size() > target_bytes_max)
    return unexpected(fail(ErrorKind::too_large, "read request").why("the target is too long"));
  if (!text.starts_with('/')) return unexpected(refuse(text, "the target must be an absolute path"));
  const std::string_view path = text.substr(0, text.find('?'));
  Target target;
  for (std::string_view rest = path.substr(1); !rest.empty();) {
    const std::string_view segment = rest.substr(0, rest.find('/'));
    rest.remove_prefix(std::min(rest.size(), segment.size() + 1));
    if (target.segments.size() == segments_max) return unexpected(refuse(text, "the path is too deep"));
    DISKFERRY_TRY(std::string decoded, unescape(segment));
    target.segments.push_back(std::move(decoded));
  }
  if (path.size() < text.size()) DISKFERRY_CHECK(parse_query(text.substr(path.size() + 1), target));
  return target;
}

std::string escape(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 ||
        std::string_view("-._~").find(c) != std::string_view::npos) {
      result += c;
    } else {
      result += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return result;
}

}  // namespace diskferry::control
