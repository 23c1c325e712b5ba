// The gateway of another host as a move's target: its control API behind the interface that moves know.
#pragma once

#include "gateway/control/client.hpp"
#include "gateway/move/target_gateway.hpp"

#include <functional>
#include <memory>
#include <string>

namespace diskferry::daemon {

struct RemoteTargetOptions {
  std::string host{};          ///< where its NBD server is reached
  std::string certificates{};  ///< folder with our client certificate and the authority's
  std::string server_name{};   ///< the name its certificate must have; empty: `host`
  /// Another connection to it, for measuring the way. Empty: one has to do.
  std::function<Task<Result<std::unique_ptr<control::ControlClient>>>()> connect_again{};
};

/// Errors: as ControlClient; unsupported when it takes no disks over TCP.
Task<Result<std::unique_ptr<TargetGateway>>> make_remote_target(
    Clock& clock, std::unique_ptr<control::ControlClient> client, RemoteTargetOptions options);

/// A gateway whose sockets are on this host: export_uri() is the caller's business, and fails.
std::unique_ptr<TargetGateway> make_local_target(Clock& clock,
                                                 std::unique_ptr<control::ControlClient> client);

/// "https://host[:port]..." as MoveRequest::gateway has it. Errors: as ControlClient; unsupported for other
/// schemes.
Task<Result<std::unique_ptr<TargetGateway>>> connect_target(DriverContext& context, std::string address,
                                                            std::string certificates);

}  // namespace diskferry::daemon
