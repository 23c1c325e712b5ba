// The fast path is a mutex and arithmetic. Who has to wait queues for `turn_`; only the first in the queue
// sleeps, in a group of its own, so that a change of rate can wake it to look again.
#include "drivers/filters/rate.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/task_group.hpp"

#include <algorithm>
#include <cmath>

namespace diskferry {
namespace {

constexpr double burst_s = 0.1;  // long enough for a timer's slack, short enough not to be seen as a burst

double burst_of(std::uint64_t bytes_per_s, std::uint64_t burst_bytes) {
  return burst_bytes != 0 ? static_cast<double>(burst_bytes) : static_cast<double>(bytes_per_s) * burst_s;
}

Task<Result<void>> sleep_until(Clock& clock, TimePoint time) {
  co_return co_await clock.sleep_until(time);
}

}  // namespace

RateLimit::RateLimit(Clock& clock, std::uint64_t bytes_per_s, std::uint64_t burst_bytes)
    : clock_(clock),
      bytes_per_s_(bytes_per_s),
      burst_bytes_(burst_of(bytes_per_s, burst_bytes)),
      balance_bytes_(burst_bytes_),
      settled_(clock.now()) {}

void RateLimit::settle(TimePoint now) {
  if (now <= settled_) return;
  const double passed_s = std::chrono::duration<double>(now - settled_).count();
  balance_bytes_ = std::min(burst_bytes_, balance_bytes_ + passed_s * static_cast<double>(bytes_per_s_));
  settled_ = now;
}

void RateLimit::set_rate(std::uint64_t bytes_per_s, std::uint64_t burst_bytes) {
  std::lock_guard lock(guard_);
  settle(clock_.now());
  bytes_per_s_ = bytes_per_s;
  burst_bytes_ = burst_of(bytes_per_s, burst_bytes);
  balance_bytes_ = std::min(balance_bytes_, burst_bytes_);
  if (sleeper_ != nullptr) sleeper_->cancel();
}

std::uint64_t RateLimit::bytes_per_s() const {
  std::lock_guard lock(guard_);
  return bytes_per_s_;
}

bool RateLimit::take_now(std::uint64_t bytes) {
  if (bytes_per_s_ == 0) return true;
  settle(clock_.now());
  if (balance_bytes_ < 0) return false;
  balance_bytes_ -= static_cast<double>(bytes);
  return true;
}

/// When nothing is owed any more: rounded up, so that the sleep ends after it and not just before.
TimePoint RateLimit::paid_at() const {
  const double owed_s = -balance_bytes_ / static_cast<double>(bytes_per_s_);
  constexpr double longest_s = 1e9;  // some decades, well inside Duration
  return Clock::after(settled_,
                      Duration(static_cast<Duration::rep>(std::ceil(std::min(owed_s, longest_s) * 1e9))));
}

bool RateLimit::try_take(std::uint64_t bytes) {
  std::lock_guard lock(guard_);
  return waiting_ == 0 && take_now(bytes);
}

void RateLimit::owe(std::uint64_t bytes) {
  std::lock_guard lock(guard_);
  if (bytes_per_s_ == 0) return;
  settle(clock_.now());
  balance_bytes_ -= static_cast<double>(bytes);
}

void RateLimit::give_back(std::uint64_t bytes) {
  std::lock_guard lock(guard_);
  if (bytes_per_s_ != 0) balance_bytes_ = std::min(burst_bytes_, balance_bytes_ + static_cast<double>(bytes));
}

Task<Result<void>> RateLimit::take(std::uint64_t bytes) {
  {
    std::lock_guard lock(guard_);
    if (waiting_ == 0 && take_now(bytes)) co_return Result<void>{};
    ++waiting_;
  }
  // Counts us out however this ends, so that the fast path is open again when nobody waits.
  struct Waiting {
    RateLimit& limit;
    ~Waiting() {
      std::lock_guard lock(limit.guard_);
      --limit.waiting_;
    }
  } const waiting{*this};
  DISKFERRY_CO_TRY(const AsyncMutex::Lock turn, co_await turn_.lock());
  while (true) {
    if (co_await is_cancelled()) co_return unexpected(cancelled_error("wait for the rate limit"));
    TaskGroup nap(co_await boost::asio::this_coro::executor);
    {
      std::lock_guard lock(guard_);
      if (take_now(bytes)) co_return Result<void>{};
      nap.spawn(sleep_until(clock_, paid_at()));
      sleeper_ = &nap;
    }
    // Ends when the debt is paid, when the rate changes, or when we are cancelled: the loop looks which.
    (void)co_await nap.join();
    std::lock_guard lock(guard_);
    sleeper_ = nullptr;
  }
}

namespace {

class RateDevice final : public BlockDevice {
 public:
  RateDevice(std::shared_ptr<BlockDevice> inner, std::shared_ptr<RateLimit> limit)
      : inner_(std::move(inner)), limit_(std::move(limit)) {}

  const DeviceInfo& info() const noexcept override { return inner_->info(); }
  std::uint64_t size_bytes() const noexcept override { return inner_->size_bytes(); }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    if (!limit_->try_take(into.size())) DISKFERRY_CO_CHECK(co_await limit_->take(into.size()));
    co_return co_await inner_->read(offset, into);
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    if (!limit_->try_take(from.size())) DISKFERRY_CO_CHECK(co_await limit_->take(from.size()));
    co_return co_await inner_->write(offset, from, flags);
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    co_return co_await inner_->write_zeroes(range, flags);
  }
  Task<Result<void>> discard(Range range) override { co_return co_await inner_->discard(range); }
  Task<Result<void>> flush() override { co_return co_await inner_->flush(); }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    co_return co_await inner_->extents(range, extents_max);
  }
  Task<Result<void>> close() override { co_return co_await inner_->close(); }

  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override {
    if (!limit_->try_take(into.size())) return std::nullopt;
    auto done = inner_->try_read(offset, into);
    if (!done) limit_->give_back(into.size());
    return done;
  }
  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from) override {
    if (!limit_->try_take(from.size())) return std::nullopt;
    auto done = inner_->try_write(offset, from);
    if (!done) limit_->give_back(from.size());
    return done;
  }
  Task<Result<void>> start_writeback(Range range) override {
    co_return co_await inner_->start_writeback(range);
  }
  std::uint64_t repeated_requests() const noexcept override { return inner_->repeated_requests(); }
  void stop_waiting() noexcept override { inner_->stop_waiting(); }
  // prefetch and copy_from would move bytes past the limit: they stay "not now", the defaults.

 private:
  const std::shared_ptr<BlockDevice> inner_;
  const std::shared_ptr<RateLimit> limit_;
};

}  // namespace

DevicePtr make_rate_device(std::shared_ptr<BlockDevice> inner, std::shared_ptr<RateLimit> limit) {
  DISKFERRY_ASSERT(inner && limit, "a rate device needs a device and a limit");
  return std::make_unique<RateDevice>(std::move(inner), std::move(limit));
}

}  // namespace diskferry
