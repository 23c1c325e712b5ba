// See move_view.hpp. Field names are those of gateway/move/move_state.cpp and move_progress.cpp.
#include "gateway/cli/move_view.hpp"

#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/job_figures.hpp"

#include <fmt/format.h>

#include <boost/json/value.hpp>

namespace diskferry::cli {
namespace json = boost::json;
namespace {

std::string disk_line(const json::object& disk) {
  std::string line = printable(text_in(disk, "target")) + ": " + shown_name(text_in(disk, "source"));
  if (const std::string format = text_in(disk, "source-format"); !format.empty())
    line += fmt::format(" ({})", printable(format));
  if (const std::string uri = text_in(disk, "uri"); !uri.empty()) line += " -> " + shown_name(uri);
  if (const std::string format = text_in(disk, "format"); !format.empty())
    line += fmt::format(" ({})", printable(format));
  if (const std::uint64_t size = number_in(disk, "size-bytes"); size != 0) line += ", " + format_bytes(size);
  if (flag_in(disk, "created")) line += ", made by the job";
  if (const std::string reason = text_in(disk, "reason"); !reason.empty()) line += "; " + printable(reason);
  return line;
}

}  // namespace

NamedLines move_state_lines(const json::object& state) {
  NamedLines lines;
  if (const std::string way = text_in(state, "way"); !way.empty())
    lines.emplace_back("way", flag_in(state, "cold") ? "cold" : printable(way));
  for (const json::object& disk : objects_in(state, "disks")) lines.emplace_back("storage", disk_line(disk));
  add_history(lines, state);
  return lines;
}

std::vector<std::string> move_report_lines(const json::object& report) {
  std::vector<std::string> lines;
  if (const std::string fenced = text_in(report, "fenced-by"); !fenced.empty())
    lines.push_back("old host off: " + printable(fenced));
  for (const json::object& disk : objects_in(report, "disks")) {
    const std::uint64_t verified = number_in(disk, "verified-bytes");
    lines.push_back(fmt::format(
        "{}: {} of {} sent, {} again, {} unchanged{}", printable(text_in(disk, "disk")),
        format_bytes(number_in(disk, "sent-bytes")), format_bytes(number_in(disk, "size-bytes")),
        format_bytes(number_in(disk, "resent-bytes")), format_bytes(number_in(disk, "unchanged-bytes")),
        verified == 0 ? "" : ", " + format_bytes(verified) + " read back and right"));
  }
  if (const json::value* pause = report.if_contains("pause"); pause != nullptr && pause->is_object()) {
    const json::object& parts = pause->get_object();
    lines.push_back(fmt::format(
        "guest stopped: {:.0f} ms (until the flush {:.1f}, disks durable {:.1f}, device state and resume "
        "{:.1f})",
        milliseconds_in(parts, "total-us"), milliseconds_in(parts, "until-flush-us"),
        milliseconds_in(parts, "drain-us"), milliseconds_in(parts, "device-state-us")));
  }
  add_texts(lines, report, "warnings", "warning");
  add_texts(lines, report, "leftovers", "left over");
  return lines;
}

}  // namespace diskferry::cli
