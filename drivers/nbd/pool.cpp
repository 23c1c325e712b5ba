// See the header. The decisions on what a server's answer means are in outcome.hpp.
#include "drivers/nbd/pool.hpp"

#include "drivers/nbd/outcome.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry::nbd {
namespace asio = boost::asio;

namespace {
/// Reconnecting starts at once, then waits this long, and twice as long each time up to the maximum: a server
/// that restarts is found quickly, one that stays away is not flooded.
constexpr Duration back_off_min = std::chrono::milliseconds(50);
constexpr Duration back_off_max = std::chrono::seconds(2);
/// A connection that stood for this long was a good one: the back-off begins anew.
constexpr Duration good_connection_min = std::chrono::seconds(5);
/// NBD_CMD_DISC has no answer; the server only has to close.
constexpr Duration disconnect_limit = std::chrono::seconds(2);
/// A thread hop there and back costs about as much as waiting behind this many requests.
constexpr unsigned hop_cost_requests = 8;
/// Enough for a server that restarts just now, and not felt by whoever presses Ctrl-C.
constexpr Duration ending_limit = std::chrono::seconds(1);
constexpr unsigned connections_default_min = 4;  // nbdcopy's
/// A UNIX socket has no round trip to hide: one connection for each thread that works, and no more. Between
/// two UNIX sockets on 2 cores, 2 GiB verified: 1.5 s with 2 connections, 1.9 s with 4, 3.7 s with 1.
constexpr std::size_t unix_connections_min = 2;
constexpr std::size_t unix_connections_max = 8;
/// Streams that make no sense, one after the other, until a request is given up.
constexpr unsigned garbled_max = 2;

std::size_t wanted_connections(const ServerInfo& server, const Endpoint& endpoint, unsigned limit,
                               std::size_t reactors) {
  if (!server.can_multi_connection) return 1;  // "clients SHOULD NOT multiplex" (NBD_FLAG_CAN_MULTI_CONN)
  std::size_t wanted = endpoint.connections;
  if (wanted == 0)
    wanted = endpoint.is_unix()
                 ? std::clamp(reactors, unix_connections_min, unix_connections_max)
                 : std::clamp<std::size_t>(2 * reactors, connections_default_min, connections_max);
  if (limit != 0) wanted = std::min<std::size_t>(wanted, limit);
  return wanted;
}
}  // namespace

Pool::Pool(DriverContext& context, Endpoint endpoint)
    : context_(context), endpoint_(std::move(endpoint)), keepers_(context.reactors.front()) {}

Task<Result<void>> Pool::open(unsigned wanted) {
  const auto reactors = context_.reactors;
  std::size_t reactor = reactor_of(co_await asio::this_coro::executor);
  if (reactor == reactors.size()) reactor = 0;
  const auto first = std::make_shared<Connection>(reactors[reactor], endpoint_, context_.clock, writes_);
  {
    std::optional<Result<ServerInfo>> info;
    TaskGroup group(first->executor());
    const auto connect = [](std::shared_ptr<Connection> connection, BlockingPool& pool,
                            std::optional<Result<ServerInfo>>& into) -> Task<Result<void>> {
      into.emplace(co_await connection->connect(pool));
      if (*into) (void)connection->go_up();
      co_return Result<void>{};
    };
    group.spawn(connect(first, context_.blocking_pool, info));
    DISKFERRY_CO_CHECK(co_await group.join());
    if (!info) co_return unexpected(cancelled_error("connect", endpoint_.name));
    DISKFERRY_CO_TRY(server_, *std::move(info));
  }
  const std::size_t count = wanted_connections(server_, endpoint_, wanted, reactors.size());
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t on = (reactor + i) % reactors.size();
    connections_.push_back(
        i == 0 ? first : std::make_shared<Connection>(reactors[on], endpoint_, context_.clock, writes_));
    reactor_of_connection_.push_back(on);
  }
  for (std::size_t i = 0; i < count; ++i) {
    const auto& connection = connections_[i];
    keepers_.spawn_on(connection->executor(), keep(connection, i == 0));
    keepers_.spawn_on(connection->executor(), watch_progress(connection));
  }
  co_return Result<void>{};
}

std::size_t Pool::reactor_of(const Executor& executor) const noexcept {
  return static_cast<std::size_t>(std::ranges::find(context_.reactors, executor) - context_.reactors.begin());
}

unsigned Pool::connections_up() const noexcept {
  return static_cast<unsigned>(
      std::ranges::count_if(connections_, [](const auto& one) { return one->is_up(); }));
}

// --- requests ---------------------------------------------------------------------------------------------

Connection* Pool::choose(const Request& request, std::size_t reactor) const noexcept {
  Connection* best = nullptr;
  unsigned best_cost = 0;
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    Connection& one = *connections_[i];
    if (!one.is_up() || (request.verb == Verb::flush && !one.covers_unflushed())) continue;
    const unsigned cost = one.load() + (reactor_of_connection_[i] == reactor ? 0 : hop_cost_requests);
    if (best == nullptr || cost < best_cost) {
      best = &one;
      best_cost = cost;
    }
  }
  return best;
}

bool Pool::can_cover_unflushed() const noexcept {
  return std::ranges::any_of(connections_, [](const auto& one) { return one->covers_unflushed(); });
}

Task<Result<void>> Pool::execute(Request& request) {
  const Executor executor = co_await asio::this_coro::executor;
  const std::size_t reactor = reactor_of(executor);
  std::optional<TimePoint> give_up;
  unsigned garbled = 0;
  bool was_sent = false;
  while (true) {
    if ((co_await asio::this_coro::cancellation_state).cancelled() != asio::cancellation_type::none)
      co_return unexpected(cancelled_error(std::string(to_string(request.verb)), endpoint_.name));
    if (is_gone_.load(std::memory_order_acquire)) DISKFERRY_CO_CHECK(check_gone());
    Connection* const connection = choose(request, reactor);
    if (connection == nullptr) {
      if (request.verb == Verb::flush && connections_up() != 0) co_return unexpected(flush_not_covered());
      if (!give_up) give_up = context_.clock.now() + endpoint_.reconnect_limit;
      DISKFERRY_CO_CHECK(co_await wait_for_connection(*give_up));
      continue;
    }
    if (was_sent) repeated_.fetch_add(1, std::memory_order_relaxed);
    was_sent = true;
    const bool is_local = connection->executor() == executor;
    const Outcome outcome = co_await connection->perform(request, executor, is_local);
    switch (outcome.how) {
      case Outcome::How::done:
        co_return Result<void>{};
      case Outcome::How::withdrawn:
        continue;  // the cancellation is seen above
      case Outcome::How::garbled:
        if (++garbled >= garbled_max)
          co_return unexpected(garbled_error(request, endpoint_.name, *connection));
        [[fallthrough]];
      case Outcome::How::lost:
        if (!give_up) {
          give_up = context_.clock.now() + endpoint_.reconnect_limit;
        } else if (context_.clock.now() >= *give_up) {
          co_return unexpected(lost_for_good(request));
        }
        continue;
      case Outcome::How::refused:
      case Outcome::How::not_sent:
      case Outcome::How::broken:
        co_return unexpected(request_error(request, outcome, endpoint_.name, server_.block_bytes));
    }
  }
}

Task<Result<void>> Pool::wait_until_up() {
  std::unique_lock lock(guard_);
  while (!gone_ && connections_up() == 0) {
    if (!co_await waiting_.wait(lock))
      co_return unexpected(cancelled_error("wait for server", endpoint_.name));
    lock.lock();
  }
  co_return Result<void>{};
}

Task<Result<void>> Pool::wait_for_connection(TimePoint until) {
  Duration left = std::max(until - context_.clock.now(), Duration::zero());
  if (is_ending_.load(std::memory_order_relaxed)) left = std::min(left, ending_limit);
  auto waited = co_await with_deadline(context_.clock, left, "reconnect", wait_until_up());
  if (!waited && waited.error().kind() == ErrorKind::timed_out) {
    std::string why = "the connection is lost" + loss_reason();
    {
      std::lock_guard lock(guard_);
      if (!last_failure_.empty()) why += fmt::format(" and cannot be made again ({})", last_failure_);
    }
    declare_gone(fail(ErrorKind::gone, "reconnect", endpoint_.name)
                     .why(std::move(why))
                     .remedy("check the server, then start again"));
    co_return check_gone();
  }
  co_return waited;
}

std::string Pool::loss_reason() const {
  for (const auto& connection : connections_) {
    if (const std::string reason = connection->loss_reason(); !reason.empty())
      return fmt::format(" ({})", reason);
  }
  return {};
}

Error Pool::lost_for_good(const Request& request) const {
  return fail(ErrorKind::gone, std::string(to_string(request.verb)), endpoint_.name)
      .why("the connection is lost again and again" + loss_reason())
      .remedy("check the server and the network")
      .at(request.range.offset, request.range.length);
}

Error Pool::flush_not_covered() const {
  return fail(ErrorKind::gone, "flush", endpoint_.name)
      .why(fmt::format(
          "the connection was lost{} between writes and this flush; the server may have lost what "
          "it had acknowledged",
          loss_reason()))
      .remedy("open the export again and repeat the writes since the last flush");
}

void Pool::declare_gone(Error error) {
  std::lock_guard lock(guard_);
  if (!gone_) gone_ = std::move(error);
  is_gone_.store(true, std::memory_order_release);
  waiting_.wake_all();
}

Result<void> Pool::check_gone() const {
  std::lock_guard lock(guard_);
  if (gone_) return unexpected(*gone_);
  return {};
}

// --- keeping the connections ------------------------------------------------------------------------------

/// Connects, and lets the connection in where the server is the one we know. On the connection's thread.
Task<Result<void>> Pool::establish(std::shared_ptr<Connection> connection) {
  DISKFERRY_CO_TRY(const ServerInfo now, co_await connection->connect(context_.blocking_pool));
  if (const auto changed = difference(server_, now)) {
    co_await connection->disconnect(disconnect_limit);
    co_return unexpected(fail(ErrorKind::mismatch, "reconnect", endpoint_.name)
                             .why("the server came back with another export: " + *changed)
                             .remedy("check which disk it serves, then start again"));
  }
  if (!connection->go_up())
    co_return unexpected(
        fail(ErrorKind::gone, "reconnect", endpoint_.name).why("the server closed the connection"));
  std::lock_guard lock(guard_);
  last_failure_.clear();
  waiting_.wake_all();
  co_return Result<void>{};
}

/// Tries until it stands, is cancelled, or the server turns out to be another.
Task<Result<void>> Pool::bring_back(std::shared_ptr<Connection> connection) {
  for (Duration back_off = back_off_min;; back_off = std::min(2 * back_off, back_off_max)) {
    auto established = co_await establish(connection);
    if (established) co_return Result<void>{};
    if (established.error().kind() == ErrorKind::mismatch) {
      declare_gone(established.error());
      co_return established;
    }
    if (established.error().kind() == ErrorKind::cancelled) co_return established;
    {
      std::lock_guard lock(guard_);
      last_failure_ =
          established.error().why().empty() ? established.error().message() : established.error().why();
    }
    DISKFERRY_CO_CHECK(co_await context_.clock.sleep_for(back_off));
  }
}

Task<Result<void>> Pool::keep(std::shared_ptr<Connection> connection, bool is_first) {
  if (!is_first) {
    // A server may allow fewer than we would like: then the others do the work.
    auto established = co_await establish(connection);
    if (!established) co_return Result<void>{};
  }
  Duration pause = Duration::zero();
  while (!is_gone_.load()) {
    const TimePoint since = context_.clock.now();
    DISKFERRY_CO_CHECK(co_await connection->wait_until_down());
    // One that is lost as soon as it stands is not brought back in a hurry.
    const bool was_good = context_.clock.now() - since >= good_connection_min;
    pause = was_good ? Duration::zero() : std::clamp(2 * pause, back_off_min, back_off_max);
    DISKFERRY_CO_CHECK(co_await context_.clock.sleep_for(pause));
    DISKFERRY_CO_CHECK(co_await bring_back(connection));
  }
  co_return Result<void>{};
}

Task<Result<void>> Pool::watch_progress(std::shared_ptr<Connection> connection) {
  const Duration tick =
      std::clamp<Duration>(endpoint_.stall_limit / 4, std::chrono::milliseconds(20), std::chrono::seconds(1));
  while (true) {
    DISKFERRY_CO_CHECK(co_await context_.clock.sleep_for(tick));
    connection->check_progress();
  }
}

Task<void> Pool::close() {
  keepers_.cancel();
  (void)co_await keepers_.join();
  const auto finish = [](std::shared_ptr<Connection> connection) -> Task<Result<void>> {
    co_await connection->disconnect(disconnect_limit);
    co_return Result<void>{};
  };
  TaskGroup group(context_.reactors.front());
  for (const auto& connection : connections_) group.spawn_on(connection->executor(), finish(connection));
  // A cancelled caller still waits: the deadline is short, and the handles must be gone when this returns.
  (void)co_await group.join();
}

}  // namespace diskferry::nbd
