// The findings of a plan, for people and as JSON. Field names of the JSON are part of the interface.
#pragma once

#include "gateway/move/prediction.hpp"
#include "gateway/move/preflight.hpp"

#include <string>
#include <vector>

#include <boost/json/value.hpp>

namespace diskferry {

/// Each finding in a line or two, under a line for each severity; one line where there are none. Every line
/// ends with a newline.
std::string to_text(const std::vector<Finding>& findings);
/// {"blockers": n, "warnings": n, "notes": n, "findings": [{"severity", "code", "subject", "text",
/// "remedy"}]}; blockers first.
boost::json::value to_json(const std::vector<Finding>& findings);

/// A few lines, each ended by a newline.
std::string to_text(const Prediction& prediction);
/// {"converges", "why", "seconds": {"disks", "memory", "total"}, "pause-ms", "disk-bytes", "memory-bytes",
/// "rate", "slowest"}.
boost::json::value to_json(const Prediction& prediction);

/// The first blocker as an error that tells how many there are, for a command or job that is refused. Errors:
/// unsupported.
Result<void> refuse_blockers(const std::vector<Finding>& findings);

}  // namespace diskferry
