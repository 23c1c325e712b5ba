// How a move is told to people.
#include "gateway/cli/move_view.hpp"

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

namespace diskferry::cli {
namespace {

boost::json::object object(const std::string& text) {
  return boost::json::parse(text).get_object();
}

TEST(MoveView, TellsItsWayWhereEachDiskGoesAndWhen) {
  const auto lines = move_state_lines(object(
      R"({"phase":"bulk","way":"intercept","cold":false,"disks":[{"target":"vda","source":"/a.qcow2","source-format":"qcow2",
      "uri":"file:///b.raw","format":"raw","size-bytes":1048576,"created":true,"route":"gateway","reason":"it is local"},
      {"target":"vdb","source":"/shared.raw"}],"timeline":[{"phase":"prepared","at-ms":1000}]})"));
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0], std::pair(std::string("way"), std::string("intercept")));
  EXPECT_EQ(lines[1].second, "vda: /a.qcow2 (qcow2) -> /b.raw (raw), 1.0 MiB, made by the job; it is local");
  EXPECT_EQ(lines[2].second, "vdb: /shared.raw");
  EXPECT_TRUE(lines[3].first == "history" && lines[3].second.ends_with("  prepared")) << lines[3].second;
  EXPECT_EQ(move_state_lines(object(R"({"way":"intercept","cold":true})")).front().second, "cold");
}

TEST(MoveView, AReportTellsWhatItCostAndWhatIsLeft) {
  const auto lines = move_report_lines(object(
      R"({"fenced-by":"ipmi a","disks":[{"disk":"vda","sent-bytes":2097152,"size-bytes":3145728,"resent-bytes":1048576,
      "unchanged-bytes":0,"verified-bytes":3145728}],"pause":{"total-us":52000,"until-flush-us":1500,"drain-us":2500,
      "device-state-us":48000},"warnings":["slow\nlink"],"leftovers":["/old.raw"]})"));
  EXPECT_EQ(lines,
            (std::vector<std::string>{
                "old host off: ipmi a",
                "vda: 2.0 MiB of 3.0 MiB sent, 1.0 MiB again, 0 B unchanged, 3.0 MiB read back and right",
                "guest stopped: 52 ms (until the flush 1.5, disks durable 2.5, device state and resume 48.0)",
                "warning: slow\\x0alink", "left over: /old.raw"}));
}

TEST(MoveView, OddDocumentsAreNoTrouble) {
  EXPECT_TRUE(move_state_lines(object("{}")).empty());
  EXPECT_TRUE(move_state_lines(object(R"({"disks":7,"way":[],"timeline":"x"})")).empty());
  EXPECT_TRUE(move_report_lines(object(R"({"disks":{},"pause":3,"warnings":[1],"leftovers":null})")).empty());
}

}  // namespace
}  // namespace diskferry::cli
