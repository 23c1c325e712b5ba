// The progress line as a terminal sees it, with a clock and a stream of the test's own.
#include "gateway/cli/progress.hpp"

#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

namespace diskferry::cli {
namespace {
using std::chrono::milliseconds;
using std::chrono::seconds;

struct Screen {
  std::string text;
  ProgressOutput output(std::size_t width = 80) {
    return {.write = [this](std::string_view piece) { text += piece; }, .width = width};
  }
  std::string last_line() const {
    const auto at = text.find_last_of('\r');
    auto line = at == std::string::npos ? text : text.substr(at + 1);
    while (!line.empty() && (line.back() == ' ' || line.back() == '\n')) line.pop_back();
    return line;
  }
  std::size_t lines_written() const { return static_cast<std::size_t>(std::ranges::count(text, '\r')); }
};

TEST(ProgressBar, ShowsPhasePercentBytesRateAndTimeLeft) {
  FakeClock clock;
  Screen screen;
  ProgressReporter progress(ProgressMode::bar, clock, screen.output());
  progress.update({.subject = "vm.qcow2", .phase = "copy", .bytes_done = 0, .bytes_total = 1000 * mib});
  clock.advance(seconds(1));
  progress.update(
      {.subject = "vm.qcow2", .phase = "copy", .bytes_done = 250 * mib, .bytes_total = 1000 * mib});
  EXPECT_EQ(screen.last_line(), "vm.qcow2  copy    25%  250.0 MiB of 1000.0 MiB  250.0 MiB/s  3s left");
}

TEST(ProgressBar, HasLinesUnderIt) {
  FakeClock clock;
  Screen screen;
  ProgressReporter progress(ProgressMode::bar, clock, screen.output(20));
  progress.set_details({"one", "a line that is too long for it \u20ac"});
  progress.update({.subject = "", .phase = "bulk", .bytes_done = 1});
  EXPECT_TRUE(screen.text.ends_with("\n\rone\x1b[K\n\ra line that is too \x1b[K\x1b[2A\r")) << screen.text;
  screen.text.clear();
  progress.set_details({"two"});
  progress.update({.subject = "", .phase = "delta", .bytes_done = 1});
  EXPECT_TRUE(screen.text.ends_with("\n\rtwo\x1b[K\n\r\x1b[K\x1b[2A\r")) << screen.text;
  screen.text.clear();
  progress.finish();
  EXPECT_TRUE(screen.text.ends_with("\n\n\n")) << screen.text;
}

TEST(ProgressBar, MakesRoomForOthers) {
  FakeClock clock;
  Screen screen;
  ProgressReporter progress(ProgressMode::bar, clock, screen.output());
  progress.clear();
  EXPECT_EQ(screen.text, "");
  progress.update({.subject = "", .phase = "bulk", .bytes_done = 1});
  screen.text.clear();
  progress.clear();
  EXPECT_EQ(screen.text, "\r\x1b[J");
  progress.update({.subject = "", .phase = "bulk", .bytes_done = 1});
  EXPECT_EQ(screen.lines_written(), 2u);
}

TEST(ProgressBar, NeverCutsACharacterInTwo) {
  FakeClock clock;
  for (std::size_t width = 40; width < 60; ++width) {
    Screen screen;
    ProgressReporter progress(ProgressMode::bar, clock, screen.output(width));
    progress.update({.subject = "\u00fc\u20ac\U0001f4bd\u00fc\u20ac\U0001f4bd\u00fc\u20ac\U0001f4bd",
                     .phase = "copy",
                     .bytes_done = 1,
                     .bytes_total = 1000});
    EXPECT_TRUE(is_utf8(screen.last_line())) << width << screen.last_line();
  }
}

TEST(ProgressBar, IsRewrittenAtMostTenTimesASecond) {
  FakeClock clock;
  Screen screen;
  ProgressReporter progress(ProgressMode::bar, clock, screen.output());
  for (std::uint64_t i = 0; i < 1000; ++i) {
    progress.update({.subject = "d", .phase = "copy", .bytes_done = i, .bytes_total = 1000});
    clock.advance(milliseconds(1));
  }
  EXPECT_EQ(screen.lines_written(), 10u);
}

TEST(ProgressBar, ShowsANewPhaseAtOnce) {
  FakeClock clock;
  Screen screen;
  ProgressReporter progress(ProgressMode::bar, clock, screen.output());
  progress.update({.subject = "d", .phase = "copy", .bytes_done = 10, .bytes_total = 10});
  progress.update({.subject = "d", .phase = "verify", .bytes_done = 0, .bytes_total = 10});
  EXPECT_EQ(screen.last_line(), "d  verify   0%  0 B of 10 B");
}

TEST(ProgressBar, SaysHundredPercentOnlyWhenAllIsDone) {
  FakeClock clock;
  Screen screen;
  ProgressReporter progress(ProgressMode::bar, clock, screen.output());
  progress.update({.subject = "d", .phase = "copy", .bytes_done = 999'999, .bytes_total = 1'000'000});
  EXPECT_NE(screen.last_line().find(" 99%"), std::string::npos);
}

TEST(ProgressBar, NeverWrapsANarrowTerminal) {
  FakeClock clock;
  Screen screen;
  ProgressReporter progress(ProgressMode::bar, clock, screen.output(40));
  progress.update({.subject = std::string(200, 'x'), .phase = "copy", .bytes_done = 1, .bytes_total = gib});
  EXPECT_LT(screen.text.size(), 41u);
}

TEST(ProgressBar, DoesNotLetAHostileNameWriteToTheTerminal) {
  FakeClock clock;
  Screen screen;
  ProgressReporter progress(ProgressMode::bar, clock, screen.output());
  progress.update({.subject = "a\x1b[2Jb", .phase = "copy", .bytes_done = 1, .bytes_total = 2});
  EXPECT_EQ(screen.text.find('\x1b'), std::string::npos);
}

TEST(ProgressBar, ShowsAStallWhenNothingMoves) {
  FakeClock clock;
  Screen screen;
  ProgressReporter progress(ProgressMode::bar, clock, screen.output());
  progress.update({.subject = "d", .phase = "copy", .bytes_done = 0, .bytes_total = gib});
  clock.advance(seconds(1));
  progress.update({.subject = "d", .phase = "copy", .bytes_done = mib, .bytes_total = gib});
  for (int i = 0; i < 100; ++i) {
    clock.advance(milliseconds(100));
    progress.tick();
  }
  EXPECT_NE(screen.last_line().find(" 0 B/s"), std::string::npos) << screen.last_line();
}

TEST(ProgressBar, EndsItsLineOnce) {
  FakeClock clock;
  Screen screen;
  {
    ProgressReporter progress(ProgressMode::bar, clock, screen.output());
    progress.update({.subject = "d", .phase = "copy", .bytes_done = 10, .bytes_total = 10});
    progress.finish();
    progress.update({.subject = "d", .phase = "late", .bytes_done = 10, .bytes_total = 10});
  }
  EXPECT_EQ(std::ranges::count(screen.text, '\n'), 1);
  EXPECT_EQ(screen.text.find("late"), std::string::npos);
}

TEST(ProgressBar, WritesNothingInModeNone) {
  FakeClock clock;
  Screen screen;
  ProgressReporter progress(ProgressMode::none, clock, screen.output());
  progress.update({.subject = "d", .phase = "copy", .bytes_done = 10, .bytes_total = 10});
  progress.finish();
  EXPECT_EQ(screen.text, "");
}

TEST(ProgressJson, IsOneObjectALineAtLeastEachSecond) {
  FakeClock clock;
  Screen screen;
  ProgressReporter progress(ProgressMode::json, clock, screen.output());
  progress.update({.subject = "a\"b", .phase = "copy", .bytes_done = 0, .bytes_total = 4 * mib});
  for (int i = 0; i < 30; ++i) {  // three seconds in which nothing moves
    clock.advance(milliseconds(100));
    progress.tick();
  }
  progress.finish();
  std::size_t lines = 0;
  for (std::size_t from = 0; from < screen.text.size(); ++lines) {
    const auto end = screen.text.find('\n', from);
    ASSERT_NE(end, std::string::npos);
    const auto line = boost::json::parse(boost::json::string_view(screen.text).substr(from, end - from));
    EXPECT_EQ(line.at("subject"), "a\"b");
    EXPECT_EQ(line.at("phase"), "copy");
    EXPECT_EQ(line.at("total").to_number<std::uint64_t>(), 4 * mib);
    from = end + 1;
  }
  EXPECT_EQ(lines, 5u);  // at the start, each second, at the end
}

TEST(FormatTime, HasAtMostTwoUnits) {
  EXPECT_EQ(format_time(seconds(0)), "0s");
  EXPECT_EQ(format_time(seconds(59)), "59s");
  EXPECT_EQ(format_time(seconds(65)), "1m05s");
  EXPECT_EQ(format_time(seconds(7500)), "2h05m");
  EXPECT_EQ(format_time(seconds(86400 * 3 + 3600)), "3d01h");
}

}  // namespace
}  // namespace diskferry::cli
