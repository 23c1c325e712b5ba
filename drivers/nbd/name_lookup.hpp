// Looking up a host's name without being held by the resolver. Called by Connection before libnbd, which
// looks the name up itself and cannot be interrupted while it does. Must never touch what belongs to the
// caller.
#pragma once

#include "diskferry/task.hpp"
#include "drivers/nbd/handshake.hpp"

#include <optional>
#include <string>

namespace diskferry::nbd {

/// Waits until the system's resolver has answered: nothing where the name has an address, else what it said.
/// An address needs no resolver and is not looked up.
/// Cancel: at once; the lookup goes on in a thread of its own until the resolver gives up, and nobody waits
/// for it. Errors: cancelled; too_large when too many lookups hang already.
Task<Result<std::optional<LibraryError>>> look_up(std::string host, std::string port);

}  // namespace diskferry::nbd
