// The window's beginning, its end, and what it tells of itself. See window.hpp; acknowledging is in
// window_write.cpp, sending in window_send.cpp.
#include "gateway/mirror/window.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/units.hpp"
#include "gateway/mirror/table_file.hpp"

#include <algorithm>
#include <bit>
#include <random>

namespace diskferry {
namespace {

constexpr std::uint64_t zero_bytes_max = 32 * mib;

std::uint64_t random_seed() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device();
}

std::uint32_t block_bytes_for(const DeviceInfo& target, std::uint32_t wanted) {
  DISKFERRY_ASSERT(std::has_single_bit(wanted), "a block is a power of two");
  return std::max(wanted, target.block_bytes);
}

/// A request holds whole blocks, at most a group of them.
std::uint64_t request_bytes_for(const DeviceInfo& target, const WindowOptions& options,
                                std::uint32_t block_bytes) {
  const std::uint64_t most = std::min(target.request_bytes_max, options.request_bytes_max) / block_bytes;
  return std::clamp<std::uint64_t>(most, 1, group_blocks) * block_bytes;
}

PendingLimits limits_for(const DeviceInfo& target, std::uint64_t size_bytes, std::uint32_t block_bytes,
                         std::uint64_t request_bytes) {
  // Where zeroing is writing zeros, a large one would be many requests one after the other.
  const std::uint64_t zero_bytes = target.zero >= ZeroSupport::fast ? zero_bytes_max : request_bytes;
  return {.size_bytes = size_bytes,
          .block_bytes = block_bytes,
          .request_blocks = static_cast<unsigned>(request_bytes / block_bytes),
          .zero_blocks = std::max<std::uint64_t>(1, zero_bytes / block_bytes),
          .folded_blocks = target.zero >= ZeroSupport::fast ? PendingLimits{}.folded_blocks : group_blocks};
}

DeviceInfo info_for(const DeviceInfo& target, std::uint32_t block_bytes) {
  DeviceInfo info = target;
  info.preferred_bytes = std::max(target.preferred_bytes, block_bytes);
  info.request_bytes_max = DeviceInfo{}.request_bytes_max;
  info.zero = std::max(target.zero, ZeroSupport::fast);  // to acknowledge it is all that the client sees
  info.can_discard = target.zero >= ZeroSupport::fast;
  info.can_fua = false;
  info.can_grow = false;
  info.can_multi_connection = true;
  info.starts_zeroed = false;  // that was when it was opened
  return info;
}

std::unique_ptr<BlockTable> table_for(const BlockDevice& target, WindowOptions& options,
                                      std::uint32_t block_bytes) {
  if (!options.table)
    return std::make_unique<BlockTable>(
        TableShape{.size_bytes = target.size_bytes(),
                   .block_bytes = block_bytes,
                   .bytes_max = options.table_bytes_max},
        random_seed(), options.starts_zeroed || (!options.is_used && target.info().starts_zeroed));
  DISKFERRY_ASSERT(options.table->shape().size_bytes == target.size_bytes() &&
                       options.table->shape().block_bytes == block_bytes,
                   "the table is of such a disk");
  return std::move(options.table);
}

}  // namespace

Window::Window(DriverContext& context, std::shared_ptr<BlockDevice> target, WindowOptions options)
    : context_(context),
      target_(std::move(target)),
      block_bytes_(block_bytes_for(target_->info(), options.block_bytes)),
      size_bytes_(target_->size_bytes()),
      zero_is_free_(target_->info().zero >= ZeroSupport::fast),
      info_(info_for(target_->info(), block_bytes_)),
      before_flush_returns_(std::move(options.before_flush_returns)),
      limit_(context.clock, options.bytes_per_s),
      request_bytes_(request_bytes_for(target_->info(), options, block_bytes_)),
      table_(table_for(*target_, options, block_bytes_)),
      seed_(table_->seed()),
      pending_(*table_, limits_for(target_->info(), size_bytes_, block_bytes_, request_bytes_)),
      window_bytes_(options.window_bytes),
      flying_since_(std::max(1u, options.requests_max), TimePoint::max()),
      senders_(context.reactors.front()) {
  // One that can grow does not: nothing is written past the size that it has now.
  DISKFERRY_ASSERT(!target_->info().is_read_only, "a target is writable");
  for (std::size_t i = 0; i < flying_since_.size(); ++i)
    senders_.spawn_on(context.reactors[i % context.reactors.size()], send_loop(i));
}

Window::~Window() {
  DISKFERRY_ASSERT(is_joined_, "a window is closed before it is destroyed");
}

Task<Result<void>> Window::stop() {
  if (std::exchange(is_joined_, true)) co_return Result<void>{};
  {
    std::lock_guard lock(guard_);
    is_stopped_ = true;
    pending_.drop_queued();
    advance_barriers();
    wake_everybody();
  }
  senders_.cancel();
  (void)co_await senders_.join();  // what failed is known, or does not matter any more
  co_return Result<void>{};
}

Task<Result<void>> Window::close() {
  DISKFERRY_CO_CHECK(co_await stop());
  co_return co_await target_->close();
}

Task<Result<void>> Window::flush_sent() {
  DISKFERRY_ASSERT(is_joined_, "what was sent is flushed when nothing is sent any more");
  std::uint32_t ticket = 0;
  {
    std::lock_guard lock(guard_);
    // A flush that succeeds after one that failed says nothing of what was written before.
    if (failure_) co_return unexpected(*failure_);
    ticket = table_->flush_begins();
  }
  DISKFERRY_CO_CHECK(co_await target_->flush());
  std::lock_guard lock(guard_);
  table_->flush_done(ticket);
  co_return Result<void>{};
}

Task<Result<void>> Window::save_table(std::string path, std::string target_identity) {
  DISKFERRY_ASSERT(is_joined_, "a table is saved when nobody writes to the target any more");
  co_return co_await save_block_table(context_, *table_, std::move(path), std::move(target_identity));
}

void Window::set_window_bytes(std::uint64_t bytes) {
  std::lock_guard lock(guard_);
  window_bytes_ = bytes;
  ++changes_;
  changes_queue_.wake_all();
}

std::uint64_t Window::pending_bytes() const {
  std::lock_guard lock(guard_);
  return pending_.counters().data_bytes;
}

void WindowStats::add_counters_of(const WindowStats& ended) noexcept {
  acknowledged_bytes += ended.acknowledged_bytes;
  zeroed_bytes += ended.zeroed_bytes;
  sent_bytes += ended.sent_bytes;
  sent_zero_bytes += ended.sent_zero_bytes;
  resent_bytes += ended.resent_bytes;
  unchanged_bytes += ended.unchanged_bytes;
  superseded_bytes += ended.superseded_bytes;
  pending_bytes_peak = std::max(pending_bytes_peak, ended.pending_bytes_peak);
  flushes += ended.flushes;
}

WindowStats Window::stats() const {
  const TimePoint now = context_.clock.now();
  std::lock_guard lock(guard_);
  const PendingCounters& counters = pending_.counters();
  const TimePoint oldest = std::min(pending_.oldest_ready(now), *std::ranges::min_element(flying_since_));
  return {.acknowledged_bytes = acknowledged_bytes_,
          .zeroed_bytes = zeroed_bytes_,
          .sent_bytes = counters.sent_bytes,
          .sent_zero_bytes = counters.sent_zero_bytes,
          .resent_bytes = counters.resent_bytes,
          .unchanged_bytes = counters.unchanged_bytes,
          .superseded_bytes = counters.superseded_bytes,
          .pending_bytes = counters.data_bytes,
          .pending_bytes_peak = counters.data_bytes_peak,
          .pending_zero_bytes = counters.zero_bytes,
          .window_bytes = window_bytes_,
          .requests_in_flight = static_cast<unsigned>(std::ranges::count_if(
              flying_since_, [](TimePoint since) { return since != TimePoint::max(); })),
          .flushes = flushes_,
          .oldest_pending_ms = static_cast<std::uint64_t>(std::max<std::int64_t>(
              0, std::chrono::duration_cast<std::chrono::milliseconds>(now - oldest).count())),
          .bytes_per_s = meter_.bytes_per_s(now)};
}

}  // namespace diskferry
