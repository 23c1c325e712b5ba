// See the header. The decisions on what a server's answer means are in outcome.hpp.
#include "drivers/nbd/pool.hpp"

#include "drivers/nbd/outcome.hpp"
#include "drivers/support/run_on.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry::nbd {
namespace asio = boost::asio;

namespace {
/// NBD_CMD_DISC has no answer; the server only has to close.
constexpr Duration disconnect_limit = std::chrono::seconds(2);
/// A UNIX socket has no round trip to hide: one connection for each thread that works, and no more. Between
/// two UNIX sockets on 2 cores, 2 GiB verified: 1.5 s with 2 connections, 1.9 s with 4, 3.7 s with 1.
constexpr std::size_t unix_connections_min = 2;
constexpr std::size_t unix_connections_max = 8;
/// Streams that make no sense, one after the other, until a request is given up.
constexpr unsigned garbled_max = 2;

std::size_t connections_for(const ServerInfo& server, const Endpoint& endpoint, unsigned bound,
                            std::size_t reactors) {
  if (!server.can_multi_connection) return 1;  // "clients SHOULD NOT multiplex" (NBD_FLAG_CAN_MULTI_CONN)
  const std::size_t otherwise = endpoint.is_unix()
                                    ? std::clamp(reactors, unix_connections_min, unix_connections_max)
                                    : usual_connections(reactors, connections_max);
  return wanted_connections({.in_uri = endpoint.connections, .bound = bound, .otherwise = otherwise});
}
}  // namespace

Pool::Pool(DriverContext& context, Endpoint endpoint)
    : context_(context),
      endpoint_(std::move(endpoint)),
      sessions_(
          context.reactors, context.clock,
          {.name = endpoint_.name,
           .reconnect_limit = endpoint_.reconnect_limit,
           .stall_limit = endpoint_.stall_limit,
           .connect = [this](std::shared_ptr<Session> session) { return connect(std::move(session)); }}) {}

Task<Result<void>> Pool::open(unsigned wanted) {
  const auto reactors = context_.reactors;
  std::size_t reactor = sessions_.reactor_of(co_await asio::this_coro::executor);
  if (reactor == reactors.size()) reactor = 0;
  const auto first = std::make_shared<Connection>(reactors[reactor], endpoint_, context_.clock, writes_);
  const auto connect = [](std::shared_ptr<Connection> connection,
                          BlockingPool& pool) -> Task<Result<ServerInfo>> {
    auto info = co_await connection->connect(pool);
    if (info) (void)connection->go_up();
    co_return info;
  };
  DISKFERRY_CO_TRY(server_, co_await run_on(first->executor(), connect(first, context_.blocking_pool)));
  const std::size_t count = connections_for(server_, endpoint_, wanted, reactors.size());
  sessions_.add(first, true);
  for (std::size_t i = 1; i < count; ++i)
    sessions_.add(std::make_shared<Connection>(reactors[(reactor + i) % reactors.size()], endpoint_,
                                               context_.clock, writes_),
                  false);
  sessions_.start();
  co_return Result<void>{};
}

// --- requests ---------------------------------------------------------------------------------------------

bool Pool::can_take(const Session& session, const Request& request) const noexcept {
  return request.verb != Verb::flush || static_cast<const Connection&>(session).covers_unflushed();
}

Task<Result<void>> Pool::execute(Request& request) {
  const Executor executor = co_await asio::this_coro::executor;
  const std::size_t reactor = sessions_.reactor_of(executor);
  std::optional<TimePoint> give_up;
  unsigned garbled = 0;
  bool was_sent = false;
  while (true) {
    if ((co_await asio::this_coro::cancellation_state).cancelled() != asio::cancellation_type::none)
      co_return unexpected(cancelled_error(std::string(to_string(request.verb)), endpoint_.name));
    DISKFERRY_CO_CHECK(sessions_.check_gone());
    auto* const connection = static_cast<Connection*>(sessions_.choose(
        reactor, [this, &request](const Session& session) { return can_take(session, request); }));
    if (connection == nullptr) {
      if (request.verb == Verb::flush && sessions_.count_up() != 0) co_return unexpected(flush_not_covered());
      if (!give_up) give_up = sessions_.give_up_time();
      DISKFERRY_CO_CHECK(co_await sessions_.wait_for_session(*give_up));
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
          give_up = sessions_.give_up_time();
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

Error Pool::lost_for_good(const Request& request) const {
  return fail(ErrorKind::gone, std::string(to_string(request.verb)), endpoint_.name)
      .why("the connection is lost again and again" + sessions_.loss_reason())
      .remedy("check the server and the network")
      .at(request.range.offset, request.range.length);
}

Error Pool::flush_not_covered() const {
  return fail(ErrorKind::gone, "flush", endpoint_.name)
      .why(fmt::format(
          "the connection was lost{} between writes and this flush; the server may have lost what "
          "it had acknowledged",
          sessions_.loss_reason()))
      .remedy("open the export again and repeat the writes since the last flush");
}

Task<Result<void>> Pool::connect(std::shared_ptr<Session> session) {
  auto& connection = static_cast<Connection&>(*session);
  DISKFERRY_CO_TRY(const ServerInfo now, co_await connection.connect(context_.blocking_pool));
  if (const auto changed = difference(server_, now)) {
    co_await connection.disconnect(disconnect_limit);
    co_return unexpected(fail(ErrorKind::mismatch, "reconnect", endpoint_.name)
                             .why("the server came back with another export: " + *changed)
                             .remedy("check which disk it serves, then start again"));
  }
  co_return Result<void>{};
}

}  // namespace diskferry::nbd
