// What a server's answer to a request means for the caller: pure mapping from an outcome to an error.
#pragma once

#include "drivers/nbd/connection.hpp"

#include <string>

namespace diskferry::nbd {

/// Precondition: the outcome is refused, not_sent or broken. `block_bytes` is the server's minimum block
/// size.
Error request_error(const Request& request, Outcome outcome, const std::string& name,
                    std::uint32_t block_bytes);
/// The server's bytes made no sense, more than once.
Error garbled_error(const Request& request, const std::string& name, const Connection& connection);

}  // namespace diskferry::nbd
