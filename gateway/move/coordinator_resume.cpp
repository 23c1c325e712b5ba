// What a process does that comes later: after a crash, or because the operator decides on a source that was
// kept.
#include "gateway/move/coordinator.hpp"
#include "gateway/move/persistence.hpp"

#include <chrono>
#include <fmt/format.h>

#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

/// A host that comes back after a reboot answers within it.
constexpr Patience until_hosts_answer{.limit = std::chrono::minutes(15), .pause = std::chrono::seconds(2)};
/// Longer than any step of a decision.
constexpr Duration lease = std::chrono::minutes(10);
/// Where somebody waits for the answer.
constexpr Duration end_limit = std::chrono::seconds(10);

}  // namespace

Task<Result<void>> Coordinator::connect_once() {
  auto connected = co_await connect();
  if (connected) co_return connected;
  spdlog::info("move {}: waits: {}", move_.job.id, connected.error().message());
  co_await close();
  co_return connected;
}

Task<Result<void>> Coordinator::connect_again() {
  co_return co_await persist(
      move_.clock(), until_hosts_answer, [this] { return connect_once(); },
      [](const Error&) { return true; });
}

Task<Result<void>> Coordinator::settle_after_crash() {
  const Phase left_at = move_.state.phase;
  DISKFERRY_CO_CHECK(co_await way_->guest_first());
  DISKFERRY_CO_CHECK(co_await connect_again());
  if (left_at == Phase::aborting)
    co_return unexpected(fail(ErrorKind::gone, "migrate", move_.job.subject)
                             .why(move_.job.error.empty() ? "it was being undone" : move_.job.error));
  if (left_at == Phase::prepared)
    co_return unexpected(fail(ErrorKind::gone, "migrate", move_.job.subject)
                             .why("the gateway ended before the move had begun"));
  if (can_undo(left_at)) {
    DISKFERRY_CO_CHECK(co_await way_->settle());
    // What the lost process saw in between is made up for: the outcome is what counts.
    if (move_.state.phase < Phase::synchronized)
      DISKFERRY_CO_CHECK(co_await move_.enter(Phase::synchronized));
    DISKFERRY_CO_CHECK(co_await move_.enter(Phase::switching));
  }
  if (move_.state.phase < Phase::retained) DISKFERRY_CO_CHECK(co_await commit());
  co_return co_await let_source_go();
}

Task<Result<void>> Coordinator::take_over() {
  DISKFERRY_CO_TRY(const MoveState seen, parse_move_state(move_.job.state));
  if (seen.phase != Phase::retained)
    co_return unexpected(fail(ErrorKind::in_use, "end the move", move_.job.id)
                             .why(fmt::format("it is {}", to_string(seen.phase)))
                             .remedy("diskferry status " + move_.job.id));
  DISKFERRY_CO_CHECK(co_await move_.load(lease));
  way_ = make_way_(move_);
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::release_taken_over() {
  // The other host may be gone by now: a source that is let go needs nobody there.
  DISKFERRY_CO_CHECK(co_await way_->connect_here());
  move_.request.keep_source = false;
  if (way_->is_revertible()) DISKFERRY_CO_CHECK(co_await move_.finish_target(TargetEnd::keep, end_limit));
  DISKFERRY_CO_CHECK(co_await let_source_go());
  co_return co_await move_.save({.status = JobStatus::done, .report = move_.progress()});
}

Task<Result<void>> Coordinator::release() {
  auto result = co_await take_over();
  if (result) result = co_await release_taken_over();
  co_await close();
  co_return result;
}

Task<Result<void>> Coordinator::revert_taken_over() {
  DISKFERRY_CO_CHECK(co_await connect());
  DISKFERRY_CO_CHECK(co_await way_->take_from_target());
  DISKFERRY_CO_CHECK(co_await move_.finish_target(TargetEnd::remove, end_limit));
  DISKFERRY_CO_CHECK(co_await move_.enter(Phase::aborted));
  co_return co_await move_.save({.status = JobStatus::rolled_back, .report = move_.progress()});
}

Task<Result<void>> Coordinator::revert() {
  auto result = co_await take_over();
  if (result) result = co_await revert_taken_over();
  co_await close();
  co_return result;
}

}  // namespace diskferry
