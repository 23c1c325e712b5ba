// The list of steps of a replacement, and the way back. See replacement.hpp.
#include "gateway/move/replacement.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/registry.hpp"
#include "gateway/copy/target.hpp"
#include "gateway/move/replacement_disk.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>

#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
constexpr Duration attempt_wait = std::chrono::milliseconds(100);
constexpr Duration attempt_wait_max = std::chrono::seconds(30);
constexpr unsigned attempts_max = 20;

bool can_be_removed(const std::string& storage) {
  const auto uri = ImageUri::parse(storage);
  return uri && can_remove_target(*uri);
}
}  // namespace

Replacement::Replacement(ReplaceEnvironment& environment, JobRecord job)
    : environment_(environment),
      record_(environment, std::move(job)),
      job_(record_.job()),
      request_(record_.request()),
      state_(record_.state()) {
  // Before anybody can change them. A record that cannot be read is told of by load().
  const auto request = parse_replace_request(job_.request);
  const auto state = parse_replace_state(job_.state.empty() ? "{}" : job_.state);
  if (request && state) limits_ = state->limits.value_or(limits_of(*request, job_.created_ms));
}
Replacement::~Replacement() = default;

// --- the record -------------------------------------------------------------------------------------------

Task<Result<void>> Replacement::load() {
  DISKFERRY_CO_CHECK(co_await record_.load());
  is_committed_ = state_.phase >= Phase::committed && state_.phase < Phase::aborting;
  co_return Result<void>{};
}

Task<Result<void>> Replacement::save(JobChanges changes) {
  are_limits_noted_ = true;
  state_.limits = limits();
  auto saved = co_await record_.save(std::move(changes));
  if (!saved) are_limits_noted_ = false;
  co_return saved;
}

// --- limits -----------------------------------------------------------------------------------------------

ReplaceLimits Replacement::limits() const {
  std::lock_guard lock(limits_guard_);
  return limits_;
}

Result<void> Replacement::set(const ReplaceSettings& settings) {
  std::lock_guard lock(limits_guard_);
  DISKFERRY_TRY(limits_, with_settings(limits_, settings, environment_.now_ms()));
  are_limits_noted_ = false;
  return {};
}

Task<Result<void>> Replacement::note_limits() {
  if (!are_limits_noted_) co_return co_await save({});
  co_return Result<void>{};
}

Task<Result<void>> Replacement::enter(Phase next, JobChanges changes) {
  if (state_.phase == next) co_return Result<void>{};
  are_limits_noted_ = true;
  state_.limits = limits();
  auto entered = co_await record_.enter(next, std::move(changes));
  if (!entered) are_limits_noted_ = false;
  co_return entered;
}

std::string Replacement::map_path(std::size_t disk) const {
  return fmt::format("{}/{}-{}.map", environment_.state_folder, job_.id, disk);
}

/// One that is there still would be believed by the next process, while guests write without a mirror.
Result<void> Replacement::remove_maps() const {
  Result<void> result;
  for (std::size_t i = 0; i < replace_disks_max; ++i) {
    std::error_code failed;
    std::filesystem::remove(map_path(i), failed);
    if (!failed) continue;
    result = unexpected(
        fail(ErrorKind::io, "remove what was noted of the disk", printable(map_path(i)))
            .why(failed.message())
            .remedy("remove it before the gateway is started again, or cancel the job " + job_.id));
    spdlog::error("replacement {}: {}", job_.id, result.error().message());
  }
  return result;
}

void Replacement::make_disks() {
  const bool is_new = state_.disks.empty();
  if (is_new) {
    for (const ReplaceDisk& disk : request_.disks)
      state_.disks.push_back({.name = disk.name, .uri = disk.uri, .format = disk.format});
  }
  const ConvergenceLimits limits = limits_now();
  const unsigned connections = request_.connections != 0 ? request_.connections : environment_.connections;
  for (std::size_t i = 0; i < state_.disks.size(); ++i)
    disks_.emplace_back(environment_, state_.disks[i],
                        ReplacedDiskOptions{.map_path = map_path(i),
                                            .window_bytes = environment_.window_bytes,
                                            .pace = environment_.pace,
                                            .latency_max = limits.latency_max,
                                            .connections = connections,
                                            .overwrite = request_.overwrite,
                                            .was_made = !is_new && state_.disks[i].was_created},
                        limits);
}

// --- forward ----------------------------------------------------------------------------------------------

Task<Result<void>> Replacement::take_up() {
  auto taken = co_await load();
  if (taken) taken = co_await begin_again();
  // Clients are let in without a mirror behind some export: what was noted of this job is not true any more.
  if (!taken)
    if (auto removed = remove_maps(); !removed) co_return removed;
  co_return taken;
}

Task<Result<void>> Replacement::begin_again() {
  is_taken_up_ = true;
  was_paused_ = job_.status == JobStatus::paused;
  make_disks();
  if (state_.phase < Phase::prepared || is_final(state_.phase)) co_return Result<void>{};
  Result<void> result;
  // Also those after one that failed, so that these note what their clients write.
  for (Disk& each : disks_) {
    auto begun = co_await each.disk.begin(true, targets_are_in_charge());
    each.is_begun = begun.has_value();
    if (!begun && result) result = std::move(begun);
  }
  co_return result;
}

Task<Result<void>> Replacement::run() {
  if (!is_taken_up_) {
    DISKFERRY_CO_CHECK(co_await load());
    make_disks();
  }
  auto result = co_await forward();
  // Whatever happened, cancellation included, is followed through.
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  if (!result && is_gateway_stopping_) {
    co_await leave_to_next();
    co_return result;
  }
  if (!result && can_undo(state_.phase))
    result = co_await undo(record_.end_reason(std::move(result).error(), is_cancel_wanted_));
  auto ended = co_await end_disks();
  co_return co_await note_end(result ? std::move(ended) : std::move(result));
}

Task<Result<void>> Replacement::forward() {
  // An earlier process came to the end, and not to noting it.
  if (state_.phase == Phase::released) co_return Result<void>{};
  if (state_.phase == Phase::aborted || state_.phase == Phase::aborting)
    co_return unexpected(cancelled_error("replace", job_.subject).with_step("an earlier process gave it up"));
  if (was_paused_) {
    DISKFERRY_CO_CHECK(co_await wait_while_paused(fail(ErrorKind::timed_out, "replace", job_.subject)
                                                      .why("it was paused when the gateway was started anew"),
                                                  &Replacement::is_never));
  } else {
    (void)co_await save({.status = JobStatus::running, .error = std::string()});
  }
  if (state_.phase == Phase::planned) DISKFERRY_CO_CHECK(co_await prepare());
  if (state_.phase < Phase::committed) DISKFERRY_CO_CHECK(co_await converge());
  is_committed_ = true;
  while (true) {
    const auto entered = co_await enter(Phase::retained);
    if (entered) break;
    DISKFERRY_CO_CHECK(co_await wait_while_paused(entered.error(), &Replacement::is_never));
  }
  co_return co_await retain();
}

/// Everything is looked at before anything is made.
Task<Result<void>> Replacement::prepare() {
  for (Disk& each : disks_) DISKFERRY_CO_CHECK(co_await each.disk.look());
  for (std::size_t i = 0; i < disks_.size(); ++i) {
    // Written down first, so that a crash leaves nothing behind that nobody knows of.
    ReplaceDiskState& state = state_.disks[i];
    state.was_created = state.was_created || disks_[i].disk.makes_target();
    DISKFERRY_CO_CHECK(co_await save({}));
    auto made = co_await disks_[i].disk.make_target();
    // A gateway that stops leaves it to the next one, which finds it in the record.
    if (!made && !is_gateway_stopping_)
      co_return unexpected(co_await record_.note_unmade(state, std::move(made).error()));
    if (made) made = co_await disks_[i].disk.identify_target();
    if (!made) co_return made;
  }
  DISKFERRY_CO_CHECK(co_await enter(Phase::prepared));
  for (Disk& each : disks_) {
    DISKFERRY_CO_CHECK(co_await each.disk.begin(false, false));
    each.is_begun = true;
  }
  co_return Result<void>{};
}

Task<Result<void>> Replacement::converge() {
  if (state_.phase == Phase::prepared) DISKFERRY_CO_CHECK(co_await enter(Phase::bulk));
  // An earlier process ended right there, and had not committed.
  if (state_.phase == Phase::switching) DISKFERRY_CO_CHECK(co_await enter(Phase::delta));
  DISKFERRY_CO_CHECK(
      co_await follow_and_change(&Replacement::is_time_to_commit, &Replacement::is_never, Phase::committed));
  co_return Result<void>{};
}

/// Has the targets follow until `is_enough`, then has them change places, however often that takes. False:
/// `is_off` before that.
Task<Result<bool>> Replacement::follow_and_change(IsEnough is_enough, IsEnough is_off, Phase next) {
  while (!(this->*is_off)()) {
    auto done = co_await follow_until(is_enough);
    if (done && (this->*is_off)()) break;
    if (done) {
      auto changed = co_await change_places(next);
      if (changed && *changed) co_return true;
      done = changed ? note_attempt() : unexpected(std::move(changed).error());
    }
    if (done) continue;
    if (is_end_wanted() || is_record_unsure_ || is_to_be_undone())
      co_return unexpected(std::move(done).error());
    DISKFERRY_CO_CHECK(co_await wait_while_paused(std::move(done).error(), is_off));
  }
  co_return false;
}

/// One that took too long is made again later and later, and not for ever.
Result<void> Replacement::note_attempt() {
  ++attempts_;
  next_attempt_ = Clock::after(environment_.drivers.clock.now(),
                               std::min(attempt_wait_max, attempt_wait * (1u << std::min(attempts_, 8u))));
  if (attempts_ < attempts_max) return {};
  attempts_ = 0;
  return unexpected(
      fail(ErrorKind::timed_out, "change places", job_.subject)
          .why(fmt::format("it took longer than {} ms {} times", limits().max_pause_ms, attempts_max))
          .remedy("allow a longer pause (diskferry set JOB --max-pause), then resume"));
}

/// The old storage is kept in step until its time is over, or somebody says what is to become of it.
Task<Result<void>> Replacement::retain() {
  while (!is_time_to_end()) {
    auto followed = co_await follow_until(&Replacement::is_time_to_end);
    if (followed) break;
    if (is_end_wanted()) co_return followed;
    DISKFERRY_CO_CHECK(co_await wait_while_paused(std::move(followed).error(), &Replacement::is_time_to_end));
  }
  DISKFERRY_CO_TRY(const bool is_back, co_await take_source_back());
  if (!is_back) co_return co_await let_source_go();
  co_return unexpected(
      fail(ErrorKind::cancelled, "replace", job_.subject).why("the old storage was taken back"));
}

/// False: nobody wants that, or not any more.
Task<Result<bool>> Replacement::take_source_back() {
  co_return co_await follow_and_change(&Replacement::is_time_to_fall_back, &Replacement::is_fallback_off,
                                       Phase::aborting);
}

Task<Result<void>> Replacement::let_source_go() {
  DISKFERRY_CO_CHECK(co_await end_disks());
  for (const ReplaceDiskState& disk : state_.disks) {
    if (!request_.remove_source || !can_be_removed(disk.source)) {
      state_.leftovers.push_back("the old storage of " + printable(disk.name) + ": " +
                                 shown_name(disk.source));
      continue;
    }
    if (auto removed = co_await remove_storage(disk.source); !removed)
      state_.leftovers.push_back(shown_name(disk.source) + ": " + removed.error().message());
  }
  co_return co_await enter(Phase::released);
}

// --- ends -------------------------------------------------------------------------------------------------

Task<Result<void>> Replacement::remove_storage(std::string name) {
  DISKFERRY_CO_TRY(ImageUri uri, ImageUri::parse(name));
  co_return co_await remove_created_target(environment_.drivers, std::move(uri));
}

Task<Result<void>> Replacement::end_disks() {
  Result<void> result;
  if (!disks_.empty()) last_views_ = views();
  for (Disk& each : disks_) {
    auto ended = co_await each.disk.end(targets_are_in_charge());
    if (!ended && result) result = std::move(ended);
  }
  disks_.clear();
  co_return result;
}

Task<Result<void>> Replacement::undo(Error why) {
  spdlog::warn("replacement {} of {}: undone: {}", job_.id, printable(job_.subject), why.message());
  DISKFERRY_CO_CHECK(co_await enter(Phase::aborting));
  DISKFERRY_CO_CHECK(co_await end_disks());
  for (ReplaceDiskState& disk : state_.disks) {
    if (!disk.was_created) continue;
    if (auto removed = co_await remove_storage(disk.uri); !removed)
      state_.leftovers.push_back(shown_name(disk.uri) + ": " + removed.error().message());
  }
  DISKFERRY_CO_CHECK(co_await enter(Phase::aborted));
  co_return unexpected(std::move(why));
}

/// The mirrors stay behind the exports and note what is written, until the server has ended.
Task<void> Replacement::leave_to_next() {
  for (Disk& each : disks_) {
    if (each.is_begun) co_await each.disk.detach();
    each.disk.leave();
  }
  disks_.clear();
}

Task<Result<void>> Replacement::note_end(Result<void> result) {
  state_.limits = limits();
  co_return co_await record_.note_end(std::move(result), report(),
                                      [this] { return is_gateway_stopping_.load(); });
}

}  // namespace diskferry
