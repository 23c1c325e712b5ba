// Which host has the machine, when the hypervisor's answer does not say: asked of both until it is known, and
// then made true.
#include "gateway/move/intercept_way.hpp"

#include <fmt/format.h>

#include <spdlog/spdlog.h>

namespace diskferry {

bool InterceptWay::may_have_gone_over() const {
  if (move_.state.phase != Phase::synchronized && move_.state.phase != Phase::switching) return false;
  // A process that came later does not know what the barrier answered.
  return !barrier_ || barrier_->times().last_answer.has_value();
}

Task<Result<void>> InterceptWay::fence_source() {
  if (!may_have_gone_over()) co_return Result<void>{};
  DISKFERRY_CO_TRY(const VmState now, co_await ends_.source->state(move_.job.subject));
  if (now != VmState::running) co_return Result<void>{};
  // Written down first: whoever comes later has to know that no operator paused it.
  move_.state.is_fenced = true;
  DISKFERRY_CO_CHECK(co_await move_.save({}));
  spdlog::info("move {}: the guest stands still until the other host has said that it does not run it",
               move_.job.id);
  co_return co_await ends_.source->suspend(move_.job.subject);
}

Task<Result<void>> InterceptWay::make_true(const WhoRuns& said) {
  switch (*outcome_) {
    case Outcome::stop_target:
      if (auto gone = co_await destroy(*ends_.target); !gone) co_return gone;
      outcome_ = Outcome::rolled_back;
      break;
    case Outcome::resume_source:
      // The target's machine first: it never ran, and must not be able to from now on.
      if (said.target == VmState::paused) {
        if (auto gone = co_await destroy(*ends_.target); !gone) co_return gone;
      }
      DISKFERRY_CO_CHECK(co_await ends_.source->resume(move_.job.subject));
      move_.state.is_fenced = false;
      outcome_ = Outcome::rolled_back;
      break;
    case Outcome::committed:
      co_return co_await end_paused_source(said);
    case Outcome::undecided:
      // Its libvirt was away when the migration failed, and has let it run since. An operator who resumes it
      // knows better, and so does a guest that has run for long: only at the first sight, by the process that
      // saw the move fail.
      if (said.source == VmState::running && !said.target && barrier_ && !move_.state.is_fenced)
        DISKFERRY_CO_CHECK(co_await fence_source());
      break;
    default:
      break;
  }
  co_return Result<void>{};
}

Task<Result<void>> InterceptWay::find_out() {
  const TimePoint end = Clock::after(move_.clock().now(), find_out_limit);
  while (true) {
    const WhoRuns said = co_await ask_whom_to_believe();
    outcome_ = decide(said);
    if (auto made = co_await make_true(said); !made)
      spdlog::warn("move {}: {}: {}", move_.job.id, to_string(*outcome_), made.error().message());
    if (is_known(*outcome_)) co_return Result<void>{};
    if (move_.clock().now() >= end)
      co_return unexpected(fail(ErrorKind::timed_out, "find out which host runs", move_.job.subject)
                               .why(move_.state.is_fenced
                                        ? "it is paused on the source, for it may run on the "
                                          "target, which does not answer"
                                        : "not both hosts answer")
                               .remedy("when both hosts answer again, diskferry resume " + move_.job.id));
    DISKFERRY_CO_CHECK(co_await move_.clock().sleep_for(find_out_pause));
  }
}

Task<WhoRuns> InterceptWay::ask_whom_to_believe() {
  WhoRuns said = co_await ask_both();
  said.may_have_gone_over = may_have_gone_over();
  said.source_waits = said.source_waits || (said.source && move_.state.is_fenced);
  co_return said;
}

}  // namespace diskferry
