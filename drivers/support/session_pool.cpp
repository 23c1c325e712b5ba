#include "drivers/support/session_pool.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry {
namespace {
/// Reconnecting starts at once, then waits this long, and twice as long each time up to the maximum: a server
/// that restarts is found quickly, one that stays away is not flooded.
constexpr Duration back_off_min = std::chrono::milliseconds(50);
constexpr Duration back_off_max = std::chrono::seconds(2);
/// A connection that stood for this long was a good one: the back-off begins anew.
constexpr Duration good_session_min = std::chrono::seconds(5);
/// Saying goodbye needs no answer; the server only has to close.
constexpr Duration disconnect_limit = std::chrono::seconds(2);
/// Enough for a server that restarts just now, and not felt by whoever presses Ctrl-C.
constexpr Duration ending_limit = std::chrono::seconds(1);
constexpr Duration tick_min = std::chrono::milliseconds(20);
constexpr Duration tick_max = std::chrono::seconds(1);
constexpr int ticks_per_stall = 4;
}  // namespace

SessionPool::SessionPool(std::span<const Executor> reactors, Clock& clock, SessionPoolOptions options)
    : reactors_(reactors), clock_(clock), options_(std::move(options)), keepers_(reactors.front()) {}

void SessionPool::add(std::shared_ptr<Session> session, bool is_connected) {
  const std::size_t reactor = reactor_of(session->executor());
  sessions_.push_back({.session = std::move(session), .reactor = reactor, .is_connected = is_connected});
}

void SessionPool::start() {
  for (const auto& [session, reactor, is_connected] : sessions_) {
    keepers_.spawn_on(session->executor(), keep(session, is_connected));
    keepers_.spawn_on(session->executor(), watch_progress(session));
  }
}

std::size_t SessionPool::reactor_of(const Executor& executor) const noexcept {
  return static_cast<std::size_t>(std::ranges::find(reactors_, executor) - reactors_.begin());
}

unsigned SessionPool::count_up() const noexcept {
  return static_cast<unsigned>(
      std::ranges::count_if(sessions_, [](const Entry& one) { return one.session->is_up(); }));
}

// --- waiting ----------------------------------------------------------------------------------------------

Task<Result<void>> SessionPool::wait_until_up() {
  std::unique_lock lock(guard_);
  while (!gone_ && count_up() == 0) {
    if (!co_await waiting_.wait(lock))
      co_return unexpected(cancelled_error("wait for server", options_.name));
    lock.lock();
  }
  co_return Result<void>{};
}

Task<Result<void>> SessionPool::wait_for_session(TimePoint until) {
  Duration left = std::max(until - clock_.now(), Duration::zero());
  if (is_ending_.load(std::memory_order_relaxed)) left = std::min(left, ending_limit);
  auto waited = co_await with_deadline(clock_, left, "reconnect", wait_until_up());
  if (!waited && waited.error().kind() == ErrorKind::timed_out) {
    std::string why = "the connection is lost" + loss_reason();
    {
      std::lock_guard lock(guard_);
      if (!last_failure_.empty()) why += fmt::format(" and cannot be made again ({})", last_failure_);
    }
    declare_gone(fail(ErrorKind::gone, "reconnect", options_.name)
                     .why(std::move(why))
                     .remedy("check the server, then start again"));
    co_return check_gone();
  }
  co_return waited;
}

std::string SessionPool::loss_reason() const {
  for (const auto& [session, reactor, is_connected] : sessions_) {
    if (const std::string reason = session->loss_reason(); !reason.empty())
      return fmt::format(" ({})", reason);
  }
  return {};
}

void SessionPool::declare_gone(Error error) {
  std::lock_guard lock(guard_);
  if (!gone_) gone_ = std::move(error);
  is_gone_.store(true, std::memory_order_release);
  waiting_.wake_all();
}

Result<void> SessionPool::check_gone() const {
  if (!is_gone_.load(std::memory_order_acquire)) return {};
  std::lock_guard lock(guard_);
  return unexpected(*gone_);
}

// --- keeping the sessions ---------------------------------------------------------------------------------

Task<Result<void>> SessionPool::establish(std::shared_ptr<Session> session) {
  DISKFERRY_CO_CHECK(co_await options_.connect(session));
  if (!session->go_up())
    co_return unexpected(
        fail(ErrorKind::gone, "reconnect", options_.name).why("the server closed the connection"));
  std::lock_guard lock(guard_);
  last_failure_.clear();
  waiting_.wake_all();
  co_return Result<void>{};
}

/// Whether who waits for such a server waits in vain. Of the refusals that are not here a server that is
/// being started gives some (`not_found`), and others pass (`in_use`: the reservation of one that is dead).
/// `refused_since`: of the session that is refused, from one attempt to the next.
bool SessionPool::is_last_word(ErrorKind kind, std::optional<TimePoint>& refused_since) const {
  // While others stand it is about one connection more.
  const bool is_alone = count_up() == 0;
  if (!is_alone || kind != ErrorKind::permission) {
    refused_since.reset();
    return is_alone && (kind == ErrorKind::read_only || kind == ErrorKind::unsupported);
  }
  const TimePoint now = clock_.now();
  if (!refused_since) refused_since = now;
  return now - *refused_since >= options_.refusal_limit;
}

Task<Result<void>> SessionPool::bring_back(std::shared_ptr<Session> session, bool has_stood) {
  std::optional<TimePoint> refused_since;
  for (Duration back_off = back_off_min; !is_gone_.load(); back_off = std::min(2 * back_off, back_off_max)) {
    auto established = co_await establish(session);
    if (established || established.error().kind() == ErrorKind::cancelled) co_return established;
    const ErrorKind kind = established.error().kind();
    if (has_stood && (kind == ErrorKind::mismatch || is_last_word(kind, refused_since))) {
      declare_gone(established.error());
      co_return established;
    }
    // One that finds another disk from the beginning, behind one of several addresses: the others do the
    // work.
    if (kind == ErrorKind::mismatch) co_return established;
    {
      std::lock_guard lock(guard_);
      last_failure_ =
          established.error().why().empty() ? established.error().message() : established.error().why();
    }
    DISKFERRY_CO_CHECK(co_await clock_.sleep_for(back_off));
  }
  co_return check_gone();
}

Task<Result<void>> SessionPool::keep(std::shared_ptr<Session> session, bool is_connected) {
  if (!is_connected) DISKFERRY_CO_CHECK(co_await bring_back(session, false));
  Duration pause = Duration::zero();
  while (!is_gone_.load()) {
    const TimePoint since = clock_.now();
    DISKFERRY_CO_CHECK(co_await session->wait_until_down());
    // One that is lost as soon as it stands is not brought back in a hurry.
    const bool was_good = clock_.now() - since >= good_session_min;
    pause = was_good ? Duration::zero() : std::clamp(2 * pause, back_off_min, back_off_max);
    DISKFERRY_CO_CHECK(co_await clock_.sleep_for(pause));
    DISKFERRY_CO_CHECK(co_await bring_back(session, true));
  }
  co_return Result<void>{};
}

Task<Result<void>> SessionPool::watch_progress(std::shared_ptr<Session> session) {
  const Duration tick = std::clamp<Duration>(options_.stall_limit / ticks_per_stall, tick_min, tick_max);
  while (true) {
    DISKFERRY_CO_CHECK(co_await clock_.sleep_for(tick));
    session->check_progress();
  }
}

Task<void> SessionPool::close() {
  keepers_.cancel();
  (void)co_await keepers_.join();
  const auto finish = [](std::shared_ptr<Session> session) -> Task<Result<void>> {
    co_await session->disconnect(disconnect_limit);
    co_return Result<void>{};
  };
  TaskGroup group(reactors_.front());
  for (const auto& [session, reactor, is_connected] : sessions_)
    group.spawn_on(session->executor(), finish(session));
  // A cancelled caller still waits: the deadline is short, and the handles must be gone when this returns.
  (void)co_await group.join();
}

}  // namespace diskferry
