// One table of what there is; the progress of a job is read by the names that its JSON has.
#include "gateway/control/metrics.hpp"

#include "diskferry/image_uri.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <functional>
#include <optional>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <boost/json/parse.hpp>

namespace diskferry::control {
namespace json = boost::json;

const std::array<MetricRow, 29> metric_rows{{
    {"diskferry_build_info", "gauge", "version", "1; says which version runs."},
    {"diskferry_uptime_seconds", "gauge", "", "Since the gateway was started."},
    {"diskferry_nbd_sessions", "gauge", "", "Connections of NBD clients, whatever their state."},
    {"diskferry_exports", "gauge", "", "Exports that are offered."},
    {"diskferry_export_clients", "gauge", "export", "Clients of the export."},
    {"diskferry_export_size_bytes", "gauge", "export", "Size of its disk."},
    {"diskferry_jobs", "gauge", "status", "Jobs that are remembered, those that have ended too."},
    {"diskferry_log_lines_total", "counter", "level",
     "Lines of the log; level error is what somebody must look at."},
    {"diskferry_job_info", "gauge", "job,kind,subject", "1; an active job and what it is about."},
    {"diskferry_job_status", "gauge", "job,status", "1 for the status that the job has."},
    {"diskferry_job_phase", "gauge", "job,phase", "1 for the phase that the job is in."},
    {"diskferry_job_done_bytes", "gauge", "job", "What the target has of all disks."},
    {"diskferry_job_total_bytes", "gauge", "job", "Size of all disks."},
    {"diskferry_job_hold_seconds", "gauge", "job,part",
     "How long writes were held at the last switchover, by part; part total is all of it."},
    {"diskferry_job_disk_size_bytes", "gauge", "job,disk", "Size of the disk."},
    {"diskferry_job_disk_frontier_bytes", "gauge", "job,disk", "Where the first pass of the copy is."},
    {"diskferry_job_disk_dirty_bytes", "gauge", "job,disk",
     "What the target does not have yet, in front of the frontier too."},
    {"diskferry_job_disk_pending_bytes", "gauge", "job,disk",
     "What waits in the window to be written to the target."},
    {"diskferry_job_disk_copied_bytes_total", "counter", "job,disk", "Taken by the copy."},
    {"diskferry_job_disk_sent_bytes_total", "counter", "job,disk", "Written to the target."},
    {"diskferry_job_disk_resent_bytes_total", "counter", "job,disk",
     "Of these, what it had been sent before."},
    {"diskferry_job_disk_guest_written_bytes_total", "counter", "job,disk",
     "Written, zeroed and discarded by guests while the job runs."},
    {"diskferry_job_disk_mirrored_bytes_total", "counter", "job,disk",
     "Of these, what went to the target at once."},
    {"diskferry_job_disk_spilled_bytes_total", "counter", "job,disk",
     "Of these, what was marked dirty because the target was too slow."},
    {"diskferry_job_disk_write_latency_seconds", "gauge", "job,disk,quantile",
     "How long writes of guests took in the last seconds."},
    {"diskferry_job_disk_added_latency_seconds", "gauge", "job,disk,quantile",
     "How much of that the job has added."},
    {"diskferry_job_disk_mode", "gauge", "job,disk,mode",
     "1 for the mode that writes are mirrored in, else 0."},
    {"diskferry_job_disk_remaining_seconds", "gauge", "job,disk",
     "How long it will take until the target has all."},
    {"diskferry_job_disk_predicted_pause_seconds", "gauge", "job,disk",
     "How long writes would be held if the disk was switched over now."},
}};

namespace {

using Labels = std::vector<prometheus::ClientMetric::Label>;

/// A text as the value of a label: bounded, one line, UTF-8.
std::string label_text(std::string_view text) {
  std::string shown = printable(text);
  if (shown.size() <= MetricsLimits::label_bytes_max) return shown;
  std::size_t end = MetricsLimits::label_bytes_max;
  while (end != 0 && (static_cast<unsigned char>(shown[end]) & 0xc0) == 0x80) --end;
  return fmt::format("{}~{:016x}", shown.substr(0, end), std::hash<std::string_view>{}(text));
}

/// All families, filled by name.
class Families {
 public:
  Families() {
    for (const MetricRow& row : metric_rows)
      families_.push_back(
          {.name = std::string(row.name),
           .help = std::string(row.help),
           .type = is_counter(row) ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge,
           .metric = {}});
  }
  /// `values` are those of the row's labels, in its order.
  void add(std::string_view name, double value, const std::vector<std::string>& values = {}) {
    const auto row = std::ranges::find(metric_rows, name, &MetricRow::name);
    prometheus::ClientMetric metric;
    std::string_view names = row->labels;
    for (const std::string& text : values) {
      const std::string_view label = names.substr(0, names.find(','));
      names.remove_prefix(std::min(names.size(), label.size() + 1));
      metric.label.push_back({std::string(label), label_text(text)});
    }
    (is_counter(*row) ? metric.counter.value : metric.gauge.value) = value;
    families_[static_cast<std::size_t>(row - metric_rows.begin())].metric.push_back(std::move(metric));
  }
  /// Those that have something to say.
  std::string text() {
    std::erase_if(families_, [](const auto& family) { return family.metric.empty(); });
    return prometheus::TextSerializer().Serialize(families_);
  }

 private:
  static bool is_counter(const MetricRow& row) { return row.type == "counter"; }
  std::vector<prometheus::MetricFamily> families_{};
};

std::optional<double> number_in(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr || !value->is_number()) return std::nullopt;
  return value->to_number<double>();
}
std::string text_in(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

constexpr double seconds_in_us = 1e-6;
constexpr double seconds_in_ms = 1e-3;

struct DiskField {
  std::string_view field;  ///< of the progress
  std::string_view metric;
  double scale = 1;
  std::string_view quantile{};
};
constexpr std::array disk_fields{
    DiskField{"size-bytes", "diskferry_job_disk_size_bytes"},
    DiskField{"frontier-bytes", "diskferry_job_disk_frontier_bytes"},
    DiskField{"dirty-bytes", "diskferry_job_disk_dirty_bytes"},
    DiskField{"pending-bytes", "diskferry_job_disk_pending_bytes"},
    DiskField{"copied-bytes", "diskferry_job_disk_copied_bytes_total"},
    DiskField{"sent-bytes", "diskferry_job_disk_sent_bytes_total"},
    DiskField{"resent-bytes", "diskferry_job_disk_resent_bytes_total"},
    DiskField{"guest-bytes", "diskferry_job_disk_guest_written_bytes_total"},
    DiskField{"mirrored-bytes", "diskferry_job_disk_mirrored_bytes_total"},
    DiskField{"spilled-bytes", "diskferry_job_disk_spilled_bytes_total"},
    DiskField{"write-p50-us", "diskferry_job_disk_write_latency_seconds", seconds_in_us, "0.5"},
    DiskField{"write-p99-us", "diskferry_job_disk_write_latency_seconds", seconds_in_us, "0.99"},
    DiskField{"added-p50-us", "diskferry_job_disk_added_latency_seconds", seconds_in_us, "0.5"},
    DiskField{"added-p99-us", "diskferry_job_disk_added_latency_seconds", seconds_in_us, "0.99"},
    DiskField{"eta-ms", "diskferry_job_disk_remaining_seconds", seconds_in_ms},
    DiskField{"predicted-pause-ms", "diskferry_job_disk_predicted_pause_seconds", seconds_in_ms},
};
constexpr std::array modes{"background", "bounded", "synchronous"};

void add_disk(Families& into, const std::string& job, const json::object& disk) {
  const std::string name = text_in(disk, "disk");
  for (const DiskField& each : disk_fields) {
    const auto value = number_in(disk, each.field);
    if (!value) continue;
    std::vector<std::string> labels{job, name};
    if (!each.quantile.empty()) labels.emplace_back(each.quantile);
    into.add(each.metric, *value * each.scale, labels);
  }
  const std::string mode = text_in(disk, "mode");
  if (mode.empty()) return;
  for (const char* each : modes) into.add("diskferry_job_disk_mode", mode == each ? 1 : 0, {job, name, each});
}

/// "drain-us" of the hold is the part "drain".
void add_hold(Families& into, const std::string& job, const json::object& hold) {
  for (const char* part : {"drain", "flush", "record", "switch", "total"}) {
    if (const auto us = number_in(hold, fmt::format("{}-us", part)))
      into.add("diskferry_job_hold_seconds", *us * seconds_in_us, {job, part});
  }
}

void add_progress(Families& into, const std::string& job, const json::object& progress) {
  if (const auto done = number_in(progress, "done")) into.add("diskferry_job_done_bytes", *done, {job});
  if (const auto total = number_in(progress, "total")) into.add("diskferry_job_total_bytes", *total, {job});
  if (const json::value* hold = progress.if_contains("hold"); hold != nullptr && hold->is_object())
    add_hold(into, job, hold->get_object());
  const json::value* disks = progress.if_contains("disks");
  if (disks == nullptr || !disks->is_array()) return;
  const json::array& all = disks->get_array();
  for (std::size_t i = 0; i < std::min(all.size(), MetricsLimits::disks_max); ++i) {
    if (all[i].is_object()) add_disk(into, job, all[i].get_object());
  }
}

void add_job(Families& into, const JobDescription& job) {
  into.add("diskferry_job_info", 1, {job.id, job.kind, job.subject});
  into.add("diskferry_job_status", 1, {job.id, job.status});
  if (!job.phase.empty()) into.add("diskferry_job_phase", 1, {job.id, job.phase});
  boost::system::error_code error;
  const json::value progress = json::parse(job.progress_json, error);
  if (!error && progress.is_object()) add_progress(into, job.id, progress.get_object());
}

}  // namespace

std::string metrics_text(const MetricsView& view) {
  Families families;
  families.add("diskferry_build_info", 1, {view.version});
  families.add("diskferry_uptime_seconds", view.uptime_s);
  families.add("diskferry_nbd_sessions", static_cast<double>(view.nbd_sessions));
  families.add("diskferry_exports", static_cast<double>(view.exports.size()));
  for (std::size_t i = 0; i < std::min(view.exports.size(), MetricsLimits::exports_max); ++i) {
    const ExportDescription& one = view.exports[i];
    families.add("diskferry_export_clients", static_cast<double>(one.clients), {one.name});
    families.add("diskferry_export_size_bytes", static_cast<double>(one.size_bytes), {one.name});
  }
  for (const auto& [status, count] : view.jobs_by_status)
    families.add("diskferry_jobs", static_cast<double>(count), {status});
  for (const auto& [level, lines] : view.log_lines)
    families.add("diskferry_log_lines_total", static_cast<double>(lines), {level});
  for (std::size_t i = 0; i < std::min(view.jobs.size(), MetricsLimits::jobs_max); ++i)
    add_job(families, view.jobs[i]);
  return families.text();
}

}  // namespace diskferry::control
