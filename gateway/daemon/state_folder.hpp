// The daemon's folder for what outlives it, and the identity of this gateway in it. Blocking calls, at start
// only.
#pragma once

#include "diskferry/error.hpp"

#include <string>

namespace diskferry::daemon {

/// Makes the folder where it is missing, for our own user alone; its parent is there. Errors: not_found,
/// permission (also a folder that others may write to).
Result<void> make_state_folder(const std::string& path);
/// A random name that was made when the daemon started here for the first time and stays. Errors: no_space,
/// permission, io, corrupt (the file holds something else).
Result<std::string> gateway_id(const std::string& state_folder);
/// Makes the folder that `path` lies in, where only that last one is missing: /run is empty after a boot.
Result<void> make_parent(const std::string& path);

}  // namespace diskferry::daemon
