// The window towards its target: senders, flushes and the end. See window.hpp.
#include "diskferry/assert.hpp"
#include "gateway/mirror/window.hpp"

#include <algorithm>
#include <cstring>

namespace diskferry {

// --- senders ----------------------------------------------------------------------------------------------

/// Takes the next request only when it may go: until then newer writes can take the place of what waits.
Task<Result<void>> Window::send_loop(std::size_t sender) {
  while (true) {
    {
      std::unique_lock lock(guard_);
      if (is_stopped_) co_return Result<void>{};
      if (!pending_.has_ready()) {
        if (!co_await work_.wait(lock)) co_return Result<void>{};
        continue;
      }
    }
    // One byte is the price of admission; the rest is owed when it is known.
    if (!limit_.try_take(1) && !co_await limit_.take(1)) co_return Result<void>{};
    Buffer buffer = context_.buffers.try_acquire(request_bytes_);
    Flight flight;
    {
      std::lock_guard lock(guard_);
      if (is_stopped_) co_return Result<void>{};
      if (pending_.take(flight, static_cast<bool>(buffer))) flying_since_[sender] = flight.since;
      if (pending_.has_ready()) work_.wake_one();
    }
    if (!flight.is_gathered) buffer.reset();
    if (flight.count == 0) continue;
    if (!flight.is_zero || !zero_is_free_) limit_.owe(flight.range.length);
    landed(flight, co_await top_frame(send(flight, buffer.span())), sender);
  }
}

Task<Result<void>> Window::send(const Flight& flight, std::span<std::byte> buffer) {
  if (flight.is_zero) co_return co_await target_->write_zeroes(flight.range, {});
  std::span<const std::byte> content(flight.content[0], flight.range.length);
  if (flight.is_gathered) {
    for (std::size_t i = 0; i < flight.count; ++i) {
      const std::size_t begin = i * block_bytes_;
      const std::size_t bytes = std::min<std::size_t>(block_bytes_, flight.range.length - begin);
      if (flight.content[i] != nullptr) {
        std::memcpy(buffer.data() + begin, flight.content[i], bytes);
      } else {
        std::memset(buffer.data() + begin, 0, bytes);
      }
    }
    content = buffer.first(flight.range.length);
  }
  co_return co_await target_->write(flight.range.offset, content, {.in_background = true});
}

void Window::landed(const Flight& flight, const Result<void>& result, std::size_t sender) {
  std::lock_guard lock(guard_);
  pending_.landed(flight, result.has_value());
  flying_since_[sender] = TimePoint::max();
  ++landings_;
  if (result) {
    if (!flight.is_zero) meter_.add(context_.clock.now(), flight.range.length);
  } else if (!is_stopped_) {
    fail_with(result.error().with_step("send what was written to the target"));
  }
  ++changes_;
  changes_queue_.wake_all();
  advance_barriers();
  if (pending_.has_ready()) work_.wake_one();
}

// --- failure ----------------------------------------------------------------------------------------------

/// guard_ is held.
Result<void> Window::check_usable() const {
  if (failure_) return unexpected(*failure_);
  if (is_stopped_)
    return unexpected(fail(ErrorKind::gone, "use the window", info_.name).why("the move has ended"));
  return {};
}

Result<void> Window::check_usable_now() const {
  std::lock_guard lock(guard_);
  return check_usable();
}

/// guard_ is held.
void Window::fail_with(const Error& error) {
  if (!failure_) failure_ = error;
  pending_.drop_queued();
  wake_everybody();
}

/// guard_ is held.
void Window::wake_everybody() {
  ++changes_;
  changes_queue_.wake_all();
  barriers_.wake_all();
}

std::optional<Error> Window::failure() const {
  std::lock_guard lock(guard_);
  return failure_;
}

// --- flushing ---------------------------------------------------------------------------------------------

/// One barrier at a time: flushes that come while one is waited for share the next. guard_ is held.
void Window::advance_barriers() {
  while (pending_.old_left() == 0) {
    if (barrier_done_ != barrier_begun_) {
      barrier_done_ = barrier_begun_;
      barriers_.wake_all();
    }
    if (barrier_wanted_ <= barrier_begun_) return;
    ++barrier_begun_;
    pending_.begin_barrier();
  }
}

/// One behind everything acknowledged before. guard_ is held.
std::uint64_t Window::want_barrier() {
  const std::uint64_t wanted = barrier_begun_ + 1;
  barrier_wanted_ = std::max(barrier_wanted_, wanted);
  advance_barriers();
  return wanted;
}

std::uint64_t Window::mark() {
  std::lock_guard lock(guard_);
  return want_barrier();
}

bool Window::has_settled(std::uint64_t mark) const {
  std::lock_guard lock(guard_);
  return barrier_done_ >= mark && check_usable();
}

/// Waits until everything acknowledged before has been sent.
Task<Result<void>> Window::settle() {
  std::unique_lock lock(guard_);
  const std::uint64_t wanted = want_barrier();
  while (true) {
    DISKFERRY_CO_CHECK(check_usable());
    if (barrier_done_ >= wanted) co_return Result<void>{};
    if (!co_await barriers_.wait(lock)) co_return unexpected(cancelled_error("flush", info_.name));
    lock.lock();
  }
}

Task<Result<void>> Window::make_durable() {
  DISKFERRY_CO_CHECK(co_await settle());
  std::uint32_t ticket = 0;
  std::uint64_t landed_before = 0;
  {
    std::lock_guard lock(guard_);
    if (durable_to_ == landings_) co_return Result<void>{};
    landed_before = landings_;
    ticket = table_->flush_begins();
  }
  auto flushed = co_await target_->flush();
  std::lock_guard lock(guard_);
  // After a failed flush nobody knows what is durable, whatever a later one says.
  if (!flushed && flushed.error().kind() != ErrorKind::cancelled && !is_stopped_)
    fail_with(flushed.error().with_step("flush the target"));
  DISKFERRY_CO_CHECK(check_usable());
  if (!flushed) co_return flushed;
  table_->flush_done(ticket);
  durable_to_ = std::max(durable_to_.value_or(0), landed_before);
  co_return Result<void>{};
}

Task<Result<void>> Window::flush() {
  DISKFERRY_CO_CHECK(co_await make_durable());
  {
    std::lock_guard lock(guard_);
    ++flushes_;
  }
  if (before_flush_returns_) co_return co_await before_flush_returns_();
  co_return Result<void>{};
}

Task<Result<void>> Window::drain() {
  std::unique_lock lock(guard_);
  while (true) {
    DISKFERRY_CO_CHECK(check_usable());
    if (pending_.is_empty()) co_return Result<void>{};
    if (!co_await changes_queue_.wait(lock)) co_return unexpected(cancelled_error("drain", info_.name));
    lock.lock();
  }
}

}  // namespace diskferry
