// What is done with a file that is not open: made, looked at, removed.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/driver.hpp"
#include "drivers/gluster/endpoint.hpp"

namespace diskferry::gluster {

// Each is done once, never again by itself. Cancel: at once, though what the bricks have begun goes on; so it
// does after timed_out.

/// Errors: already_exists, not_found (its folder), no_space, permission, read_only, in_use.
Task<Result<void>> create_file(Clock& clock, const Endpoint& endpoint, CreateOptions options);
Task<Result<VolumeFacts>> look_at_file(Clock& clock, const Endpoint& endpoint, LookOptions options);
/// Errors: not_found, permission, in_use, unsupported (no regular file).
Task<Result<void>> remove_file(Clock& clock, const Endpoint& endpoint);

}  // namespace diskferry::gluster
