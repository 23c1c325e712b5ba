// Who has the machine, and what is done once it is on the other host. Nobody but this gateway lets the guest
// go on there, and it does so only after `switching` was written down, when the storage is closed here.
#include "diskferry/image_uri.hpp"
#include "gateway/move/persistence.hpp"
#include "gateway/move/through_way.hpp"

#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

/// The guest goes on here already, and the other host is only asked to end what waits there.
constexpr Duration end_target_limit = std::chrono::minutes(2);
constexpr Patience until_written{.limit = std::chrono::minutes(15), .pause = std::chrono::seconds(1)};

}  // namespace

/// It never ran. One that has arrived is defined there, too.
Task<Result<void>> ThroughWay::end_target(const WhoRuns& said) {
  if (said.target != VmState::paused) co_return Result<void>{};
  if (auto gone = co_await destroy(*ends_.target); !gone) co_return gone;
  if (said.target_has_arrived && move_.state.is_persistent)
    co_return co_await ends_.target->undefine(move_.job.subject);
  co_return Result<void>{};
}

Task<Result<void>> ThroughWay::make_true(const WhoRuns& said) {
  switch (*outcome_) {
    case Outcome::stop_target:
      DISKFERRY_CO_CHECK(co_await end_target(said));
      outcome_ = Outcome::rolled_back;
      break;
    case Outcome::resume_source:
      DISKFERRY_CO_CHECK(co_await end_target(said));
      DISKFERRY_CO_CHECK(co_await ends_.source->resume(move_.job.subject));
      outcome_ = Outcome::rolled_back;
      break;
    case Outcome::committed:
      co_return co_await end_paused_source(said);
    default:
      break;
  }
  co_return Result<void>{};
}

Task<Result<void>> ThroughWay::find_out() {
  TimePoint began = move_.clock().now();
  while (true) {
    const WhoRuns said = co_await ask_both();
    outcome_ = decide_through(said);
    if (auto made = co_await make_true(said); !made)
      spdlog::warn("move {}: {}: {}", move_.job.id, to_string(*outcome_), made.error().message());
    if (is_known(*outcome_)) co_return Result<void>{};
    // The memory goes over without us, for as long as that takes.
    if (said.source_job_active) began = move_.clock().now();
    const Duration passed = move_.clock().now() - began;
    if (said.source == VmState::running && !said.target && passed >= end_target_limit) {
      move_.state.warnings.push_back(
          "the other host does not answer: where the machine waits there, paused, end it (virsh destroy) and "
          "never let it go on");
      outcome_ = Outcome::rolled_back;
      co_return Result<void>{};
    }
    if (passed >= find_out_limit)
      co_return unexpected(fail(ErrorKind::timed_out, "find out which host has it", move_.job.subject)
                               .why("not both hosts answer")
                               .remedy("when both hosts answer again, diskferry resume " + move_.job.id));
    if (co_await move_.clock().sleep_for(find_out_pause)) continue;
    // Somebody wants it to end, which libvirt has to be told.
    co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
    if (ends_.source) (void)co_await abort();
  }
}

Task<Result<void>> ThroughWay::settle() {
  // Nobody but the exports was asked for anything.
  if (move_.state.phase < Phase::delta) outcome_ = Outcome::rolled_back;
  // What is closed here is for the other host.
  if (move_.state.phase == Phase::switching) outcome_ = Outcome::committed;
  if (!outcome_) DISKFERRY_CO_CHECK(co_await find_out());
  if (outcome_ == Outcome::committed) co_return co_await hand_over();
  co_return unexpected(outcome_ == Outcome::split ? runs_twice() : ended_without_us());
}

Task<Result<void>> ThroughWay::enter_for_sure(Phase next) {
  return persist(
      move_.clock(), until_written, [this, next] { return move_.enter(next); },
      [](const Error& error) {
        return error.kind() != ErrorKind::in_use && error.kind() != ErrorKind::internal;
      });
}

/// The guest is on the other host, paused, and gone from this one. Only forward.
Task<Result<void>> ThroughWay::hand_over() {
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  const TimePoint arrived = move_.clock().now();
  if (move_.state.phase < Phase::synchronized)
    DISKFERRY_CO_CHECK(co_await enter_for_sure(Phase::synchronized));
  DISKFERRY_CO_CHECK(co_await close_storage());
  DISKFERRY_CO_CHECK(co_await enter_for_sure(Phase::switching));
  const TimePoint closed = move_.clock().now();
  DISKFERRY_CO_CHECK(co_await resume_there());
  measure_pause(arrived, closed);
  co_return Result<void>{};
}

Task<Result<void>> ThroughWay::resume_there() {
  const TimePoint end = Clock::after(move_.clock().now(), find_out_limit);
  std::string problem = "it does not answer";
  while (true) {
    const auto there = co_await ends_.ask_target(move_);
    if (there &&
        (there->state == VmState::running || (there->state == VmState::paused && move_.state.was_paused)))
      co_return Result<void>{};
    if (there && !is_alive(there->state)) {
      move_.state.warnings.push_back(
          "the machine ended on the other host before it was let go on there: start it there, its disks are "
          "whole");
      co_return Result<void>{};
    }
    if (there) {
      const auto resumed = co_await ends_.target->resume(move_.job.subject);
      if (resumed) {
        // The event may come later.
        std::lock_guard lock(guard_);
        if (!target_resumed_) target_resumed_ = move_.clock().now();
        co_return Result<void>{};
      }
      problem = resumed.error().message();
      spdlog::warn("move {}: {}", move_.job.id, problem);
    }
    if (move_.clock().now() >= end)
      co_return unexpected(fail(ErrorKind::timed_out, "let the guest go on", printable(move_.job.subject))
                               .why("it is paused on the other host: " + problem)
                               .remedy("when that is solved, diskferry resume " + move_.job.id));
    DISKFERRY_CO_CHECK(co_await move_.clock().sleep_for(find_out_pause));
  }
}

}  // namespace diskferry
