// Moments as operators name them, on a host with a clock of its own.
#include "gateway/cli/time_ahead.hpp"

#include <cstdlib>
#include <ctime>
#include <string>

#include <gtest/gtest.h>

namespace diskferry::cli {
namespace {

/// The host is in a zone that is two hours ahead of UTC, and one in winter.
class TimeAhead : public testing::Test {
 protected:
  TimeAhead() {
    if (const char* zone = std::getenv("TZ")) before_ = zone;
    set("CET-1CEST,M3.5.0,M10.5.0/3");
  }
  ~TimeAhead() override { set(before_); }
  static void set(const std::string& zone) {
    zone.empty() ? ::unsetenv("TZ") : ::setenv("TZ", zone.c_str(), 1);
    ::tzset();
  }

 private:
  std::string before_{};
};

constexpr std::int64_t now_s = 1'785'247'200;  // 2026-07-28T14:00:00Z, 16:00 there
constexpr std::int64_t hour_s = 3600;

TEST_F(TimeAhead, IsReadInEachForm) {
  const struct {
    std::string_view text;
    std::int64_t ahead_s;
  } rows[] = {
      {"+90s", 90},
      {"+30m", 1800},
      {"+2h", 2 * hour_s},
      {"+1d", 24 * hour_s},
      {"16:01", 60},
      {"16:00:01", 1},
      {"16:00", 24 * hour_s},  // the next one is tomorrow's
      {"15:30", 24 * hour_s - 1800},
      {"2026-07-28T17:00", hour_s},
      {"2026-07-28 17:00:30", hour_s + 30},
      {"2026-07-28T17:00:00Z", 3 * hour_s},
      {"2026-07-28T17:00+02:00", hour_s},
      {"2026-07-28T17:00:00-01:30", 4 * hour_s + 1800},
      {"2026-12-01T00:00Z", 1'796'083'200 - now_s},
      {"2026-12-01T01:00", 1'796'083'200 - now_s},  // winter
  };
  for (const auto& row : rows) {
    const auto parsed = parse_time_ahead(row.text, now_s * 1000);
    ASSERT_TRUE(parsed) << row.text << ": " << parsed.error().message();
    EXPECT_EQ(*parsed / 1000 - now_s, row.ahead_s) << row.text;
  }
}

TEST_F(TimeAhead, RefusesWhatIsOverAndWhatIsNoTime) {
  for (const std::string_view text : {"",
                                      "+",
                                      "+m",
                                      "+30",
                                      "+-5m",
                                      "-30m",
                                      "+0s",
                                      "30m",
                                      "24:00",
                                      "12:60",
                                      "1:30",
                                      "12:30x",
                                      "now",
                                      "+400d",
                                      "+99999999999d",
                                      "2026-07-28T15:59",
                                      "2026-07-28T14:00:00Z",
                                      "2026-02-30T10:00",
                                      "2026-07-29",
                                      "2026-07-29T",
                                      "2026-07-29T10",
                                      "2026-07-29T10:00+2",
                                      "2026-07-29T10:00Zx",
                                      "2026-13-01T10:00",
                                      "2030-01-01T00:00"}) {
    const auto parsed = parse_time_ahead(text, now_s * 1000);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().kind(), ErrorKind::invalid_argument) << text;
    EXPECT_FALSE(parsed.error().remedy().empty()) << text;
  }
}

}  // namespace
}  // namespace diskferry::cli
