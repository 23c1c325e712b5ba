// `diskferryd --for-one-move FOLDER`: a gateway that needs no configuration, listens on two UNIX sockets in a
// folder of its own, and is gone without a trace when its stdin ends. Called by main.cpp.
#pragma once

#include "diskferry/error.hpp"

#include <string>

namespace diskferry::daemon {

/// Returns when stdin has ended, or a signal came, and everything was let go of. Errors: already_exists (the
/// folder), and those of the daemon.
Result<void> run_for_one_move(const std::string& folder, const std::string& run_folder);

}  // namespace diskferry::daemon
