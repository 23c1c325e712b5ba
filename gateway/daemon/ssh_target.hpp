// A gateway that ssh starts on another host for one move: nothing has to run or be configured there but sshd,
// and no certificate is needed. Its two UNIX sockets, control and NBD, come here through the same ssh
// connection, which encrypts them.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/move/target_gateway.hpp"

#include <memory>
#include <string>

namespace diskferry::daemon {

/// `address`: "ssh://[user@]host[:port][/path/of/diskferryd]". `run_folder`: where moves have their folders,
/// here and there. ssh must get in without a question. Errors: gone (ssh ended; what it said), timed_out,
/// not_found, invalid_argument.
Task<Result<std::unique_ptr<TargetGateway>>> connect_ssh_target(DriverContext& context, std::string address,
                                                                std::string run_folder);

}  // namespace diskferry::daemon
