// See job_figures.hpp. Field names are those of gateway/move/replacement_progress.cpp.
#include "gateway/cli/job_figures.hpp"

#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/cli/progress.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <optional>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

namespace diskferry::cli {
namespace json = boost::json;
namespace {

const json::value* find(const json::object& object, std::string_view name) {
  return object.if_contains(json::string_view(name.data(), name.size()));
}
bool has(const json::object& object, std::string_view name) {
  return find(object, name) != nullptr;
}

std::string amounts(const json::object& disk) {
  const std::uint64_t size = number_in(disk, "size-bytes");
  const std::uint64_t frontier = std::min(size, number_in(disk, "frontier-bytes"));
  // Rounded down, so that 100% means all of it.
  return fmt::format(
      "{}: frontier {}% of {}, copied {}, dirty {}, resent {}", printable(text_in(disk, "disk")),
      size == 0 ? 100
                : static_cast<unsigned>(static_cast<double>(frontier) * 100.0 / static_cast<double>(size)),
      format_bytes(size), format_bytes(number_in(disk, "copied-bytes")),
      format_bytes(number_in(disk, "dirty-bytes")), format_bytes(number_in(disk, "resent-bytes")));
}

std::string pace(const json::object& disk, std::optional<std::uint64_t> guest_bytes_per_s) {
  std::string text = "  guest ";
  text += guest_bytes_per_s ? format_bytes(*guest_bytes_per_s) + "/s"
                            : format_bytes(number_in(disk, "guest-bytes"));
  text += fmt::format(", added p50 {:.1f} ms p99 {:.1f} ms", milliseconds_in(disk, "added-p50-us"),
                      milliseconds_in(disk, "added-p99-us"));
  if (has(disk, "eta-ms"))
    text += fmt::format(", {} left", format_time(std::chrono::milliseconds(number_in(disk, "eta-ms"))));
  if (has(disk, "predicted-pause-ms"))
    text += fmt::format(", pause {} ms", number_in(disk, "predicted-pause-ms"));
  // Last, for it is the longest, and the end of a line may not be seen.
  text += ", " + printable(text_in(disk, "mode"));
  if (const std::string why = text_in(disk, "mode-reason"); !why.empty()) text += ": " + printable(why);
  return text;
}

}  // namespace

json::object object_of(const std::string& text) {
  boost::system::error_code error;
  const json::value value = json::parse(text, error);
  return error || !value.is_object() ? json::object() : value.get_object();
}

std::uint64_t number_in(const json::object& object, std::string_view name) {
  const json::value* value = find(object, name);
  boost::system::error_code error;
  const auto number = value == nullptr ? 0 : value->to_number<std::uint64_t>(error);
  return error ? 0 : number;
}

double milliseconds_in(const json::object& object, std::string_view name) {
  return static_cast<double>(number_in(object, name)) / 1000.0;
}

std::string text_in(const json::object& object, std::string_view name) {
  const json::value* value = find(object, name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

bool flag_in(const json::object& object, std::string_view name) {
  const json::value* value = find(object, name);
  return value != nullptr && value->is_bool() && value->get_bool();
}

std::vector<json::object> objects_in(const json::object& object, std::string_view name) {
  std::vector<json::object> objects;
  const json::value* list = find(object, name);
  if (list == nullptr || !list->is_array()) return objects;
  for (const json::value& each : list->get_array())
    if (each.is_object()) objects.push_back(each.get_object());
  return objects;
}

std::vector<std::string> JobFigures::lines(const json::object& progress, std::int64_t time_ms) {
  std::vector<std::string> lines;
  for (const json::object& disk : objects_in(progress, "disks")) {
    if (!has(disk, "mode")) continue;
    Sample& before = before_[text_in(disk, "disk")];
    const Sample now{.time_ms = time_ms, .guest_bytes = number_in(disk, "guest-bytes")};
    std::optional<std::uint64_t> rate;
    if (before.time_ms != 0 && now.time_ms > before.time_ms && now.guest_bytes >= before.guest_bytes)
      rate = (now.guest_bytes - before.guest_bytes) * 1000 /
             static_cast<std::uint64_t>(now.time_ms - before.time_ms);
    before = now;
    lines.push_back(amounts(disk));
    lines.push_back(pace(disk, rate));
  }
  return lines;
}

void add_texts(std::vector<std::string>& into, const json::object& report, std::string_view name,
               std::string_view title) {
  const json::value* list = find(report, name);
  if (list == nullptr || !list->is_array()) return;
  for (const json::value& each : list->get_array())
    if (each.is_string())
      into.push_back(fmt::format("{}: {}", title, printable(std::string(each.get_string()))));
}

std::vector<std::string> report_lines(const json::object& report) {
  std::vector<std::string> lines;
  const json::value* hold = find(report, "hold");
  if (hold != nullptr && hold->is_object()) {
    const json::object& parts = hold->get_object();
    lines.push_back(fmt::format(
        "writes held: {:.1f} ms (copied {:.1f}, durable {:.1f}, recorded {:.1f}, switched {:.1f})",
        milliseconds_in(parts, "total-us"), milliseconds_in(parts, "drain-us"),
        milliseconds_in(parts, "flush-us"), milliseconds_in(parts, "record-us"),
        milliseconds_in(parts, "switch-us")));
  }
  // What is left and what a pause would be has no sense any more.
  json::object past = report;
  if (json::value* disks = past.if_contains("disks"); disks != nullptr && disks->is_array()) {
    for (json::value& disk : disks->get_array()) {
      if (!disk.is_object()) continue;
      for (const char* field : {"eta-ms", "predicted-pause-ms"}) disk.get_object().erase(field);
    }
  }
  JobFigures figures;
  for (std::string& line : figures.lines(past, 0)) lines.push_back(std::move(line));
  if (const json::value* places = find(report, "unreadable"); places != nullptr && places->is_array())
    for (const json::value& place : places->get_array())
      lines.push_back("zeros, since it could not be read: " + printable(json::serialize(place)));
  add_texts(lines, report, "warnings", "warning");
  add_texts(lines, report, "leftovers", "left over");
  return lines;
}

}  // namespace diskferry::cli
