#include "drivers/support/uri_keys.hpp"

#include <charconv>
#include <fmt/format.h>

namespace diskferry {

Error bad_uri(const ImageUri& uri, std::string why, std::string remedy) {
  Error error = fail(ErrorKind::invalid_argument, "open", uri.to_string()).why(std::move(why));
  return remedy.empty() ? error : std::move(error).remedy(std::move(remedy));
}

Result<bool> truth_key(const ImageUri& uri, std::string_view key, bool otherwise) {
  const auto value = uri.query(key);
  if (!value) return otherwise;
  if (*value == "1" || *value == "true" || *value == "yes" || *value == "on") return true;
  if (*value == "0" || *value == "false" || *value == "no" || *value == "off") return false;
  return unexpected(bad_uri(uri, fmt::format("{} is neither true nor false", key)));
}

Result<Duration> seconds_key(const ImageUri& uri, std::string_view key, Duration otherwise) {
  const auto value = uri.query(key);
  if (!value) return otherwise;
  double number = -1;
  const auto [end, failed] = std::from_chars(value->data(), value->data() + value->size(), number);
  if (failed != std::errc() || end != value->data() + value->size() || !(number >= 0 && number <= 86400))
    return unexpected(bad_uri(uri, fmt::format("{} is not a number of seconds from 0 to 86400", key)));
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(number));
}

Result<std::uint32_t> number_key(const ImageUri& uri, std::string_view key, std::uint32_t least,
                                 std::uint32_t most, std::uint32_t otherwise) {
  const auto value = uri.query(key);
  if (!value) return otherwise;
  std::uint32_t number = 0;
  const auto [end, failed] = std::from_chars(value->data(), value->data() + value->size(), number);
  if (failed != std::errc() || end != value->data() + value->size() || number < least || number > most)
    return unexpected(bad_uri(uri, fmt::format("{} is not a number from {} to {}", key, least, most)));
  return number;
}

}  // namespace diskferry
