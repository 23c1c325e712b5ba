#include "gateway/move/replace_record.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/registry.hpp"

#include <algorithm>
#include <csignal>
#include <fmt/format.h>
#include <utility>

#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
/// A lease that outlives every step: it is what tells another process of this gateway to keep off.
constexpr Duration lease = std::chrono::hours(24 * 365);
constexpr Duration save_again_after = std::chrono::seconds(1);
/// A storage that does not answer holds up the end of a job for so long.
constexpr Duration look_max = std::chrono::seconds(5);
}  // namespace

Task<Result<void>> ReplaceRecord::load() {
  DISKFERRY_CO_TRY(job_, co_await environment_.journal.take_lease(job_.id, environment_.controller, lease));
  DISKFERRY_CO_TRY(request_, parse_replace_request(job_.request));
  DISKFERRY_CO_TRY(state_, parse_replace_state(job_.state.empty() ? "{}" : job_.state));
  co_return Result<void>{};
}

Task<Result<void>> ReplaceRecord::save(JobChanges changes) {
  changes.state = to_json(state_);
  auto saved = co_await environment_.journal.update(job_.id, job_.generation, std::move(changes));
  if (!saved) co_return unexpected(std::move(saved).error().in("write the job down"));
  co_return Result<void>{};
}

/// A phase that is entered again, after an attempt that failed, is there once.
void ReplaceRecord::has_entered(Phase phase) {
  state_.phase = phase;
  std::erase_if(state_.timeline, [phase](const PhaseTime& each) { return each.phase == phase; });
  state_.timeline.push_back({.phase = phase, .at_ms = environment_.now_ms()});
}

Task<Result<void>> ReplaceRecord::enter(Phase next, JobChanges changes) {
  if (state_.phase == next) co_return Result<void>{};
  if (!may_follow(state_.phase, next))
    co_return unexpected(fail(ErrorKind::internal, "go on with the replacement")
                             .why(fmt::format("from {} to {}", to_string(state_.phase), to_string(next))));
  die_at("before:", next);
  const Phase before = state_.phase;
  const std::vector<PhaseTime> timeline = state_.timeline;
  has_entered(next);
  changes.phase = std::string(to_string(next));
  changes.event = NewJobEvent{
      .kind = std::string(phase_event),
      .text = fmt::format(R"({{"phase":"{}","word":"{}"}})", to_string(next), operators_word(next))};
  auto saved = co_await save(std::move(changes));
  if (saved) {
    spdlog::info("replacement {} of {}: {}", job_.id, printable(job_.subject), to_string(next));
    die_at("", next);
    co_return saved;
  }
  state_.phase = before;
  state_.timeline = timeline;
  co_return saved;
}

void ReplaceRecord::die_at(std::string_view prefix, Phase phase) const {
  if (environment_.dies_at == fmt::format("{}{}", prefix, to_string(phase))) (void)std::raise(SIGKILL);
}

Task<Result<void>> ReplaceRecord::enter_for_sure(Phase next, JobChanges changes,
                                                 std::function<bool()> gives_up) {
  while (true) {
    auto entered = co_await enter(next, changes);
    if (entered || entered.error().kind() == ErrorKind::in_use ||
        entered.error().kind() == ErrorKind::internal || gives_up())
      co_return entered;
    spdlog::error("replacement {}: {}", job_.id, entered.error().message());
    (void)co_await environment_.drivers.clock.sleep_for(save_again_after);
  }
}

Error ReplaceRecord::end_reason(Error why, bool is_cancel_wanted) const {
  if (!is_cancel_wanted || why.kind() != ErrorKind::cancelled) return why;
  return fail(ErrorKind::cancelled, "replace", printable(job_.subject))
      .why("it was cancelled, and the old storage stays in charge");
}

/// Also where its storage does not say: an answer that was lost is no answer.
Task<bool> ReplaceRecord::may_be_there(std::string uri) const {
  const auto named = ImageUri::parse(uri);
  if (!named) co_return false;
  const auto found = co_await with_deadline(environment_.drivers.clock, look_max, "look at the target",
                                            look_at_volume(environment_.drivers, *named, {}));
  co_return !found || found->exists;
}

Task<Error> ReplaceRecord::note_unmade(ReplaceDiskState& disk, Error why) {
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  if (!std::exchange(disk.was_created, false)) co_return why;
  // Somebody else has made it meanwhile.
  if (why.kind() == ErrorKind::already_exists) co_return why;
  if (!co_await may_be_there(disk.uri)) co_return why;
  const std::string target = shown_name(disk.uri);
  state_.leftovers.push_back(target + ": it may have been made by this job, which was not told so");
  const std::string known = why.remedy().empty() ? "" : why.remedy() + "; ";
  co_return std::move(why).remedy(
      fmt::format("{}{} may have been made: remove it, or begin again with --overwrite", known, target));
}

Task<Result<void>> ReplaceRecord::note_end(Result<void> result, std::string report,
                                           std::function<bool()> gives_up) {
  JobChanges end{.status = JobStatus::done};
  if (!result) {
    end.status = state_.phase != Phase::aborted ? JobStatus::failed
                 : result.error().kind() == ErrorKind::cancelled && state_.switchovers == 0
                     ? JobStatus::cancelled
                     : JobStatus::rolled_back;
    end.error = result.error().message();
  }
  const bool fits = report.size() <= JobLimits::event_bytes_max;
  end.event =
      NewJobEvent{.kind = std::string(end_event), .text = fits ? report : R"({"text":"the job has ended"})"};
  end.report = std::move(report);
  // What has ended must be known to have, or it stands in the way of the next one.
  while (true) {
    const auto saved = co_await save(end);
    if (saved || saved.error().kind() == ErrorKind::in_use || gives_up()) break;
    spdlog::error("replacement {}: {}", job_.id, saved.error().message());
    (void)co_await environment_.drivers.clock.sleep_for(save_again_after);
  }
  co_return result;
}

}  // namespace diskferry
