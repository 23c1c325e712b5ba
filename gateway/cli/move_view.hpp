// What a move of a machine knows of itself, and its report, as lines for people. Pure.
#pragma once

#include "gateway/cli/replace_view.hpp"

#include <string>
#include <vector>

#include <boost/json/object.hpp>

namespace diskferry::cli {

/// Its way, where each disk comes from and goes to and how, and when it came to which phase. Of documents
/// that are none of a move: nothing.
NamedLines move_state_lines(const boost::json::object& state);
/// What each disk cost, how long the guest was stopped, and what is left to say; of an evacuation, too.
std::vector<std::string> move_report_lines(const boost::json::object& report);

}  // namespace diskferry::cli
