// `diskferryd --connect`: this process's stdin and stdout become a connection to the gateway that runs here,
// so that `ssh HOST diskferryd --connect` reaches a gateway which listens on no network.
#pragma once

#include "diskferry/error.hpp"

#include <string>

namespace diskferry::daemon {

/// Carries bytes both ways until the gateway closes. Blocks the thread, which is all that this process does;
/// whoever started it bounds it by closing the pipes. Errors: not_found (no gateway), permission, gone.
Result<void> connect_stdio(const std::string& socket_path);

}  // namespace diskferry::daemon
