// How findings and predictions are shown.
#include "gateway/move/preflight_report.hpp"

#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>

namespace diskferry {
namespace {

const std::vector<Finding> findings{
    {Severity::blocker, "target-exists", "vda", "/new/web.raw cannot be taken.", "name another"},
    {Severity::blocker, "snapshots", "machine", "There are snapshots.", "delete them"},
    {Severity::note, "disk-shared", "vdb", "It stays.", ""}};

TEST(PreflightReport, TextGroupsBySeverity) {
  EXPECT_EQ(to_text(findings),
            "2 blockers:\n"
            "  vda: /new/web.raw cannot be taken. (target-exists)\n"
            "      name another\n"
            "  machine: There are snapshots. (snapshots)\n"
            "      delete them\n"
            "1 note:\n"
            "  vdb: It stays. (disk-shared)\n");
  EXPECT_EQ(to_text(std::vector<Finding>{}), "nothing speaks against the move\n");
}

TEST(PreflightReport, JsonHasEveryFieldBlockersFirst) {
  const auto report = to_json({findings[2], findings[0]});
  EXPECT_EQ(boost::json::serialize(report),
            R"({"blockers":1,"warnings":0,"notes":1,"findings":[)"
            R"({"severity":"blocker","code":"target-exists","subject":"vda",)"
            R"("text":"/new/web.raw cannot be taken.","remedy":"name another"},)"
            R"({"severity":"note","code":"disk-shared","subject":"vdb","text":"It stays.","remedy":""}]})");
}

TEST(PreflightReport, TheFirstBlockerIsTheErrorAndTellsOfOthers) {
  const auto refused = refuse_blockers(findings);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(refused.error().object(), "vda");
  EXPECT_NE(refused.error().message().find("1 more"), std::string::npos);
  EXPECT_EQ(refused.error().remedy(), "name another");
  EXPECT_TRUE(refuse_blockers({findings[2]}));
}

TEST(PreflightReport, APredictionAsTextAndJson) {
  Prediction prediction{.convergence = Convergence::yes,
                        .why = "all is quiet",
                        .disks_s = 10,
                        .memory_s = 2,
                        .pause_ms = 100,
                        .disk_bytes = 1u << 30,
                        .memory_bytes = 1u << 20,
                        .rate_bytes_per_s = 1u << 20,
                        .slowest = "network"};
  EXPECT_EQ(to_text(prediction),
            "predicted: 12 s (disks 10 s, memory 2 s), a pause of about 100 ms\n"
            "  all is quiet\n"
            "  to send: 1.0 GiB of disks, 1.0 MiB of memory, at 1.0 MiB/s (the slowest part: network)\n");
  EXPECT_EQ(to_json(prediction).at("slowest").as_string(), "network");
  EXPECT_EQ(to_json(prediction).at("pause-ms").as_double(), 100);
  prediction.convergence = Convergence::never_memory;
  EXPECT_TRUE(to_text(prediction).starts_with("predicted: no end (never: memory)\n"));
}

}  // namespace
}  // namespace diskferry
