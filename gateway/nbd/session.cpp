// The phases of a session: negotiation, transmission, the end.
#include "gateway/nbd/session.hpp"

#include "diskferry/assert.hpp"

#include <algorithm>
#include <cstring>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry::nbd_server {
namespace asio = boost::asio;

namespace {
/// Holds what a client with 32 small writes in flight sends in one go.
constexpr std::size_t input_bytes = 256u << 10;
/// Batches served before others on this reactor have their turn.
constexpr unsigned batches_before_yield = 8;
}  // namespace

Session::Session(SessionContext& context, std::unique_ptr<Stream> stream, SessionOptions options)
    : context_(context),
      executor_(options.executor),
      stream_(std::move(stream)),
      tls_mode_(options.tls_mode),
      direct_tls_(options.direct_tls),
      input_(std::make_unique_for_overwrite<std::byte[]>(input_bytes)),
      reserve_(context.limits.reserve_bytes),
      requests_(executor_),
      senders_(executor_) {}

Session::~Session() = default;

void Session::stop() {
  stopping_.store(true);
  asio::post(executor_, [self = shared_from_this()] {
    self->stream_->wake();
    if (self->memory_wait_ != nullptr) self->memory_wait_->cancel();
    self->notify_progress();
  });
}

ExportPtr Session::entered() const {
  std::lock_guard lock(entered_guard_);
  return entered_;
}

Task<Result<void>> Session::run() {
  auto agreed =
      co_await with_deadline(context_.clock, context_.limits.handshake_time, "negotiate", negotiate());
  if (!agreed || !export_) {
    stream_->say_goodbye();
    leave();
    co_await linger();
    co_return agreed;
  }
  senders_.spawn(watch_for_stall());
  auto served = co_await transmit();
  co_await finish();
  leave();
  co_await linger();
  if (!served) co_return served;
  if (!problem_.empty())
    co_return unexpected(fail(ErrorKind::gone, "serve client", printable(export_->name())).why(problem_));
  co_return Result<void>{};
}

void Session::leave() {
  {
    std::lock_guard lock(entered_guard_);
    entered_.reset();
  }
  terms_.entry = Entry();
}

Task<Result<void>> Session::negotiate() {
  Handshake handshake(context_.exports, context_.limits, tls_mode_);
  if (direct_tls_) {
    DISKFERRY_CO_TRY(PeerIdentity peer, co_await stream_->start_tls(*context_.tls));
    handshake.tls_started(std::move(peer));
  }
  co_return co_await negotiate_options(handshake);
}

Task<Result<void>> Session::negotiate_options(Handshake& handshake) {
  std::vector<std::byte> output;
  handshake.greet(output);
  while (true) {
    std::size_t used = 0;
    const auto step = handshake.consume(buffered(), used, output);
    begin_ += used;
    if (step == Handshake::Step::transmission) {
      // Before the client learns of it, so that disconnect() finds everybody who believes to be inside.
      terms_ = handshake.take_terms();
      std::lock_guard lock(entered_guard_);
      entered_ = terms_.entry.get();
    }
    auto sent = co_await send_all(std::exchange(output, {}));
    if (step == Handshake::Step::closed) {
      // A client that gives up may be gone before it got the answer.
      if (handshake.problem().empty()) co_return Result<void>{};
      co_return unexpected(fail(ErrorKind::protocol, "negotiate").why(handshake.problem()));
    }
    DISKFERRY_CO_CHECK(std::move(sent));
    if (step == Handshake::Step::start_tls) {
      // What arrived before TLS stands was sent by who knows whom.
      begin_ = end_ = 0;
      DISKFERRY_CO_TRY(PeerIdentity peer, co_await stream_->start_tls(*context_.tls));
      handshake.tls_started(std::move(peer));
      continue;
    }
    if (step == Handshake::Step::transmission) {
      export_ = terms_.entry.get();
      co_return Result<void>{};
    }
    if (stopping_.load() || co_await is_cancelled()) co_return unexpected(cancelled_error("negotiate"));
    const auto got = fill_input();
    if (got.status == Stream::Status::would_block) {
      (void)co_await stream_->wait_readable();
    } else if (got.status == Stream::Status::ended) {
      co_return Result<void>{};  // looked in and left, as port checkers do
    } else if (got.status == Stream::Status::failed) {
      co_return unexpected(fail(ErrorKind::gone, "negotiate").why(stream_->problem()));
    }
  }
}

Task<Result<void>> Session::send_all(std::vector<std::byte> bytes) {
  std::span<const std::byte> left = bytes;
  while (!left.empty() || stream_->has_pending()) {
    const iovec one{const_cast<std::byte*>(left.data()), left.size()};
    const auto sent = stream_->write_some({&one, left.empty() ? 0u : 1u});
    if (sent.status == Stream::Status::failed)
      co_return unexpected(fail(ErrorKind::gone, "send").why(stream_->problem()));
    left = left.subspan(sent.bytes);
    if ((sent.status == Stream::Status::would_block || stream_->has_pending()) &&
        !co_await stream_->wait_writable() && (stopping_.load() || co_await is_cancelled()))
      co_return unexpected(cancelled_error("send"));
  }
  co_return Result<void>{};
}

Stream::Transfer Session::fill_input() {
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (begin_ != 0 && input_bytes - end_ < input_bytes / 2) {
    std::memmove(input_.get(), input_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  DISKFERRY_ASSERT(end_ < input_bytes, "what is parsed fits the input buffer");
  const auto got = stream_->read_some({input_.get() + end_, input_bytes - end_});
  end_ += got.bytes;
  return got;
}

Task<Result<void>> Session::transmit() {
  unsigned batches = 0;
  while (!stopping_.load(std::memory_order_relaxed) && !broken_) {
    const Pause pause = serve_buffered();
    flush_output();
    if (pause == Pause::ended) break;
    if (++batches % batches_before_yield == 0)
      co_await asio::post(executor_, asio::use_awaitable_t<Executor>{});
    if (pause == Pause::large_write) {
      DISKFERRY_CO_CHECK(co_await receive_large_write());
      continue;
    }
    if (pause == Pause::blocked) {
      if (is_blocked()) co_await wait_for_progress();
      if (co_await is_cancelled()) break;
      continue;
    }
    const auto got = fill_input();
    if (got.status == Stream::Status::would_block) {
      (void)co_await stream_->wait_readable();
      if (co_await is_cancelled()) break;
    } else if (got.status == Stream::Status::ended) {
      break;
    } else if (got.status == Stream::Status::failed) {
      break_off(stream_->problem());
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Session::receive_large_write() {
  const Request request = large_write_;
  const auto length = static_cast<std::size_t>(request.length);
  DISKFERRY_CO_TRY(Buffer payload, co_await acquire_or_stop(length));
  if (!payload) co_return Result<void>{};
  std::size_t there = std::min(length, end_ - begin_);
  std::memcpy(payload.data(), input_.get() + begin_, there);
  begin_ += there;
  start_to_hold(receiving_payload_);
  while (there < length) {
    const auto got = stream_->read_some(payload.span().subspan(there, length - there));
    there += got.bytes;
    moved(got.bytes);
    if (got.status == Stream::Status::would_block) {
      (void)co_await stream_->wait_readable();
      // The rest of a payload that is on its way when we stop is not waited for: the client sends it again.
      if (stopping_.load() || broken_ || co_await is_cancelled()) co_return Result<void>{};
    } else if (got.status == Stream::Status::ended) {
      break_off("the client left in the middle of a write");
      co_return Result<void>{};
    } else if (got.status == Stream::Status::failed) {
      break_off(stream_->problem());
      co_return Result<void>{};
    }
  }
  receiving_payload_ = false;
  finish_large_write(request, std::move(payload));
  flush_output();
  co_return Result<void>{};
}

namespace {
Task<Result<void>> join_group(TaskGroup& group) {
  co_return co_await group.join();
}
}  // namespace

Task<void> Session::finish() {
  // The end comes with its own deadlines, whether we were cancelled or not.
  co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
  stopping_.store(true);
  was_busy_ = in_flight_ != 0 || !output_.empty();
  const TimePoint deadline = context_.clock.now() + context_.limits.drain_time;
  auto drained = co_await with_deadline(context_.clock, context_.limits.drain_time, "finish requests",
                                        join_group(requests_));
  if (!drained && drained.error().kind() == ErrorKind::timed_out)
    break_off("requests in flight did not end in time and were cancelled");
  flush_output();
  while (!broken_ && (!output_.empty() || stream_->has_pending()) && context_.clock.now() < deadline) {
    (void)co_await with_deadline(context_.clock, deadline - context_.clock.now(), "send replies",
                                 drain_output());
  }
  stream_->say_goodbye();
  senders_.cancel();
  (void)co_await senders_.join();
}

void Session::start_to_hold(bool& what) {
  if (!write_blocked_ && !receiving_payload_) {
    last_progress_ = context_.clock.now();
    moved_bytes_ = 0;
  }
  what = true;
}

void Session::moved(std::size_t bytes) {
  moved_bytes_ += bytes;
  if (moved_bytes_ < context_.limits.stall_bytes) return;
  last_progress_ = context_.clock.now();
  moved_bytes_ = 0;
}

Task<Result<void>> Session::watch_for_stall() {
  const Duration limit = context_.limits.stall_time;
  while (!broken_) {
    DISKFERRY_CO_CHECK(co_await context_.clock.sleep_for(limit / 4));
    if (context_.clock.now() - last_progress_ <= limit) continue;
    if (write_blocked_) break_off("the client did not read its replies");
    if (receiving_payload_) break_off("the client stopped in the middle of a write");
  }
  co_return Result<void>{};
}

Task<void> Session::linger() {
  if (broken_ || (!was_busy_ && begin_ == end_ && !stream_->has_unread())) co_return;
  co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
  const TimePoint until = context_.clock.now() + context_.limits.linger_time;
  while (context_.clock.now() < until) {
    const auto status = stream_->discard_some();
    if (status == Stream::Status::done) {
      co_await asio::post(executor_, asio::use_awaitable_t<Executor>{});
    } else if (status == Stream::Status::would_block) {
      (void)co_await with_deadline(context_.clock, until - context_.clock.now(), "wait for the client's end",
                                   wait_for_input());
    } else {
      co_return;
    }
  }
}

Task<Result<void>> Session::wait_for_input() {
  (void)co_await stream_->wait_readable();
  co_return Result<void>{};
}

Task<Result<Buffer>> Session::acquire(std::size_t bytes) {
  if (Buffer now = context_.buffers.try_acquire(bytes)) co_return now;
  if (bytes <= reserve_.limit_bytes()) co_return co_await reserve_.acquire(bytes);
  co_return co_await context_.buffers.acquire(bytes);
}

Task<Result<void>> Session::acquire_into(std::size_t bytes, Buffer& into) {
  DISKFERRY_CO_TRY(into, co_await acquire(bytes));
  co_return Result<void>{};
}

/// Empty when the session stops: what it waits for may be held by replies that its own client does not read.
Task<Result<Buffer>> Session::acquire_or_stop(std::size_t bytes) {
  if (Buffer now = context_.buffers.try_acquire(bytes)) co_return now;
  Buffer later;
  TaskGroup wait(executor_);
  wait.spawn(acquire_into(bytes, later));
  memory_wait_ = &wait;
  if (stopping_.load() || broken_) wait.cancel();
  auto waited = co_await wait.join();
  memory_wait_ = nullptr;
  if (stopping_.load() || broken_) co_return Buffer();
  if (!waited) co_return unexpected(std::move(waited).error());
  co_return later;
}

bool Session::is_blocked() const {
  return output_.bytes() + status_bytes_in_flight_ >= context_.limits.output_bytes_max ||
         in_flight_ >= context_.limits.requests_in_flight_max ||
         bytes_in_flight_ >= context_.limits.request_bytes_in_flight_max;
}

Task<void> Session::wait_for_progress() {
  std::unique_lock lock(progress_guard_);
  if (stopping_.load() || broken_) co_return;
  (void)co_await progress_waiters_.wait(lock);
}

void Session::notify_progress() {
  std::lock_guard lock(progress_guard_);
  progress_waiters_.wake_all();
}

void Session::break_off(std::string problem) {
  if (broken_) return;
  broken_ = true;
  problem_ = std::move(problem);
  output_.clear();
  stream_->wake();
  if (memory_wait_ != nullptr) memory_wait_->cancel();
  notify_progress();
}

}  // namespace diskferry::nbd_server
