// See replace_view.hpp. Field names are those of gateway/move/replace_request.cpp.
#include "gateway/cli/replace_view.hpp"

#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/job_figures.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <span>

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

namespace diskferry::cli {
namespace json = boost::json;
namespace {

constexpr std::size_t places_shown_max = 16;  // of a disk; --json has them all

std::string with_format(const std::string& name, const std::string& format) {
  return format.empty() ? shown_name(name) : fmt::format("{} ({})", shown_name(name), printable(format));
}

std::string limits_line(const json::object& limits) {
  const std::uint64_t rate = number_in(limits, "bytes-per-second");
  const std::uint64_t deadline = number_in(limits, "deadline-at-ms");
  return fmt::format("rate {}, pause {} ms, write latency {} ms, deadline {}, on a read error {}",
                     rate == 0 ? "unlimited" : format_bytes(rate) + "/s", number_in(limits, "max-pause-ms"),
                     number_in(limits, "max-write-latency-ms"),
                     deadline == 0 ? "none" : local_time(static_cast<std::int64_t>(deadline)),
                     printable(text_in(limits, "on-read-error")));
}

std::string commit_line(const json::object& request) {
  std::string line = "when in step";
  if (flag_in(request, "commit-by-hand")) line = "by hand (diskferry commit)";
  if (const std::uint64_t at = number_in(request, "commit-at-ms"); at != 0)
    line = local_time(static_cast<std::int64_t>(at));
  if (const std::uint64_t retain = number_in(request, "retain-s"); retain != 0)
    line += fmt::format(", then the old storage is kept in step for {} s", retain);
  if (flag_in(request, "remove-source")) line += "; the old storage is removed when it is let go";
  return line;
}

void add_unreadable(NamedLines& into, const json::object& disk) {
  const auto places = objects_in(disk, "unreadable");
  for (const json::object& place : std::span(places).first(std::min(places.size(), places_shown_max)))
    into.emplace_back("unreadable", fmt::format("{}: {} bytes at {}, zeros at the target",
                                                printable(text_in(disk, "export")),
                                                number_in(place, "length"), number_in(place, "offset")));
  if (places.size() > places_shown_max)
    into.emplace_back("unreadable",
                      fmt::format("{} more; --json has them all", places.size() - places_shown_max));
}

}  // namespace

std::vector<std::string> route_lines(const json::object& state, std::string_view made) {
  std::vector<std::string> lines;
  for (const json::object& disk : objects_in(state, "disks")) {
    const std::string source = text_in(disk, "source");
    std::string line = printable(text_in(disk, "export")) + ": ";
    if (!source.empty()) line += with_format(source, text_in(disk, "source-format")) + " ";
    line += "-> " + with_format(text_in(disk, "uri"), text_in(disk, "format"));
    if (const std::uint64_t size = number_in(disk, "size-bytes"); size != 0)
      line += ", " + format_bytes(size);
    if (flag_in(disk, "was-created")) line += fmt::format(", {}", made);
    lines.push_back(std::move(line));
  }
  return lines;
}

NamedLines state_lines(const json::object& state, const json::object& request) {
  NamedLines lines;
  for (std::string& line : route_lines(state, "made by the job"))
    lines.emplace_back("storage", std::move(line));
  for (const json::object& disk : objects_in(state, "disks")) add_unreadable(lines, disk);
  if (const json::value* limits = state.if_contains("limits"); limits != nullptr && limits->is_object())
    lines.emplace_back("limits", limits_line(limits->get_object()));
  if (request.contains("disks")) lines.emplace_back("commit", commit_line(request));
  add_history(lines, state);
  return lines;
}

void add_history(NamedLines& into, const json::object& state) {
  for (const json::object& each : objects_in(state, "timeline"))
    into.emplace_back("history",
                      fmt::format("{}  {}", local_time(static_cast<std::int64_t>(number_in(each, "at-ms"))),
                                  printable(text_in(each, "phase"))));
}

bool was_refused(const json::object& state) {
  const auto phases = objects_in(state, "timeline");
  const json::value* leftovers = state.if_contains("leftovers");
  const bool leaves_something =
      leftovers != nullptr && leftovers->is_array() && !leftovers->get_array().empty();
  return !leaves_something && text_in(state, "phase") == "aborted" &&
         std::ranges::none_of(phases,
                              [](const json::object& each) { return text_in(each, "phase") == "prepared"; });
}

}  // namespace diskferry::cli
