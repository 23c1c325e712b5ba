// Looking up a host's name without being held by the resolver. Called before a library that would look the
// name up itself, and cannot be interrupted while it does.
#pragma once

#include "diskferry/task.hpp"

#include <string>
#include <vector>

namespace diskferry {

/// Waits until the system's resolver has answered. Gives the host's addresses as text ("127.0.0.1", "::1"),
/// in the order to try them, at least one. An address needs no resolver and is given back as it is.
/// Cancel: at once; the lookup goes on in a thread of its own until the resolver gives up, and nobody waits
/// for it. Errors: not_found, gone (the resolver has no answer), cancelled; too_large when too many lookups
/// hang already.
Task<Result<std::vector<std::string>>> look_up_host(std::string host);

}  // namespace diskferry
