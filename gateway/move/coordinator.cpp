// The list of steps, the record of each, and the way back.
#include "gateway/move/coordinator.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/support/wall_clock.hpp"
#include "gateway/move/target_disks.hpp"

#include <array>
#include <chrono>
#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

/// A host that comes back after a reboot answers within it.
constexpr Duration connect_limit = std::chrono::minutes(15);
/// The guest is on the source already: what is not undone at the target by then is left for later.
constexpr Duration undo_limit = std::chrono::seconds(30);
constexpr Duration connect_pause = std::chrono::seconds(2);
/// A lease that outlives every step: it is what tells another process of this gateway to keep off.
constexpr Duration lease = std::chrono::hours(24 * 365);

}  // namespace

Coordinator::Coordinator(MoveEnvironment& environment, JobRecord job)
    : environment_(environment),
      job_(std::move(job)),
      move_socket_path_(move_socket(environment.run_folder, job_.id)) {}
Coordinator::~Coordinator() = default;

Task<Result<void>> Coordinator::save(JobChanges changes) {
  changes.state = to_json(state_);
  auto saved = co_await environment_.jobs.update(job_.id, job_.generation, std::move(changes));
  if (!saved) co_return unexpected(std::move(saved).error().in("write the job down"));
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::enter(Phase next) {
  if (state_.phase == next) co_return Result<void>{};
  if (!may_follow(state_.phase, next))
    co_return unexpected(fail(ErrorKind::internal, "go on with the move")
                             .why(fmt::format("from {} to {}", to_string(state_.phase), to_string(next))));
  const Phase before = state_.phase;
  state_.phase = next;
  state_.timeline.push_back({.phase = next, .at_ms = now_ms()});
  auto saved =
      co_await save({.phase = std::string(to_string(next)),
                     .event = NewJobEvent{.kind = std::string(phase_event),
                                          .text = fmt::format(R"({{"phase":"{}","word":"{}"}})",
                                                              to_string(next), operators_word(next))}});
  if (saved) {
    spdlog::info("move {} of {}: {}", job_.id, printable(job_.subject), to_string(next));
    co_return saved;
  }
  state_.phase = before;
  state_.timeline.pop_back();
  co_return saved;
}

Task<Result<void>> Coordinator::load() {
  DISKFERRY_CO_TRY(job_, co_await environment_.jobs.take_lease(job_.id, environment_.controller, lease));
  DISKFERRY_CO_TRY(request_, parse_move_request(job_.request));
  DISKFERRY_CO_TRY(state_, parse_move_state(job_.state.empty() ? "{}" : job_.state));
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::run() {
  DISKFERRY_CO_CHECK(co_await load());
  bytes_per_s_ = request_.bytes_per_s;
  max_pause_ms_ = request_.max_pause_ms;
  told_bytes_per_s_ = request_.bytes_per_s;
  const bool is_new = state_.phase == Phase::planned;
  (void)co_await save({.status = JobStatus::running});
  auto result = is_new ? co_await forward() : co_await settle_after_crash();
  // Whatever happened, cancellation included, is followed through.
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  if (!result && may_undo()) result = co_await undo(std::move(result).error());
  co_await close();
  JobChanges end;
  if (result) {
    end.status = JobStatus::done;
  } else {
    end.status = state_.phase != Phase::aborted                  ? JobStatus::failed
                 : result.error().kind() == ErrorKind::cancelled ? JobStatus::cancelled
                                                                 : JobStatus::rolled_back;
    end.error = result.error().message();
  }
  // A source that is retained goes on living: the job is active until it is released.
  if (result && state_.phase == Phase::retained) end.status = JobStatus::paused;
  end.report = progress();
  end.event = NewJobEvent{.kind = std::string(end_event), .text = progress()};
  auto saved = co_await save(std::move(end));
  if (!result) co_return result;
  co_return saved;
}

bool Coordinator::may_undo() const noexcept {
  if (!can_undo(state_.phase)) return false;
  // Once the hypervisor was asked, only what both hosts say can tell that the machine is not on the other
  // one.
  const bool was_asked = state_.phase >= Phase::bulk && state_.phase <= Phase::switching && !state_.is_cold;
  if (!was_asked) return true;
  return outcome_ == Outcome::rolled_back || outcome_ == Outcome::ended;
}

Task<Result<void>> Coordinator::forward() {
  struct Step {
    Task<Result<void>> (Coordinator::*act)();
  };
  static constexpr std::array steps{Step{&Coordinator::connect}, Step{&Coordinator::prepare},
                                    Step{&Coordinator::migrate}, Step{&Coordinator::commit},
                                    Step{&Coordinator::let_source_go}};
  for (const Step& step : steps) {
    if (can_undo(state_.phase) && co_await is_cancelled())
      co_return unexpected(cancelled_error("migrate", job_.subject));
    DISKFERRY_CO_CHECK(co_await (this->*step.act)());
  }
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::connect_again() {
  const TimePoint end = Clock::after(environment_.drivers.clock.now(), connect_limit);
  while (true) {
    auto connected = co_await connect();
    if (connected || environment_.drivers.clock.now() >= end) co_return connected;
    spdlog::info("move {}: waits: {}", job_.id, connected.error().message());
    co_await close();
    DISKFERRY_CO_CHECK(co_await environment_.drivers.clock.sleep_for(connect_pause));
  }
}

Task<Result<void>> Coordinator::settle_after_crash() {
  if (state_.way == MoveWay::qmp) DISKFERRY_CO_CHECK(co_await guest_first());
  DISKFERRY_CO_CHECK(co_await connect_again());
  if (state_.phase == Phase::aborting)
    co_return unexpected(fail(ErrorKind::gone, "migrate", job_.subject)
                             .why(job_.error.empty() ? "it was being undone" : job_.error));
  if (state_.phase == Phase::prepared)
    co_return unexpected(
        fail(ErrorKind::gone, "migrate", job_.subject).why("the gateway ended before the move had begun"));
  if (can_undo(state_.phase) && state_.is_cold) {
    // Defined there and nowhere running: it can be told from the definition alone.
    if (state_.phase != Phase::switching)
      co_return unexpected(
          fail(ErrorKind::gone, "migrate", job_.subject).why("the gateway ended while it copied"));
    DISKFERRY_CO_CHECK(co_await switch_cold());
  } else if (can_undo(state_.phase)) {
    if (ends_) DISKFERRY_CO_CHECK(co_await find_out_by_qmp());
    if (!ends_) DISKFERRY_CO_CHECK(co_await find_out());
    if (outcome_ != Outcome::committed)
      co_return unexpected(
          fail(ErrorKind::gone, "migrate", job_.subject)
              .why(fmt::format("the gateway on {} ended while it ran; the guest goes on there",
                               printable(environment_.here.name)))
              .remedy("begin again"));
    // What the lost process saw in between is made up for: the outcome is what counts.
    if (state_.phase < Phase::synchronized) DISKFERRY_CO_CHECK(co_await enter(Phase::synchronized));
    DISKFERRY_CO_CHECK(co_await enter(Phase::switching));
  }
  if (state_.phase < Phase::retained) DISKFERRY_CO_CHECK(co_await commit());
  co_return co_await let_source_go();
}

Task<Result<void>> Coordinator::undo(Error why) {
  spdlog::warn("move {} of {}: undone: {}", job_.id, printable(job_.subject), why.message());
  if (barrier_) barrier_->refuse();
  if (why.kind() == ErrorKind::cancelled) why = cancelled_by();
  DISKFERRY_CO_CHECK(co_await enter(Phase::aborting));
  // libvirt would keep the memory's rate for the machine's next migration, whoever asks for that.
  if (told_bytes_per_s_ != 0 && source_) (void)co_await source_->set_memory_bytes_per_s(job_.subject, 0);
  // The first error of a disk is the cause of what the hypervisor then complained of.
  if (disks_) {
    final_stats_ = disks_->stats();
    if (auto failed = disks_->failure(); failed && why.kind() != ErrorKind::cancelled && !is_cause_known_)
      why = *std::move(failed);
    if (auto stopped = co_await disks_->stop(request_.keep_partial); !stopped)
      spdlog::debug("move {}: {}", job_.id, stopped.error().message());
    disks_.reset();
  }
  if (ends_) co_await undo_by_qmp();
  auto finished =
      co_await finish_target(request_.keep_partial ? TargetEnd::leave : TargetEnd::remove, undo_limit);
  if (!finished) {
    // It stays in this phase, so that it can be taken up again; the guest is not concerned.
    state_.leftovers = {"on the other host: the exports of this move"};
    for (const MoveDiskState& disk : state_.disks)
      if (disk.was_created) state_.leftovers.push_back("on the other host: " + disk.uri);
    state_.leftovers.push_back("removed when the other gateway answers again, by diskferry resume " +
                               job_.id);
    spdlog::warn("move {}: {}", job_.id, finished.error().message());
    co_return unexpected(std::move(why));
  }
  state_.leftovers.clear();
  DISKFERRY_CO_CHECK(co_await enter(Phase::aborted));
  co_return unexpected(std::move(why));
}

Result<std::string> gateway_beside(std::string_view libvirt_uri) {
  DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(libvirt_uri));
  if (uri.host().empty())
    return unexpected(fail(ErrorKind::invalid_argument, "find the other gateway", printable(libvirt_uri))
                          .why("the URI names no host")
                          .remedy("say --gateway-to https://HOST, or a destination with a host"));
  const bool is_v6 = uri.host().contains(':');
  return "https://" + (is_v6 ? "[" + uri.host() + "]" : uri.host());
}

}  // namespace diskferry
