#include "gateway/move/live_way.hpp"

#include "diskferry/image_uri.hpp"

#include <fmt/format.h>

namespace diskferry {

bool LiveWay::may_undo() const {
  // Once the hypervisor was asked, only what both hosts say can tell that the machine is not on the other
  // one.
  const bool was_asked = move_.state.phase >= Phase::bulk && move_.state.phase <= Phase::switching;
  return !was_asked || outcome_ == Outcome::rolled_back || outcome_ == Outcome::ended;
}

Task<Result<void>> LiveWay::settle() {
  DISKFERRY_CO_CHECK(co_await find_out());
  if (outcome_ == Outcome::committed) co_return Result<void>{};
  co_return unexpected(ended_without_us());
}

Error LiveWay::ended_without_us() const {
  return fail(ErrorKind::gone, "migrate", move_.job.subject)
      .why(fmt::format("the gateway on {} ended while it ran; the guest goes on there",
                       printable(move_.environment.here.name)))
      .remedy("begin again");
}

Error LiveWay::runs_twice() const {
  return fail(ErrorKind::internal, "migrate", printable(move_.job.subject))
      .why("both hosts say that they run it")
      .remedy("stop the one on the target at once, and look at its log");
}

Error LiveWay::took_too_long(std::string remedy) const {
  return fail(ErrorKind::timed_out, "migrate", printable(move_.job.subject))
      .why(fmt::format("it took longer than {} s", move_.request.timeout_s))
      .remedy(std::move(remedy));
}

}  // namespace diskferry
