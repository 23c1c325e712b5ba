// One connection to the control server: requests in turn, each within its deadlines. For server.cpp.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/control/routes.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <string>

namespace diskferry::control {

/// What sessions share. Lifetime: outlives them.
struct SessionContext {
  Responder& responder;
  Clock& clock;
  const Limits& limits;
  /// Gets one line for each request that may have changed something: who, what, and how it ended.
  std::function<void(std::string)> changed{};
  std::string_view headers{};             ///< further lines of every answer, each with its end
  std::atomic<bool> stopping = false;     ///< no further requests
  std::atomic<std::size_t> handling = 0;  ///< requests that are being answered
  std::atomic<std::size_t> event_streams = 0;
};

/// Serves until the client leaves, breaks a rule or a limit, or this is cancelled. Errors: cancelled; what a
/// client did wrong, for the log.
Task<Result<void>> run_session(SessionContext& context, ByteStream& stream, Caller caller);

/// Says goodbye to a client that was refused, and lets it read why, within the limits of lingering.
Task<Result<void>> part_from(ByteStream& stream, Clock& clock, const Limits& limits);

}  // namespace diskferry::control
