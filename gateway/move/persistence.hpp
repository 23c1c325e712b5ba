// Trying again what failed because somebody was away: a gateway that is restarted, a host that comes back.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/task.hpp"

#include <functional>

namespace diskferry {

struct Patience {
  Duration limit{};  ///< no attempt begins after it
  Duration pause{};  ///< between two attempts
};

/// Whether the one that could not be reached may be back in a moment.
bool may_come_back(const Error& error) noexcept;

/// Calls `act` until it succeeds, `is_worth_it` says that its error will stay, or the limit has passed.
/// Errors: the last of `act`; cancelled.
Task<Result<void>> persist(Clock& clock, Patience patience, std::function<Task<Result<void>>()> act,
                           std::function<bool(const Error&)> is_worth_it = may_come_back);

}  // namespace diskferry
