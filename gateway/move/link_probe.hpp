// How fast the way to another gateway is: bytes are sent to it for a moment, encrypted and on several
// connections as a move's are, and thrown away there. For predictions only.
#pragma once

#include "gateway/move/target_gateway.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace diskferry {

/// Sends a text to the other gateway over a connection of its own, and returns once that has all of it.
using LinkSender = std::function<Task<Result<void>>(std::string text)>;

/// Bytes a second, of all senders together, which work side by side. Lifetime: they outlive the task. Errors:
/// theirs; timed_out (not even one part arrived in time).
Task<Result<std::uint64_t>> measure_link(Clock& clock, std::vector<LinkSender> senders, LinkProbe limits);

}  // namespace diskferry
