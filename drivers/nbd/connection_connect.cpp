// How a connection comes up and goes down: libnbd connects and negotiates step by step, as the socket becomes
// ready, until there is a result. Requests are in connection.cpp.
#include "diskferry/assert.hpp"
#include "drivers/nbd/connection.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "drivers/support/host_lookup.hpp"

#include <cerrno>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <libnbd.h>

namespace diskferry::nbd {
namespace {
/// Finds out about a peer that vanished while nothing is in flight: first probe after 30 s, then two more.
void keep_alive(int fd) {
  const auto set = [fd](int level, int option, int value) {
    (void)setsockopt(fd, level, option, &value, sizeof value);  // not a TCP socket: fine
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 30);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
}
}  // namespace

Task<Result<ServerInfo>> Connection::connect(BlockingPool& blocking_pool) {
  DISKFERRY_ASSERT(phase_ == Phase::closed, "connecting twice");
  server_text_.clear();
  negotiation_error_.reset();
  is_settled_ = has_asked_for_export_ = has_gone_up_ = server_shuts_down_ = false;
  DISKFERRY_CO_TRY(handle_, make_handle(endpoint_, server_text_));
  auto negotiated =
      co_await with_deadline(clock_, endpoint_.connect_limit, "connect", negotiate(blocking_pool));
  if (negotiated) negotiated = check_tls(endpoint_);
  auto info = negotiated ? server_info(*handle_) : Result<ServerInfo>(std::unexpected(negotiated.error()));
  if (!info) {
    phase_ = Phase::closed;
    watcher_.stop();
    handle_.reset();
    Error error = std::move(info).error();
    if (error.kind() == ErrorKind::timed_out)
      co_return unexpected(
          std::move(error)
              .object(endpoint_.name)
              .why(fmt::format("no NBD greeting within {} s",
                               std::chrono::duration<double>(endpoint_.connect_limit).count()))
              .remedy("check that the server is reachable and has a connection free"));
    co_return unexpected(error.object().empty() ? std::move(error).object(endpoint_.name) : std::move(error));
  }
  nbd_set_debug(handle_.get(), false);  // the log served the server's sentences; data needs none
  nbd_clear_debug_callback(handle_.get());
  keep_alive(nbd_aio_get_fd(handle_.get()));
  phase_ = Phase::ready;
  co_return *std::move(info);
}

Task<Result<void>> Connection::negotiate(BlockingPool& blocking_pool) {
  if (endpoint_.is_unix()) {
    DISKFERRY_CO_CHECK(start_connecting(*handle_, endpoint_));
  } else {
    // First without libnbd, so that the deadline holds while the resolver is silent; then its own lookup is
    // short.
    if (auto found = co_await look_up_host(endpoint_.host); !found)
      co_return unexpected(std::move(found).error().in("connect to " + endpoint_.name));
    DISKFERRY_CO_CHECK(co_await blocking_pool.run([this] { return start_connecting(*handle_, endpoint_); }));
  }
  phase_ = Phase::connecting;
  go_on_negotiating(false);
  DISKFERRY_CO_CHECK(co_await wait_until_settled());
  if (negotiation_error_) co_return unexpected(explain(endpoint_, *negotiation_error_, server_text_));
  co_return Result<void>{};
}

int Connection::on_negotiated(void* user_data, int* error) noexcept {
  auto& self = *static_cast<Connection*>(user_data);
  if (*error != 0 && !self.negotiation_error_) self.negotiation_error_ = last_error();
  return 1;
}

/// After each step of libnbd while connecting: is there a result, and if not, what is it waiting for?
void Connection::go_on_negotiating(bool failed) {
  if (failed && !negotiation_error_) negotiation_error_ = last_error();
  nbd_handle* const handle = handle_.get();
  if (!negotiation_error_ && !has_asked_for_export_ && nbd_aio_is_negotiating(handle) == 1) {
    has_asked_for_export_ = true;
    if (nbd_aio_opt_go(handle, {.callback = on_negotiated, .user_data = this, .free = nullptr}) != 0)
      negotiation_error_ = last_error();
  }
  if (negotiation_error_ || nbd_aio_is_ready(handle) == 1) return settle();
  if (nbd_aio_is_dead(handle) == 1 || nbd_aio_is_closed(handle) == 1) {
    // Closed in order while negotiating: libnbd itself said goodbye, which it does where TLS is refused.
    const bool is_refused = endpoint_.is_tls && nbd_aio_is_closed(handle) == 1;
    negotiation_error_ = is_refused ? LibraryError{ENOTSUP, "the server refused TLS"}
                                    : LibraryError{ECONNRESET, "the server closed the connection"};
    return settle();
  }
  if (auto watched = watcher_.watch(nbd_aio_get_fd(handle)); !watched) {
    negotiation_error_ = {watched.error().cause().value(), watched.error().message()};
    return settle();
  }
  update_interest();
}

void Connection::settle() {
  watcher_.want(false, false);
  std::lock_guard lock(guard_);
  is_settled_ = true;
  settled_.wake_all();
}

Task<Result<void>> Connection::wait_until_settled() {
  std::unique_lock lock(guard_);
  while (!is_settled_) {
    if (!co_await settled_.wait(lock)) co_return unexpected(cancelled_error("connect", endpoint_.name));
    lock.lock();
  }
  co_return Result<void>{};
}

bool Connection::go_up() {
  if (phase_ != Phase::ready) return false;
  last_progress_ = clock_.now();
  // Writes acknowledged until now were taken by a server that need not be the one at the other end.
  established_.store(writes_.acknowledged.load());
  has_gone_up_ = true;
  is_up_.store(true, std::memory_order_release);
  end_round_soon();  // the server may have closed it meanwhile
  return true;
}

Task<void> Connection::disconnect(Duration limit) {
  is_up_.store(false);
  if (phase_ == Phase::ready) {
    phase_ = Phase::closing;
    is_settled_ = false;
    if (nbd_aio_disconnect(handle_.get(), 0) == 0 && nbd_aio_get_direction(handle_.get()) != 0) {
      update_interest();
      // The answer is the server's closing: nothing depends on it.
      (void)co_await with_deadline(clock_, limit, "disconnect", wait_until_settled());
    }
  }
  phase_ = Phase::closed;
  watcher_.stop();
  handle_.reset();
}

}  // namespace diskferry::nbd
