// What is said of a job's disks, and what odd documents cannot do to it.
#include "gateway/cli/job_figures.hpp"

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

namespace diskferry::cli {
namespace {

boost::json::object object(const std::string& text) {
  return boost::json::parse(text).get_object();
}
std::string disk(const std::string& more) {
  return R"({"disks":[{"disk":"vda","size-bytes":1048576,"frontier-bytes":524288,"copied-bytes":2048,"dirty-bytes":4096,
    "resent-bytes":1024,"added-p50-us":100,"added-p99-us":2500,"mode":"bounded","mode-reason":"it converges",)" +
         more + "}]}";
}

TEST(JobFigures, TellAllOfADisk) {
  JobFigures figures;
  const auto lines =
      figures.lines(object(disk(R"("guest-bytes":4096,"eta-ms":65000,"predicted-pause-ms":12)")), 1000);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0], "vda: frontier 50% of 1.0 MiB, copied 2.0 KiB, dirty 4.0 KiB, resent 1.0 KiB");
  EXPECT_EQ(lines[1],
            "  guest 4.0 KiB, added p50 0.1 ms p99 2.5 ms, 1m05s left, pause 12 ms, bounded: it converges");
}

TEST(JobFigures, TellHowFastGuestsWrite) {
  JobFigures figures;
  (void)figures.lines(object(disk(R"("guest-bytes":4096)")), 1000);
  const auto lines = figures.lines(object(disk(R"("guest-bytes":12288)")), 1500);
  EXPECT_TRUE(lines.at(1).starts_with("  guest 16.0 KiB/s, ")) << lines[1];
  // A gateway that was started again counts from the beginning.
  EXPECT_TRUE(figures.lines(object(disk(R"("guest-bytes":0)")), 2500).at(1).starts_with("  guest 0 B, "));
}

TEST(JobFigures, ALineStaysALine) {
  JobFigures figures;
  const auto lines = figures.lines(object(R"({"disks":[{"disk":"a\n\u001b[2J","mode":"x\ny"}]})"), 1);
  ASSERT_EQ(lines.size(), 2u);
  for (const std::string& line : lines) {
    EXPECT_EQ(line.find('\n'), std::string::npos);
    EXPECT_EQ(line.find('\x1b'), std::string::npos);
  }
}

TEST(JobFigures, OddDocumentsHaveNothingToTell) {
  JobFigures figures;
  for (const char* odd : {"{}", R"({"disks":7})", R"({"disks":[7,{},{"disk":"a","received-bytes":1}]})"})
    EXPECT_TRUE(figures.lines(object(odd), 1).empty()) << odd;
  EXPECT_TRUE(report_lines(object(R"({"hold":7,"warnings":"x","leftovers":[7]})")).empty());
}

TEST(JobReport, TellsTheHoldAndWhatIsLeft) {
  const auto lines =
      report_lines(object(R"({"hold":{"drain-us":1000,"flush-us":500,"record-us":250,"switch-us":250,
    "total-us":2000},"warnings":["w"],"leftovers":["l"]})"));
  EXPECT_EQ(lines, (std::vector<std::string>{
                       "writes held: 2.0 ms (copied 1.0, durable 0.5, recorded 0.2, switched 0.2)",
                       "warning: w", "left over: l"}));
}

}  // namespace
}  // namespace diskferry::cli
