// The list of steps, and the way back.
#include "gateway/move/coordinator.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/through_choice.hpp"

#include <array>
#include <chrono>
#include <filesystem>
#include <fmt/format.h>
#include <system_error>

#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

/// The guest is on the source already: what is not undone at the target by then is left for later.
constexpr Duration undo_limit = std::chrono::seconds(30);
/// The guest runs on the target already and nobody waits: a gateway that is restarted is back by then.
constexpr Duration keep_limit = std::chrono::minutes(2);
/// A lease that outlives every step: it is what tells another process of this gateway to keep off.
constexpr Duration lease = std::chrono::hours(24 * 365);

}  // namespace

Coordinator::Coordinator(MoveEnvironment& environment, JobRecord job, MakeWay make)
    : move_(environment, std::move(job)), make_way_(std::move(make)) {}
Coordinator::~Coordinator() = default;

Task<Result<void>> Coordinator::run() {
  DISKFERRY_CO_CHECK(co_await move_.load(lease));
  const bool is_new = move_.state.phase == Phase::planned;
  if (is_new) co_await choose_way(move_);
  way_ = make_way_(move_);
  (void)co_await move_.save({.status = JobStatus::running});
  auto result = is_new ? co_await forward() : co_await settle_after_crash();
  // Whatever happened, cancellation included, is followed through.
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  if (!result && can_undo(move_.state.phase) && way_->may_undo())
    result = co_await undo(std::move(result).error());
  co_await close();
  co_return co_await note_end(std::move(result));
}

Task<Result<void>> Coordinator::note_end(Result<void> result) {
  JobChanges end;
  if (result) {
    // A source that is retained goes on living: the job is active until it is released.
    end.status = move_.state.phase == Phase::retained ? JobStatus::paused : JobStatus::done;
  } else {
    end.status = move_.state.phase != Phase::aborted             ? JobStatus::failed
                 : result.error().kind() == ErrorKind::cancelled ? JobStatus::cancelled
                                                                 : JobStatus::rolled_back;
    end.error = result.error().message();
  }
  end.report = move_.progress();
  end.event = NewJobEvent{.kind = std::string(end_event), .text = *end.report};
  auto saved = co_await move_.save(std::move(end));
  if (!result) co_return result;
  co_return saved;
}

Task<Result<void>> Coordinator::forward() {
  struct Step {
    Task<Result<void>> (Coordinator::*act)();
  };
  static constexpr std::array steps{Step{&Coordinator::connect}, Step{&Coordinator::prepare},
                                    Step{&Coordinator::migrate}, Step{&Coordinator::commit},
                                    Step{&Coordinator::let_source_go}};
  for (const Step& step : steps) {
    if (can_undo(move_.state.phase) && co_await is_cancelled())
      co_return unexpected(cancelled_error("migrate", move_.job.subject));
    DISKFERRY_CO_CHECK(co_await (this->*step.act)());
  }
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::prepare() {
  DISKFERRY_CO_CHECK(co_await way_->prepare());
  co_return co_await move_.enter(Phase::prepared);
}

Task<Result<void>> Coordinator::commit() {
  // From here on it only goes forward, and a wish to cancel comes too late.
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  co_await way_->take_measures();
  DISKFERRY_CO_CHECK(co_await move_.enter(Phase::committed));
  // Nobody writes to the windows any more: the mirrors have ended, and everything was durable before that.
  co_await move_.stop_disks(false);
  // What can still be taken back, the other gateway keeps its record of.
  if (way_->is_revertible() && move_.request.keep_source) co_return co_await move_.enter(Phase::retained);
  if (auto finished = co_await move_.finish_target(TargetEnd::keep, keep_limit); !finished) {
    // What is still offered there is the machine's disk, which nobody asks the export for. The next move of
    // this machine to that gateway ends it.
    move_.state.leftovers.push_back("the exports of this move at the other gateway: " +
                                    finished.error().message());
    spdlog::warn("move {}: {}", move_.job.id, finished.error().message());
  }
  co_return co_await move_.enter(Phase::retained);
}

Task<Result<void>> Coordinator::let_source_go() {
  if (move_.request.keep_source) co_return Result<void>{};
  co_await way_->let_source_go();
  for (const MoveDiskState& disk : move_.state.disks)
    if (!disk.source.empty() && disk.route != DiskRoute::shared && disk.route != DiskRoute::rehomed)
      move_.state.leftovers.push_back("the disk on the source host: " + disk.source);
  co_return co_await move_.enter(Phase::released);
}

Error Coordinator::cause_to_tell(Error why) const {
  const std::string here = printable(move_.environment.here.name);
  if (why.kind() != ErrorKind::cancelled) {
    // The first error of a disk is the cause of what the hypervisor then complained of.
    auto failed = move_.disks && !way_->knows_cause() ? move_.disks->failure() : std::nullopt;
    return failed ? *std::move(failed) : std::move(why);
  }
  if (is_gateway_stopping_)
    return fail(ErrorKind::cancelled, "migrate", printable(move_.job.subject))
        .why("the gateway on " + here + " was stopped before the commit; the machine stays there")
        .remedy("begin again when the gateway runs");
  return fail(ErrorKind::cancelled, "migrate", printable(move_.job.subject))
      .why("it was cancelled; the machine stays on " + here);
}

Task<Result<void>> Coordinator::undo(Error why) {
  spdlog::warn("move {} of {}: undone: {}", move_.job.id, printable(move_.job.subject), why.message());
  way_->refuse();
  DISKFERRY_CO_CHECK(co_await move_.enter(Phase::aborting));
  why = cause_to_tell(std::move(why));
  const bool keeps = move_.request.keep_partial;
  co_await move_.stop_disks(keeps);
  co_await way_->undo();
  auto finished = co_await move_.finish_target(keeps ? TargetEnd::leave : TargetEnd::remove, undo_limit);
  std::vector<std::string>& leftovers = move_.state.leftovers;
  leftovers.clear();
  if (finished) {
    DISKFERRY_CO_CHECK(co_await move_.enter(Phase::aborted));
    co_return unexpected(std::move(why));
  }
  // It stays in this phase, so that it can be taken up again; the guest is not concerned.
  leftovers.emplace_back("on the other host: the exports of this move");
  for (const MoveDiskState& disk : move_.state.disks)
    if (disk.was_created)
      leftovers.push_back((disk.route == DiskRoute::direct ? "" : "on the other host: ") + disk.uri);
  leftovers.push_back("removed when the other gateway answers again, by diskferry resume " + move_.job.id);
  spdlog::warn("move {}: {}", move_.job.id, finished.error().message());
  co_return unexpected(std::move(why));
}

Task<void> Coordinator::close() {
  co_await move_.stop_disks(false);
  if (way_) co_await way_->close();
  if (move_.gateway) co_await move_.gateway->close();
  move_.gateway.reset();
  // After a crash there are no disks that would take it with them.
  std::error_code ignored;
  std::filesystem::remove_all(std::filesystem::path(move_.socket).parent_path(), ignored);
}

}  // namespace diskferry
