// The text that Prometheus reads: what is there, what is not, and what hostile names cannot do to it.
#include "gateway/control/metrics.hpp"

#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>

#include <gtest/gtest.h>

namespace diskferry::control {
namespace {

constexpr const char* progress = R"({"subject":"vm","done":30,"total":100,"phase":"bulk","disks":[{
  "disk":"vda","size-bytes":100,"frontier-bytes":40,"copied-bytes":50,"dirty-bytes":60,"sent-bytes":70,
  "resent-bytes":7,"pending-bytes":3,"guest-bytes":80,"mirrored-bytes":8,"spilled-bytes":2,
  "write-p50-us":250,"write-p99-us":2500,"added-p50-us":10,"added-p99-us":1500,"mode":"bounded",
  "mode-reason":"because","eta-ms":2500,"predicted-pause-ms":15}],
  "hold":{"drain-us":1000,"flush-us":2000,"record-us":3000,"switch-us":4000,"total-us":10000}})";

MetricsView a_view() {
  return {.version = "1.2",
          .uptime_s = 5,
          .nbd_sessions = 2,
          .exports = {{.name = "vda", .size_bytes = 100, .clients = 1}},
          .jobs = {{.id = "r-1",
                    .kind = "replace",
                    .subject = "vm",
                    .phase = "bulk",
                    .status = "running",
                    .progress_json = progress}},
          .jobs_by_status = {{"done", 3}, {"running", 1}},
          .log_lines = {{"error", 4}}};
}

bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST(Metrics, TellAllOfAJob) {
  const std::string text = metrics_text(a_view());
  for (const char* line : {
           "# TYPE diskferry_build_info gauge",
           "diskferry_build_info{version=\"1.2\"} 1",
           "diskferry_uptime_seconds 5",
           "diskferry_nbd_sessions 2",
           "diskferry_exports 1",
           "diskferry_export_clients{export=\"vda\"} 1",
           "diskferry_export_size_bytes{export=\"vda\"} 100",
           "diskferry_jobs{status=\"done\"} 3",
           "# TYPE diskferry_log_lines_total counter",
           "diskferry_log_lines_total{level=\"error\"} 4",
           "diskferry_job_info{job=\"r-1\",kind=\"replace\",subject=\"vm\"} 1",
           "diskferry_job_status{job=\"r-1\",status=\"running\"} 1",
           "diskferry_job_phase{job=\"r-1\",phase=\"bulk\"} 1",
           "diskferry_job_done_bytes{job=\"r-1\"} 30",
           "diskferry_job_total_bytes{job=\"r-1\"} 100",
           "diskferry_job_disk_size_bytes{job=\"r-1\",disk=\"vda\"} 100",
           "diskferry_job_disk_frontier_bytes{job=\"r-1\",disk=\"vda\"} 40",
           "# TYPE diskferry_job_disk_copied_bytes_total counter",
           "diskferry_job_disk_copied_bytes_total{job=\"r-1\",disk=\"vda\"} 50",
           "diskferry_job_disk_dirty_bytes{job=\"r-1\",disk=\"vda\"} 60",
           "diskferry_job_disk_sent_bytes_total{job=\"r-1\",disk=\"vda\"} 70",
           "diskferry_job_disk_resent_bytes_total{job=\"r-1\",disk=\"vda\"} 7",
           "diskferry_job_disk_pending_bytes{job=\"r-1\",disk=\"vda\"} 3",
           "diskferry_job_disk_guest_written_bytes_total{job=\"r-1\",disk=\"vda\"} 80",
           "diskferry_job_disk_mode{job=\"r-1\",disk=\"vda\",mode=\"background\"} 0",
           "diskferry_job_disk_mode{job=\"r-1\",disk=\"vda\",mode=\"bounded\"} 1",
           "diskferry_job_disk_mode{job=\"r-1\",disk=\"vda\",mode=\"synchronous\"} 0",
           "diskferry_job_disk_added_latency_seconds{job=\"r-1\",disk=\"vda\",quantile=\"0.99\"} 0.0015",
           "diskferry_job_disk_write_latency_seconds{job=\"r-1\",disk=\"vda\",quantile=\"0.5\"} 0.00025",
           "diskferry_job_disk_remaining_seconds{job=\"r-1\",disk=\"vda\"} 2.5",
           "diskferry_job_disk_predicted_pause_seconds{job=\"r-1\",disk=\"vda\"} 0.015",
           "diskferry_job_hold_seconds{job=\"r-1\",part=\"total\"} 0.01",
       })
    EXPECT_TRUE(has_line(text, line)) << line << "\nin:\n" << text;
}

TEST(Metrics, EveryRowOfTheTableIsWrittenByThatJob) {
  const std::string text = metrics_text(a_view());
  for (const MetricRow& row : metric_rows) {
    EXPECT_NE(text.find(fmt::format("# HELP {} {}\n", row.name, row.help)), std::string::npos) << row.name;
    const std::string first = fmt::format("\n{}{}", row.name, row.labels.empty() ? " " : "{");
    EXPECT_NE(text.find(first), std::string::npos) << row.name;
    EXPECT_EQ(row.type == "counter", row.name.ends_with("_total")) << row.name;
  }
}

TEST(Metrics, TheirPageListsTheTable) {
  std::ifstream file(METRICS_PAGE);
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  for (const MetricRow& row : metric_rows) {
    const std::string line = fmt::format("| `{}` | {} | {} | {} |", row.name, row.type, row.labels, row.help);
    EXPECT_TRUE(has_line(page, line)) << line;
  }
}

TEST(Metrics, HostileNamesStayInTheirLabel) {
  MetricsView view = a_view();
  view.exports = {{.name = "a\"} 1\ndiskferry_jobs{status=\"forged\"} 9\n\\"}, {.name = "\xff\xfe"}};
  view.jobs.front().subject = "<img src=x onerror=alert(1)>";
  const std::string text = metrics_text(view);
  const std::regex sample(R"re([a-z_]+(\{([a-z]+="([^"\\\n]|\\.)*",?)+\})? -?[0-9.e+-]+)re");
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with('#')) EXPECT_TRUE(std::regex_match(line, sample)) << line;
    EXPECT_FALSE(line.starts_with("diskferry_jobs{status=\"forged\"")) << line;
  }
  EXPECT_EQ(text.find('\xff'), std::string::npos);
}

TEST(Metrics, LongNamesAreCutAndStillToldApart) {
  MetricsView view = a_view();
  view.exports = {{.name = std::string(4096, 'x') + "1"}, {.name = std::string(4096, 'x') + "2"}};
  std::istringstream lines(metrics_text(view));
  std::set<std::string> series;
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LT(line.size(), 400u);
    if (line.starts_with("diskferry_export_clients{")) series.insert(line.substr(0, line.rfind(' ')));
  }
  EXPECT_EQ(series.size(), 2u);
}

TEST(Metrics, SeriesAreBounded) {
  MetricsView view = a_view();
  view.exports.assign(MetricsLimits::exports_max + 5, {.name = "e"});
  view.jobs.assign(MetricsLimits::jobs_max + 5, {.id = "j", .status = "running"});
  const std::string text = metrics_text(view);
  const auto count = [&](const std::string& begin) {
    std::size_t found = 0;
    for (std::size_t at = text.find(begin); at != std::string::npos; at = text.find(begin, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count("\ndiskferry_export_clients{"), MetricsLimits::exports_max);
  EXPECT_EQ(count("\ndiskferry_job_status{"), MetricsLimits::jobs_max);
  EXPECT_TRUE(has_line(text, fmt::format("diskferry_exports {}", MetricsLimits::exports_max + 5)));
}

TEST(Metrics, OfAJobWithoutProgressTellThatItIsThere) {
  for (const char* odd : {"{}", "", "no JSON", "[]", R"({"disks":7})", R"({"disks":[7,{"dirty-bytes":"x"}]})",
                          R"({"hold":[],"done":"x"})"}) {
    MetricsView view = a_view();
    view.jobs.front().progress_json = odd;
    const std::string text = metrics_text(view);
    EXPECT_TRUE(has_line(text, "diskferry_job_status{job=\"r-1\",status=\"running\"} 1")) << text;
    EXPECT_EQ(text.find("job_disk"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace diskferry::control
