// Which host has the machine, when the hypervisor's answer does not say: asked of both until it is known, and
// then made true.
#include "gateway/move/coordinator.hpp"

#include <fmt/format.h>

#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

/// How long it is tried to learn from both hosts which of them has the machine. A host that comes back after
/// a reboot answers within it.
constexpr Duration find_out_limit = std::chrono::minutes(15);
constexpr Duration find_out_pause = std::chrono::milliseconds(500);

bool is_ended(const Result<void>& destroyed) {
  return destroyed || destroyed.error().kind() == ErrorKind::not_found;
}

}  // namespace

bool Coordinator::may_have_gone_over() const {
  if (state_.phase != Phase::synchronized && state_.phase != Phase::switching) return false;
  // A process that came later does not know what the barrier answered.
  return !barrier_ || barrier_->times().last_answer.has_value();
}

Task<Result<void>> Coordinator::fence_source() {
  if (!may_have_gone_over()) co_return Result<void>{};
  DISKFERRY_CO_TRY(const VmState now, co_await source_->state(job_.subject));
  if (now != VmState::running) co_return Result<void>{};
  // Written down first: whoever comes later has to know that no operator paused it.
  state_.is_fenced = true;
  DISKFERRY_CO_CHECK(co_await save({}));
  spdlog::info("move {}: the guest stands still until the other host has said that it does not run it",
               job_.id);
  co_return co_await source_->suspend(job_.subject);
}

Task<Result<void>> Coordinator::make_true(const WhoRuns& said) {
  switch (*outcome_) {
    case Outcome::stop_target:
      if (auto gone = co_await target_->destroy(job_.subject); !is_ended(gone)) co_return gone;
      outcome_ = Outcome::rolled_back;
      break;
    case Outcome::resume_source:
      // The target's machine first: it never ran, and must not be able to from now on.
      if (said.target == VmState::paused) {
        if (auto gone = co_await target_->destroy(job_.subject); !is_ended(gone)) co_return gone;
      }
      DISKFERRY_CO_CHECK(co_await source_->resume(job_.subject));
      state_.is_fenced = false;
      outcome_ = Outcome::rolled_back;
      break;
    case Outcome::committed:
      // It went on on the other host, and must never go on here.
      if (said.source != VmState::paused) break;
      if (auto gone = co_await source_->destroy(job_.subject); !is_ended(gone)) {
        outcome_ = Outcome::undecided;
        co_return gone;
      }
      break;
    case Outcome::undecided:
      // Its libvirt was away when the migration failed, and has let it run since. An operator who resumes it
      // knows better, and so does a guest that has run for long: only at the first sight, by the process that
      // saw the move fail.
      if (said.source == VmState::running && !said.target && barrier_ && !state_.is_fenced)
        DISKFERRY_CO_CHECK(co_await fence_source());
      break;
    default:
      break;
  }
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::find_out() {
  const TimePoint end = Clock::after(environment_.drivers.clock.now(), find_out_limit);
  while (true) {
    const WhoRuns said = co_await ask_both();
    outcome_ = decide(said);
    if (auto made = co_await make_true(said); !made)
      spdlog::warn("move {}: {}: {}", job_.id, to_string(*outcome_), made.error().message());
    const bool is_known = outcome_ != Outcome::undecided && outcome_ != Outcome::stop_target &&
                          outcome_ != Outcome::resume_source;
    if (is_known) co_return Result<void>{};
    if (environment_.drivers.clock.now() >= end)
      co_return unexpected(fail(ErrorKind::timed_out, "find out which host runs", job_.subject)
                               .why(state_.is_fenced ? "it is paused on the source, for it may run on the "
                                                       "target, which does not answer"
                                                     : "not both hosts answer")
                               .remedy("when both hosts answer again, diskferry resume " + job_.id));
    DISKFERRY_CO_CHECK(co_await environment_.drivers.clock.sleep_for(find_out_pause));
  }
}

Task<WhoRuns> Coordinator::ask_both() {
  WhoRuns said{.was_paused = state_.was_paused, .may_have_gone_over = may_have_gone_over()};
  const auto source =
      co_await ask_host(source_, request_.source.empty() ? environment_.libvirt_uri : request_.source);
  const auto target = co_await ask_host(target_, request_.destination);
  if (source) {
    said.source = source->state;
    said.source_waits = source->is_in_migration || state_.is_fenced;
    const auto job = co_await source_->job(job_.subject);
    said.source_job_active = job && job->is_active;
  }
  if (target) {
    said.target = target->state;
    said.target_has_arrived = target->state == VmState::paused && !target->is_in_migration;
  }
  co_return said;
}

Task<std::optional<VmCondition>> Coordinator::ask_host(std::unique_ptr<Libvirt>& host, std::string uri) {
  if (host) {
    auto now = co_await host->condition(job_.subject);
    if (now) co_return *now;
    if (now.error().kind() != ErrorKind::gone) co_return std::nullopt;
    (&host == &source_ ? has_lost_source_ : has_lost_target_) = true;
    co_await host->close();
    host.reset();
  }
  auto again = co_await Libvirt::connect(environment_.drivers, std::move(uri));
  if (!again) co_return std::nullopt;
  host = *std::move(again);
  auto now = co_await host->condition(job_.subject);
  if (!now) co_return std::nullopt;
  co_return *now;
}

}  // namespace diskferry
