// How a replacement is told to people, and what odd documents cannot do to that.
#include "gateway/cli/replace_view.hpp"

#include <algorithm>

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

namespace diskferry::cli {
namespace {

boost::json::object object(const std::string& text) {
  return boost::json::parse(text).get_object();
}

std::vector<std::string> texts(const NamedLines& lines, std::string_view name) {
  std::vector<std::string> found;
  for (const auto& [line_name, text] : lines)
    if (line_name == name) found.push_back(text);
  return found;
}

constexpr const char* state =
    R"({"phase":"bulk","disks":[{"export":"vm","source":"/a.raw","source-format":"raw","uri":"/b.qcow2","format":"qcow2",
    "size-bytes":1048576,"was-created":true,"unreadable":[{"offset":4096,"length":512}]},{"export":"log","uri":"/c"}],
    "limits":{"bytes-per-second":1048576,"max-pause-ms":100,"max-write-latency-ms":10,"deadline-at-ms":0,"on-read-error":"skip"},
    "timeline":[{"phase":"prepared","at-ms":1000},{"phase":"bulk","at-ms":2000}],"leftovers":[]})";

TEST(ReplaceView, TellsWhereDisksGoAndUnderWhichLimits) {
  const auto lines = state_lines(
      object(state), object(R"({"disks":[],"commit-by-hand":true,"retain-s":600,"remove-source":true})"));
  EXPECT_EQ(texts(lines, "storage"),
            (std::vector<std::string>{"vm: /a.raw (raw) -> /b.qcow2 (qcow2), 1.0 MiB, made by the job",
                                      "log: -> /c"}));
  EXPECT_EQ(texts(lines, "unreadable"),
            std::vector<std::string>{"vm: 512 bytes at 4096, zeros at the target"});
  EXPECT_EQ(texts(lines, "limits"),
            std::vector<std::string>{
                "rate 1.0 MiB/s, pause 100 ms, write latency 10 ms, deadline none, on a read error skip"});
  EXPECT_EQ(
      texts(lines, "commit"),
      std::vector<std::string>{"by hand (diskferry commit), then the old storage is kept in step for 600 "
                               "s; the old storage is removed when it is let go"});
  const auto history = texts(lines, "history");
  ASSERT_EQ(history.size(), 2u);
  EXPECT_TRUE(history[1].ends_with(":02  bulk")) << history[1];
}

TEST(ReplaceView, ManyPlacesAreNotAllShown) {
  std::string places;
  for (unsigned i = 0; i < 40; ++i)
    places += (i == 0 ? "" : ",") + std::string(R"({"offset":0,"length":512})");
  const auto lines = texts(
      state_lines(object(R"({"disks":[{"export":"vm","unreadable":[)" + places + "]}]}"), {}), "unreadable");
  ASSERT_EQ(lines.size(), 17u);
  EXPECT_EQ(lines.back(), "24 more; --json has them all");
}

TEST(ReplaceView, ALineStaysALine) {
  const auto lines = state_lines(
      object(R"({"disks":[{"export":"a\n","source":"b\u001b","source-format":"\n","uri":"\n","format":"\n"}],
                 "limits":{"on-read-error":"\n"},"timeline":[{"phase":"\n"}]})"),
      {});
  EXPECT_EQ(lines.size(), 3u);
  for (const auto& [name, text] : lines)
    EXPECT_TRUE(std::ranges::none_of(text, [](char each) { return each == '\n' || each == '\x1b'; })) << text;
}

TEST(ReplaceView, NamesHaveNoSecrets) {
  const auto lines = route_lines(
      object(
          R"({"disks":[{"export":"vm","source":"nbd://h/a?password=hidden","uri":"rbd://p/b?key=hidden"}]})"),
      "made");
  EXPECT_EQ(lines, std::vector<std::string>{"vm: nbd://h/a?password=*** -> rbd://p/b?key=***"});
}

TEST(ReplaceView, OddDocumentsHaveNothingToTell) {
  for (const char* odd : {"{}", R"({"disks":7,"limits":7,"timeline":7})", R"({"disks":[7],"timeline":[7]})"})
    EXPECT_TRUE(state_lines(object(odd), object(odd == std::string("{}") ? odd : "{}")).empty()) << odd;
}

TEST(ReplaceView, WhatEndedBeforeAnythingWasMadeWasRefused) {
  EXPECT_TRUE(was_refused(object(R"({"phase":"aborted","timeline":[{"phase":"aborted"}],"leftovers":[]})")));
  EXPECT_FALSE(was_refused(
      object(R"({"phase":"aborted","timeline":[{"phase":"prepared"},{"phase":"aborted"}],"leftovers":[]})")));
  EXPECT_FALSE(was_refused(object(R"({"phase":"aborted","timeline":[],"leftovers":["/x"]})")));
  EXPECT_FALSE(was_refused(object(state)));
  EXPECT_FALSE(was_refused(object("{}")));
}

}  // namespace
}  // namespace diskferry::cli
