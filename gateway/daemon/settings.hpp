// From the configuration to the options of the rooms. What a room refuses is named with its place in the
// file.
#pragma once

#include "gateway/config/config.hpp"
#include "gateway/control/server.hpp"
#include "gateway/nbd/server.hpp"
#include "gateway/runtime/logging.hpp"

namespace diskferry::daemon {

/// Without `log`. Errors: invalid_argument.
Result<nbd_server::ServerOptions> nbd_options(const Config& config);
/// Without `log`. Errors: invalid_argument.
Result<control::ServerOptions> control_options(const Config& config);
LogOptions log_options(const Config& config);
/// Everything that can be known without starting: addresses, and that the certificates are there and fit.
Result<void> check_settings(const Config& config);

}  // namespace diskferry::daemon
