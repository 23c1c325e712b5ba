#include "gateway/cli/time_ahead.hpp"

#include "diskferry/image_uri.hpp"

#include <charconv>
#include <chrono>
#include <ctime>
#include <optional>
#include <string>

namespace diskferry::cli {
namespace {

constexpr std::int64_t day_s = 24 * 3600;
constexpr std::int64_t ahead_s_max = 366 * day_s;

/// What is left of a text, taken from its beginning.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : rest_(text) {}
  bool is_at_end() const { return rest_.empty(); }
  bool take(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  /// Exactly so many digits, of a number from `least` to `most`.
  std::optional<int> number(std::size_t digits, int least, int most) {
    if (rest_.size() < digits) return std::nullopt;
    int value = 0;
    const char* const end = rest_.data() + digits;
    const auto parsed = std::from_chars(rest_.data(), end, value);
    if (rest_.front() == '-' || parsed.ec != std::errc() || parsed.ptr != end || value < least ||
        value > most)
      return std::nullopt;
    rest_.remove_prefix(digits);
    return value;
  }

 private:
  std::string_view rest_;
};

/// "90s", "30m", "2h", "1d", in seconds.
std::optional<std::int64_t> span_of(std::string_view text) {
  std::uint32_t count = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), count);
  const std::string_view unit(parsed.ptr, text.data() + text.size());
  const std::int64_t seconds = unit == "s"   ? 1
                               : unit == "m" ? 60
                               : unit == "h" ? 3600
                               : unit == "d" ? day_s
                                             : 0;
  if (parsed.ec != std::errc() || seconds == 0) return std::nullopt;
  return count * seconds;
}

/// "22:30" or "22:30:15", into `into`.
bool take_clock(Cursor& from, std::tm& into) {
  const auto hour = from.number(2, 0, 23);
  if (!hour || !from.take(':')) return false;
  const auto minute = from.number(2, 0, 59);
  const auto second = from.take(':') ? from.number(2, 0, 59) : 0;
  if (!minute || !second) return false;
  into.tm_hour = *hour;
  into.tm_min = *minute;
  into.tm_sec = *second;
  into.tm_isdst = -1;
  return true;
}

bool take_date(Cursor& from, std::tm& into) {
  const auto year = from.number(4, 1970, 9999);
  if (!year || !from.take('-')) return false;
  const auto month = from.number(2, 1, 12);
  if (!month || !from.take('-')) return false;
  const auto day = from.number(2, 1, 31);
  using namespace std::chrono;
  if (!day || !(std::chrono::year(*year) / *month / *day).ok()) return false;
  into.tm_year = *year - 1900;
  into.tm_mon = *month - 1;
  into.tm_mday = *day;
  return true;
}

/// Seconds that a zone is ahead of UTC.
std::optional<std::int64_t> zone_of(Cursor& from) {
  if (from.take('Z') || from.take('z')) return 0;
  const bool is_west = from.take('-');
  if (!is_west && !from.take('+')) return std::nullopt;
  const auto hours = from.number(2, 0, 23);
  if (!hours || !from.take(':')) return std::nullopt;
  const auto minutes = from.number(2, 0, 59);
  if (!minutes) return std::nullopt;
  return (is_west ? -1 : 1) * (*hours * 3600 + *minutes * 60);
}

std::optional<std::int64_t> clock_time(std::string_view text, std::int64_t now_s) {
  const std::time_t now = now_s;
  std::tm local{};
  if (localtime_r(&now, &local) == nullptr) return std::nullopt;
  Cursor from(text);
  if (!take_clock(from, local) || !from.is_at_end()) return std::nullopt;
  std::tm tomorrow = local;
  const std::time_t today = std::mktime(&local);
  if (today > now_s) return today;
  ++tomorrow.tm_mday;
  return std::mktime(&tomorrow);
}

std::optional<std::int64_t> date_time(std::string_view text) {
  std::tm parts{};
  Cursor from(text);
  if (!take_date(from, parts) || !(from.take('T') || from.take('t') || from.take(' '))) return std::nullopt;
  if (!take_clock(from, parts)) return std::nullopt;
  if (from.is_at_end()) return std::mktime(&parts);
  const auto zone = zone_of(from);
  if (!zone || !from.is_at_end()) return std::nullopt;
  return timegm(&parts) - *zone;
}

std::optional<std::int64_t> seconds_of(std::string_view text, std::int64_t now_s) {
  if (text.starts_with('+')) {
    const auto span = span_of(text.substr(1));
    return span ? std::optional(now_s + *span) : std::nullopt;
  }
  return text.size() <= 8 ? clock_time(text, now_s) : date_time(text);
}

Error wrong(std::string_view text, std::string why) {
  return fail(ErrorKind::invalid_argument, "read the time", printable(text))
      .why(std::move(why))
      .remedy("name a later one as +30m, 22:30, 2026-11-28T22:30 or 2026-11-28T22:30:00+01:00");
}

}  // namespace

Result<std::int64_t> parse_time_ahead(std::string_view text, std::int64_t now_ms) {
  const std::int64_t now_s = now_ms / 1000;
  const auto seconds = seconds_of(text, now_s);
  if (!seconds) return unexpected(wrong(text, "it is no time"));
  if (*seconds * 1000 <= now_ms) return unexpected(wrong(text, "it is over"));
  if (*seconds - now_s > ahead_s_max) return unexpected(wrong(text, "it lies more than a year ahead"));
  return *seconds * 1000;
}

}  // namespace diskferry::cli
