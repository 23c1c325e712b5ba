#include "gateway/move/persistence.hpp"

namespace diskferry {

bool may_come_back(const Error& error) noexcept {
  return error.kind() == ErrorKind::gone || error.kind() == ErrorKind::timed_out;
}

Task<Result<void>> persist(Clock& clock, Patience patience, std::function<Task<Result<void>>()> act,
                           std::function<bool(const Error&)> is_worth_it) {
  const TimePoint latest = Clock::after(clock.now(), patience.limit);
  while (true) {
    auto done = co_await act();
    if (done || !is_worth_it(done.error()) || clock.now() >= latest) co_return done;
    DISKFERRY_CO_CHECK(co_await clock.sleep_for(patience.pause));
  }
}

}  // namespace diskferry
