// The figures of a gateway for Prometheus: what is known, as a text in its exposition format. Pure; whoever
// answers a scrape collects what is put in. docs/metrics.md lists the table, and a test holds them together.
//
// What comes in is bounded here and not trusted: names are of clients and operators. Series of a job are
// there while it is active, so that a gateway of many jobs has as many series as it had in its first week.
#pragma once

#include "gateway/control/api.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry::control {

struct MetricsLimits {
  static constexpr std::size_t exports_max = 1'000;
  static constexpr std::size_t jobs_max = 200;
  static constexpr std::size_t disks_max = 64;         ///< of a job
  static constexpr std::size_t label_bytes_max = 200;  ///< longer ones are cut, and told apart by a hash
};

struct MetricsView {
  std::string version{};
  double uptime_s = 0;
  std::uint64_t nbd_sessions = 0;
  std::vector<ExportDescription> exports{};
  std::vector<JobDescription> jobs{};                     ///< active ones, with their progress
  std::map<std::string, std::uint64_t> jobs_by_status{};  ///< by the API's word; all there ever were
  std::map<std::string, std::uint64_t> log_lines{};       ///< by level
};

struct MetricRow {
  std::string_view name;
  std::string_view type;    ///< "gauge" or "counter"
  std::string_view labels;  ///< with commas between them
  std::string_view help;
};
/// All there are, in the order they are written.
extern const std::array<MetricRow, 29> metric_rows;

std::string metrics_text(const MetricsView& view);

}  // namespace diskferry::control
