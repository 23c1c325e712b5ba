// A round is one turn of the reactor: libnbd is told what the socket is ready for, completes requests into
// done_, and when it has returned (its lock is free again) the waiting coroutines are resumed one by one,
// right here where they live on this thread.
#include "drivers/nbd/connection.hpp"

#include "drivers/nbd/command.hpp"

#include <cerrno>
#include <fmt/format.h>

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/post.hpp>
#include <libnbd.h>

namespace diskferry::nbd {
namespace asio = boost::asio;

namespace {
/// libnbd cannot take back one command; for this long a cancelled one may still finish on its own.
constexpr Duration cancel_limit = std::chrono::seconds(1);
/// A request that gets bytes now and then, but no end, is given up after so many stall limits.
constexpr int stall_limits_per_request = 10;
/// Steps of libnbd, about one recv each, before other work of the reactor gets its turn.
constexpr unsigned steps_per_round = 32;

bool counts_as_unflushed(const Request& request) {
  return (request.verb == Verb::write || request.verb == Verb::write_zeroes) &&
         (request.flags & LIBNBD_CMD_FLAG_FUA) == 0;
}
}  // namespace

Connection::Connection(Executor executor, const Endpoint& endpoint, Clock& clock, WriteCount& writes)
    : Session(executor),
      endpoint_(endpoint),
      clock_(clock),
      writes_(writes),
      watcher_(std::move(executor), [this](FdWatcher::Ready ready) { on_ready(ready); }) {}

Connection::~Connection() {
  DISKFERRY_ASSERT(in_flight_.empty() && queued_.empty() && done_.empty(),
                   "a connection is destroyed with requests in it");
}

void Connection::start(Request& request, Request::Handler handler, const Executor& caller, bool is_local) {
  request.connection = this;
  request.id = next_id_.fetch_add(1, std::memory_order_relaxed);
  request.is_local = is_local;
  request.is_cancelled = false;
  load_.fetch_add(1, std::memory_order_relaxed);
  if (auto slot = asio::get_associated_cancellation_slot(handler); slot.is_connected()) {
    // Runs on the caller's thread while it waits; the request is found by its number, for it may be gone.
    slot.assign([this, id = request.id, is_local](asio::cancellation_type) {
      if (is_local) return cancel(id);
      asio::post(executor(), [self = shared_from_this(), id] { self->cancel(id); });
    });
  }
  request.handler.emplace(std::move(handler));
  if (is_local) return submit(request);
  request.executor = caller;
  asio::post(executor(), [this, &request] { submit(request); });
}

bool Connection::fits(const Request& request) const noexcept {
  return in_flight_count_ == 0 || (in_flight_count_ < requests_in_flight_max &&
                                   in_flight_bytes_ + request.payload_bytes() <= payload_in_flight_max);
}

void Connection::submit(Request& request) {
  if (!is_up()) {
    request.outcome = {Outcome::How::lost};
    done_.push_back(request);
    return end_round_soon();  // never resume a coroutine that is just being suspended
  }
  if (!queued_.empty() || !fits(request)) return queued_.push_back(request);
  issue(request);
  if (!in_round_) update_interest();
}

void Connection::pump() {
  while (is_up() && !queued_.empty() && fits(*queued_.first())) issue(*queued_.pop_front());
}

void Connection::issue(Request& request) {
  if (in_flight_count_ == 0) last_progress_ = clock_.now();
  request.issued = last_progress_;
  const std::uint64_t completed_before = completed_;
  in_flight_.push_back(request);
  ++in_flight_count_;
  in_flight_bytes_ += request.payload_bytes();
  if (request.verb == Verb::flush) request.unflushed_before = writes_.acknowledged.load();
  if (send_command(*handle_, request, on_complete) == -1) {
    const LibraryError error = last_error();
    // Refused before it was queued: libnbd has called nothing and will call nothing. An earlier request may
    // have found the connection dead while it was sent.
    const bool is_dead = nbd_aio_get_direction(handle_.get()) == 0;
    retire(request, is_dead ? Outcome{Outcome::How::lost}
                            : Outcome{Outcome::How::not_sent, error.number != 0 ? error.number : EINVAL});
  }
  if (completed_ == completed_before) return;
  // Something ended while it was sent: then the connection is dead, and must not be chosen again before
  // the round that buries it.
  if (nbd_aio_get_direction(handle_.get()) == 0) is_up_.store(false, std::memory_order_release);
  end_round_soon();
}

/// Takes a request out of flight. It is resumed by deliver_done().
void Connection::retire(Request& request, Outcome outcome) {
  request.outcome = outcome;
  in_flight_.remove(request);
  --in_flight_count_;
  in_flight_bytes_ -= request.payload_bytes();
  ++completed_;
  done_.push_back(request);
}

Outcome Connection::outcome_of(Request& request, int error) {
  if (error == 0) {
    if (request.verb == Verb::read && !has_arrived(request)) return {Outcome::How::broken, EPROTO};
    return {};
  }
  // libnbd's own: the connection ended before an answer; no server can send it (NBD protocol, "Error
  // values").
  if (error == ENOTCONN) return {Outcome::How::lost, error};
  if (error == EPROTO) return {Outcome::How::broken, error};
  return {Outcome::How::refused, error};
}

/// Called by libnbd with its lock held.
int Connection::on_complete(void* user_data, int* error) noexcept {
  auto& request = *static_cast<Request*>(user_data);
  Connection& self = *request.connection;
  Outcome outcome = outcome_of(request, *error);
  if (outcome.how == Outcome::How::done) {
    if (counts_as_unflushed(request)) {
      self.writes_.acknowledged.fetch_add(1);
    } else if (request.verb == Verb::flush) {
      // Flushes may be answered out of order: the count never goes back.
      std::uint64_t before = self.writes_.flushed.load();
      while (before < request.unflushed_before &&
             !self.writes_.flushed.compare_exchange_weak(before, request.unflushed_before)) {
      }
    }
  } else if (outcome.how == Outcome::How::refused && outcome.error_number == ESHUTDOWN) {
    self.server_shuts_down_ = true;
    outcome = {Outcome::How::lost, ESHUTDOWN};
  }
  self.retire(request, outcome);
  return 1;  // libnbd forgets the command
}

void Connection::on_ready(FdWatcher::Ready ready) {
  const auto self = shared_from_this();
  nbd_handle* const handle = handle_.get();
  int failed = 0;
  for (unsigned i = 0; i < steps_per_round; ++i) {
    // Never read on trust: libnbd, told to read where there is nothing, stays in that state and sends nothing
    // until there is; a half-sent write would wait for its own answer.
    ready.readable = watcher_.is_readable();
    if (!ready.readable && !ready.writable) break;
    const unsigned direction = nbd_aio_get_direction(handle);
    // Reading goes first: it may be what the server waits for before it takes more from us.
    if (ready.readable && (direction & LIBNBD_AIO_DIRECTION_READ) != 0) {
      failed = nbd_aio_notify_read(handle);
    } else if (ready.writable && (direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) {
      failed = nbd_aio_notify_write(handle);
      ready.writable = false;
    }
    if (failed != 0 || phase_ != Phase::ready || in_flight_count_ == 0) break;
  }
  if (phase_ == Phase::connecting) return go_on_negotiating(failed != 0);
  if (phase_ == Phase::closing) {
    if (failed != 0 || nbd_aio_get_direction(handle) == 0) return settle();
    return update_interest();
  }
  last_progress_ = clock_.now();
  if (failed != 0) {
    const LibraryError error = last_error();
    const bool is_network = error.number != 0 || error.text.find("disconnected") != std::string::npos ||
                            error.text.find("gnutls") != std::string::npos;
    return lose(is_network ? Outcome::How::lost : Outcome::How::garbled, error.text);
  }
  end_round();
}

void Connection::end_round_soon() {
  if (round_is_posted_) return;
  round_is_posted_ = true;
  asio::post(executor(), [self = shared_from_this()] {
    self->round_is_posted_ = false;
    self->end_round();
  });
}

void Connection::end_round() {
  if (phase_ == Phase::ready && has_gone_up_) {
    if (server_shuts_down_) return lose(Outcome::How::lost, "the server says that it shuts down");
    if (nbd_aio_get_direction(handle_.get()) == 0)
      return lose(Outcome::How::lost, "the server closed the connection");
  }
  deliver_done();
  if (is_up()) update_interest();
}

void Connection::update_interest() {
  const unsigned direction = nbd_aio_get_direction(handle_.get());
  watcher_.want((direction & LIBNBD_AIO_DIRECTION_READ) != 0, (direction & LIBNBD_AIO_DIRECTION_WRITE) != 0);
}

void Connection::deliver_done() {
  in_round_ = true;
  while (Request* const request = done_.pop_front()) {
    deliver(*request);
    pump();
  }
  pump();
  in_round_ = false;
}

void Connection::deliver(Request& request) {
  load_.fetch_sub(1, std::memory_order_relaxed);
  Request::Handler handler = std::move(*request.handler);
  request.handler.reset();
  const Outcome outcome = request.outcome;
  if (request.is_local) {
    std::move(handler)(outcome);  // the coroutine runs; the request may be gone when it returns
  } else {
    const Executor caller = request.executor;
    asio::post(caller, [handler = std::move(handler), outcome]() mutable { std::move(handler)(outcome); });
  }
}

/// Ends the connection at once. When libnbd has closed its handle it touches no memory of ours any more, and
/// whoever waits learns that his request is lost.
void Connection::lose(Outcome::How how, std::string reason) {
  const auto self = shared_from_this();
  is_up_.store(false, std::memory_order_release);
  phase_ = Phase::closed;
  watcher_.stop();
  handle_.reset();
  for (Request* one = done_.first(); one != nullptr; one = one->next) {
    if (one->outcome.how == Outcome::How::lost) one->outcome.how = how;
  }
  while (Request* const request = in_flight_.first()) retire(*request, {how});
  while (Request* const request = queued_.pop_front()) {
    request->outcome = {Outcome::How::lost};
    done_.push_back(*request);
  }
  {
    std::lock_guard lock(guard_);
    loss_reason_ = std::move(reason);
    down_.wake_all();
  }
  deliver_done();
}

void Connection::cancel(std::uint64_t id) {
  if (Request* const waiting = queued_.find(id); waiting != nullptr) {
    queued_.remove(*waiting);
    waiting->outcome = {Outcome::How::withdrawn};
    done_.push_back(*waiting);
    return end_round_soon();
  }
  if (Request* const flying = in_flight_.find(id); flying != nullptr) {
    flying->is_cancelled = true;
    flying->issued = clock_.now();  // from now on: since when it has been cancelled
  }
}

void Connection::check_progress() {
  if (phase_ != Phase::ready || !is_up() || in_flight_.empty()) return;
  const TimePoint now = clock_.now();
  if (now - last_progress_ > endpoint_.stall_limit)
    return lose(Outcome::How::lost,
                fmt::format("no sign of life from the server for {} s",
                            std::chrono::duration<double>(endpoint_.stall_limit).count()));
  for (const Request* one = in_flight_.first(); one != nullptr; one = one->next) {
    if (one->is_cancelled && now - one->issued > cancel_limit)
      return lose(Outcome::How::lost, "a cancelled request was not answered");
    if (now - one->issued > stall_limits_per_request * endpoint_.stall_limit)
      return lose(Outcome::How::lost,
                  fmt::format("the server does not finish a request to {}", to_string(one->verb)));
  }
}

Task<Result<void>> Connection::wait_until_down() {
  std::unique_lock lock(guard_);
  while (phase_ == Phase::ready) {
    if (!co_await down_.wait(lock)) co_return unexpected(cancelled_error("wait for connection"));
    lock.lock();
  }
  co_return Result<void>{};
}

std::string Connection::loss_reason() const {
  std::lock_guard lock(guard_);
  return loss_reason_;
}

}  // namespace diskferry::nbd
