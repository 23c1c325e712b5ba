// What a replacement knows of itself, or would do, as lines for people: where each disk comes from and goes
// to, its limits, when it changes places, and when it came to which phase. Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <boost/json/object.hpp>

namespace diskferry::cli {

/// A name and a text each. Of documents that are none of a replacement: nothing.
using NamedLines = std::vector<std::pair<std::string, std::string>>;

/// "vm: /a.raw (raw) -> /b.qcow2 (qcow2, 1.0 GiB, made by the job)", of each disk of a job's state or a plan;
/// `made` is what is said of a target that was not there.
std::vector<std::string> route_lines(const boost::json::object& state, std::string_view made);
NamedLines state_lines(const boost::json::object& state, const boost::json::object& request);
/// When a job of any kind came to which phase.
void add_history(NamedLines& into, const boost::json::object& state);
/// Nothing was changed: it ended before anything was made or copied.
bool was_refused(const boost::json::object& state);

}  // namespace diskferry::cli
