// The window towards its client: copying in what is written, and reading it back. See window.hpp.
#include "diskferry/assert.hpp"
#include "diskferry/units.hpp"
#include "gateway/mirror/window.hpp"

#include <algorithm>
#include <cstring>

namespace diskferry {
namespace {
/// What guests write at once is seldom more; what copies write is.
constexpr std::uint64_t small_bytes_max = 64 * kib;
/// Of the window one part in so many is for small writes only: a copy fills what it may, as it reads faster
/// than most targets write, and guests would wait behind it.
constexpr std::uint64_t reserve_part = 8;
}  // namespace

// --- room -------------------------------------------------------------------------------------------------

std::uint64_t Window::room_bytes(Size size) const noexcept {
  const std::uint64_t used = pending_.used_bytes();
  const std::uint64_t all =
      size == Size::small ? window_bytes_ : window_bytes_ - window_bytes_ / reserve_part;
  return used < all ? all - used : 0;
}

/// Whether a write fits whatever of it turns out to have changed.
bool Window::is_fitting(std::uint64_t bytes) const noexcept {
  const std::uint64_t groups = bytes / (std::uint64_t{group_blocks} * block_bytes_) + 2;
  return bytes + groups * GroupMap::group_bytes <= room_bytes(size_of(bytes));
}

Window::Size Window::size_of(std::uint64_t bytes) noexcept {
  return bytes <= small_bytes_max ? Size::small : Size::large;
}

/// Nobody passes those who wait, but small ones the large ones.
bool Window::has_to_queue(Size size) const noexcept {
  return small_waiting_ != 0 || (size == Size::large && large_waiting_ != 0);
}

bool Window::may_put(Put& put) const noexcept {
  put.changes = changes_;
  return put.is_turn || !has_to_queue(put.size);
}

void Window::advance(Put& put, std::uint64_t bytes) noexcept {
  put.left.offset += bytes;
  put.left.length -= bytes;
  if (put.from != nullptr) {
    put.from += bytes;
    acknowledged_bytes_ += bytes;
  } else {
    zeroed_bytes_ += bytes;
  }
}

// --- taking in --------------------------------------------------------------------------------------------

/// Takes the beginning of what is left; false when there is no room.
Result<bool> Window::accept(Put& put) {
  const std::uint64_t into_block = put.left.offset % block_bytes_;
  const std::uint64_t block_end = std::min(put.left.offset - into_block + block_bytes_, size_bytes_);
  if (into_block != 0 || put.left.end() < block_end)
    return accept_edge(put, std::min(block_end, put.left.end()) - put.left.offset);
  if (put.from == nullptr) return accept_zeros(put);
  const std::uint64_t whole = put.left.end() == size_bytes_ ? divide_up(put.left.length, block_bytes_)
                                                            : put.left.length / block_bytes_;
  const std::uint64_t in_group = group_blocks - put.left.offset / block_bytes_ % group_blocks;
  return accept_data(put, static_cast<unsigned>(std::min(whole, in_group)));
}

/// Hashing and copying happen without the mutex; between the two, and after them, it is held for a look at
/// what is pending.
Result<bool> Window::accept_data(Put& put, unsigned blocks) {
  Arrival arrival;
  arrival.first = put.left.offset / block_bytes_;
  arrival.count = blocks;
  arrival.from = put.from;
  const std::span all(put.from,
                      std::min<std::uint64_t>(put.left.length, std::uint64_t{blocks} * block_bytes_));
  for (unsigned i = 0; i < blocks; ++i) {
    const std::size_t begin = std::size_t{i} * block_bytes_;
    arrival.hash[i] =
        hash_block(all.subspan(begin, std::min<std::size_t>(block_bytes_, all.size() - begin)), seed_);
  }
  {
    std::lock_guard lock(guard_);
    DISKFERRY_CHECK(check_usable());
    if (!may_put(put) || pending_.choose(arrival, room_bytes(put.size)) == 0) return false;
  }
  pending_.copy(arrival);
  std::lock_guard lock(guard_);
  if (auto usable = check_usable(); !usable) {
    pending_.abandon(arrival);
    return unexpected(std::move(usable).error());
  }
  pending_.publish(arrival, context_.clock.now());
  advance(put, std::min<std::uint64_t>(all.size(), std::uint64_t{arrival.count} * block_bytes_));
  if (pending_.has_ready()) work_.wake_one();
  return true;
}

Result<bool> Window::accept_edge(Put& put, std::uint64_t bytes) {
  std::lock_guard lock(guard_);
  DISKFERRY_CHECK(check_usable());
  if (!may_put(put) ||
      !pending_.put_part({put.left.offset, bytes}, put.from, room_bytes(put.size), context_.clock.now()))
    return false;
  advance(put, bytes);
  if (pending_.has_ready()) work_.wake_one();
  return true;
}

/// A region at a time, so that a sender finds much of it and the mutex is not held for long.
Result<bool> Window::accept_zeros(Put& put) {
  std::lock_guard lock(guard_);
  DISKFERRY_CHECK(check_usable());
  if (!may_put(put)) return false;
  const std::uint64_t first = put.left.offset / block_bytes_;
  const std::uint64_t whole = put.left.end() == size_bytes_ ? divide_up(put.left.length, block_bytes_)
                                                            : put.left.length / block_bytes_;
  const std::uint64_t step = table_->region_blocks();
  const std::uint64_t now = std::min(whole, step - first % step);
  if (pending_.are_plain_zero(first, now)) {
    const std::uint64_t bytes = std::min(put.left.length, now * block_bytes_);
    pending_.count_unchanged(bytes);
    advance(put, bytes);
    return true;
  }
  for (std::uint64_t block = first; block < first + now;) {
    const auto count = static_cast<unsigned>(
        std::min<std::uint64_t>(group_blocks - block % group_blocks, first + now - block));
    if (!pending_.put_zeros(block, count, room_bytes(put.size), context_.clock.now())) break;
    advance(put, std::min<std::uint64_t>(put.left.length, std::uint64_t{count} * block_bytes_));
    block += count;
  }
  if (pending_.has_ready()) work_.wake_one();
  return put.left.offset != first * block_bytes_;
}

Task<Result<void>> Window::put(Put put) {
  while (!put.left.empty()) {
    DISKFERRY_CO_TRY(const bool taken, accept(put));
    if (!taken) break;
  }
  if (put.left.empty()) co_return Result<void>{};
  // Counts us out however this ends.
  struct Waiting {
    Window& window;
    const Size size;
    Waiting(Window& counted, Size of) : window(counted), size(of) { add(1); }
    ~Waiting() { add(-1); }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;
    void add(int by) const {
      std::lock_guard lock(window.guard_);
      (size == Size::small ? window.small_waiting_ : window.large_waiting_) += static_cast<std::uint64_t>(by);
    }
  } const waiting(*this, put.size);
  AsyncMutex& own_lane = put.size == Size::small ? small_lane_ : large_lane_;
  DISKFERRY_CO_TRY(const AsyncMutex::Lock lane, co_await own_lane.lock());
  DISKFERRY_CO_TRY(const AsyncMutex::Lock turn, co_await turn_.lock());
  put.is_turn = true;
  while (!put.left.empty()) {
    DISKFERRY_CO_TRY(const bool taken, accept(put));
    if (taken) continue;
    std::unique_lock lock(guard_);
    if (changes_ != put.changes) continue;
    if (!co_await changes_queue_.wait(lock))
      co_return unexpected(cancelled_error("wait for the window", info_.name));
  }
  co_return Result<void>{};
}

Task<Result<void>> Window::write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags) {
  co_return co_await put({.left = {offset, from.size()}, .from = from.data(), .size = size_of(from.size())});
}

Task<Result<void>> Window::write_zeroes(Range range, ZeroFlags) {
  co_return co_await put({.left = range, .size = size_of(range.length)});
}

Task<Result<void>> Window::discard(Range range) {
  if (target_->info().zero < ZeroSupport::fast) co_return check_usable_now();
  co_return co_await put({.left = range, .size = size_of(range.length)});
}

bool Window::can_take(Range range) const {
  // Parts of blocks may have to wait for each other.
  if (range.offset % block_bytes_ != 0 || (range.end() % block_bytes_ != 0 && range.end() != size_bytes_))
    return false;
  std::lock_guard lock(guard_);
  return !check_usable() || (!has_to_queue(size_of(range.length)) && is_fitting(range.length));
}

std::optional<Result<void>> Window::try_write(std::uint64_t offset, std::span<const std::byte> from) {
  if (!can_take({offset, from.size()})) return std::nullopt;
  Put put{.left = {offset, from.size()}, .from = from.data(), .size = size_of(from.size())};
  while (!put.left.empty()) {
    const auto taken = accept(put);
    if (!taken) return unexpected(taken.error());
    // Somebody else took the room meanwhile. What was taken in is written again by the ordinary verb, which
    // finds it unchanged.
    if (!*taken) return std::nullopt;
  }
  return Result<void>{};
}

// --- reading ----------------------------------------------------------------------------------------------

/// Copies what is pending of a range and lists the rest; false when a part of a block is pending, so that one
/// has to wait.
Result<bool> Window::copy_pending(std::uint64_t offset, std::span<std::byte> into,
                                  std::vector<Range>& at_target, std::uint64_t& changes) const {
  std::lock_guard lock(guard_);
  DISKFERRY_CHECK(check_usable());
  changes = changes_;
  at_target.clear();
  if (pending_.is_empty()) {
    at_target.push_back({offset, into.size()});
    return true;
  }
  for (std::size_t done = 0; done < into.size();) {
    const std::uint64_t at = offset + done;
    const std::size_t now = std::min<std::size_t>(into.size() - done, block_bytes_ - at % block_bytes_);
    const auto found = pending_.read({at, now}, into.data() + done);
    if (found == PendingBlocks::Lookup::wait) return false;
    if (found == PendingBlocks::Lookup::at_target) {
      if (!at_target.empty() && at_target.back().end() == at) {
        at_target.back().length += now;
      } else {
        at_target.push_back({at, now});
      }
    }
    done += now;
  }
  return true;
}

Task<Result<void>> Window::read(std::uint64_t offset, std::span<std::byte> into) {
  std::vector<Range> at_target;
  while (true) {
    std::uint64_t changes = 0;
    DISKFERRY_CO_TRY(const bool complete, copy_pending(offset, into, at_target, changes));
    if (complete) break;
    std::unique_lock lock(guard_);
    if (changes_ != changes) continue;
    if (!co_await changes_queue_.wait(lock)) co_return unexpected(cancelled_error("read", info_.name));
  }
  // What was not pending a moment ago is at the target. If it is written now, that write is concurrent.
  for (const Range& range : at_target)
    DISKFERRY_CO_CHECK(
        co_await target_->read(range.offset, into.subspan(range.offset - offset, range.length)));
  co_return Result<void>{};
}

Task<Result<std::vector<Extent>>> Window::extents(Range range, std::size_t extents_max) {
  bool is_idle = false;
  {
    std::lock_guard lock(guard_);
    DISKFERRY_CO_CHECK(check_usable());
    is_idle = pending_.is_empty();
  }
  if (is_idle) co_return co_await target_->extents(range, extents_max);
  co_return std::vector<Extent>{{.offset = range.offset, .length = range.length}};
}

}  // namespace diskferry
