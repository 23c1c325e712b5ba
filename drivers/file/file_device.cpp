// See file_device.hpp. What can be served from the page cache is done at once on the calling thread; what may
// wait for storage goes to a blocking thread. No lock, allocation or thread hop on the first way.
#include "drivers/file/file_device.hpp"

#include "diskferry/sync.hpp"
#include "diskferry/units.hpp"
#include "diskferry/zeros.hpp"
#include "drivers/file/file_calls.hpp"
#include "drivers/file/inline_gate.hpp"
#include "drivers/file/uring.hpp"
#include "drivers/support/blocking_pool.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <ctime>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <mutex>
#include <optional>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

namespace diskferry {
namespace {

/// More than this at once is not done on a reactor thread: copying it takes some 100 us, which is what
/// everybody else on that thread waits.
constexpr std::size_t inline_bytes_max = 1 * mib;
/// What one blocking call writes of zeros before cancellation is looked at again.
constexpr std::uint64_t zero_step_bytes = 8 * mib;
/// What waits for storage does so on these.
constexpr std::size_t blocking_threads_max = 8;
/// So many of them at most are in writes that nobody waits for. Most file systems let one write at a time
/// into a file, and threads in line for it take processors from guests as they come and go.
constexpr std::uint64_t background_writes_max = 2;

std::int64_t monotonic_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

class FileDevice final : public BlockDevice {
 public:
  FileDevice(DriverContext& context, OpenedFile file, FileFacts facts)
      : context_(context),
        facts_(std::move(facts)),
        fd_(std::move(file.fd)),
        direct_fd_(std::move(file.direct)),
        size_bytes_(facts_.size_bytes),
        rings_(facts_.use_rings ? context.reactors.size() : 0),
        has_punch_(facts_.has_punch) {}

  const DeviceInfo& info() const noexcept override { return facts_.info; }
  std::uint64_t size_bytes() const noexcept override { return size_bytes_.load(std::memory_order_acquire); }

  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override {
    if (into.size() > inline_bytes_max) return std::nullopt;
    if (facts_.is_in_memory) return read_all(file(), offset, into);
    if (read_now(offset, into) == into.size()) return Result<void>{};
    return std::nullopt;
  }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    if (is_direct()) co_return co_await read_direct(offset, into);
    if (into.size() <= inline_bytes_max) {
      if (facts_.is_in_memory) co_return read_all(file(), offset, into);
      const std::size_t done = read_now(offset, into);
      if (done == into.size()) co_return Result<void>{};
      offset += done;
      into = into.subspan(done);
    }
    co_return co_await read_from_storage(offset, into);
  }

  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from) override {
    if (from.size() > inline_bytes_max || is_direct() || facts_.is_far) return std::nullopt;
    std::unique_lock growing(growth_, std::defer_lock);
    const std::uint64_t end = offset + from.size();
    if (end > size_bytes() && !growing.try_lock()) return std::nullopt;
    std::optional<Result<void>> done;
    if (facts_.is_in_memory) {
      done = write_all(file(), offset, from, 0);
    } else if (writes_now_.load(std::memory_order_relaxed)) {
      done = write_without_waiting(offset, from);
    } else {
      done = write_if_quick(offset, from);
    }
    if (growing.owns_lock() && done && *done) grown_to(end);
    return done;
  }

  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    if (is_direct() && is_direct_range(offset, from)) {
      DISKFERRY_CO_TRY(const bool done, co_await write_direct(offset, from, flags));
      if (done) co_return Result<void>{};
    } else if (!flags.fua && !flags.in_background) {
      if (auto done = try_write(offset, from)) co_return *std::move(done);
    }
    if (flags.in_background) DISKFERRY_CO_CHECK(co_await background_.acquire(1));
    auto done =
        co_await pool_.run([this, offset, from, flags] { return write_waiting(offset, from, flags.fua); });
    if (flags.in_background) background_.release(1);
    co_return done;
  }

  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    DISKFERRY_CO_TRY(const bool done,
                     co_await pool_.run([this, range, flags] { return zero_by_shortcut(range, flags); }));
    if (!done && flags.fast_only)
      co_return unexpected(
          fail(ErrorKind::unsupported, "write zeros quickly", info().name).at(range.offset, range.length));
    if (!done) DISKFERRY_CO_CHECK(co_await zero_by_writing(range));
    if (flags.fua) co_return co_await flush();
    co_return Result<void>{};
  }

  Task<Result<void>> discard(Range range) override {
    range = intersect(range, {0, size_bytes()});
    co_return co_await pool_.run([this, range] { return discard_waiting(range); });
  }

  Task<Result<void>> flush() override {
    if (info().is_read_only) co_return Result<void>{};
    co_return co_await pool_.run([this] { return flush_waiting(); });
  }

  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    co_return co_await pool_.run(
        [this, range, extents_max] { return list_extents(file(), range, extents_max); });
  }

  Task<Result<void>> prefetch(Range range) override {
    if (facts_.is_in_memory) co_return Result<void>{};
    co_return co_await pool_.run([this, range] {
      // A hint: what it says about success is of no interest.
      (void)::posix_fadvise(fd_.get(), static_cast<off_t>(range.offset), static_cast<off_t>(range.length),
                            POSIX_FADV_WILLNEED);
      return Result<void>{};
    });
  }

  Task<Result<void>> start_writeback(Range range) override {
    // Queues the pages and returns; the storage takes them while the caller goes on. Without it a flush of 2
    // GiB takes over a second, and whoever writes meanwhile waits for it. Errors are told by the next flush.
    if (facts_.is_in_memory || is_direct()) co_return Result<void>{};
    co_return co_await pool_.run([this, range]() -> Result<void> {
      (void)::sync_file_range(fd_.get(), static_cast<off_t>(range.offset), static_cast<off_t>(range.length),
                              SYNC_FILE_RANGE_WRITE);
      return {};
    });
  }

  Task<Result<std::uint64_t>> copy_from(BlockDevice& source, std::uint64_t source_offset,
                                        std::uint64_t offset, std::uint64_t length) override {
    auto* from = dynamic_cast<FileDevice*>(&source);
    if (from == nullptr || facts_.is_block_device || from->facts_.is_block_device) co_return 0;
    co_return co_await pool_.run([this, from, source_offset, offset, length] {
      return share_blocks(*from, source_offset, offset, length);
    });
  }

  Task<Result<void>> close() override {
    co_return co_await pool_.run([this] {
      direct_fd_.reset();
      fd_.reset();
      return Result<void>{};
    });
  }

 private:
  bool is_direct() const noexcept { return facts_.direct_bytes != 0; }
  /// True when O_DIRECT takes a transfer as it is.
  bool is_direct_range(std::uint64_t offset, std::span<const std::byte> memory) const noexcept {
    const std::uint64_t all = offset | memory.size() | reinterpret_cast<std::uintptr_t>(memory.data());
    return is_aligned(all, facts_.direct_bytes);
  }
  FileReference direct_file() const noexcept { return {direct_fd_.get(), facts_.info.name, true}; }
  FileReference file() const noexcept { return {fd_.get(), facts_.info.name, false}; }

  // --- At once

  /// How many bytes from the start are in the page cache and were read.
  std::size_t read_now(std::uint64_t offset, std::span<std::byte> into) const noexcept {
    if (!facts_.can_read_now) return 0;
    const iovec part{into.data(), into.size()};
    const ssize_t got = ::preadv2(fd_.get(), &part, 1, static_cast<off_t>(offset), RWF_NOWAIT);
    return got > 0 ? static_cast<std::size_t>(got) : 0;
  }

  std::optional<Result<void>> write_without_waiting(std::uint64_t offset, std::span<const std::byte> from) {
    const iovec part{const_cast<std::byte*>(from.data()), from.size()};
    const ssize_t put = ::pwritev2(fd_.get(), &part, 1, static_cast<off_t>(offset), RWF_NOWAIT);
    if (put == static_cast<ssize_t>(from.size())) return Result<void>{};
    if (put >= 0 || errno == EAGAIN)
      return std::nullopt;  // what was written is written again: the same bytes
    writes_now_.store(false, std::memory_order_relaxed);
    return write_if_quick(offset, from);
  }

  std::optional<Result<void>> write_if_quick(std::uint64_t offset, std::span<const std::byte> from) {
    const std::int64_t started_ns = monotonic_ns();
    if (!gate_.is_open(started_ns)) return std::nullopt;
    Result<void> done = write_all(file(), offset, from, 0);
    gate_.wrote(from.size(), started_ns, monotonic_ns());
    return done;
  }

  // --- From storage

  /// The ring of the reactor this task runs on, or nullptr: no io_uring, a strand, or too much under way.
  Uring* ring_of(const Executor& executor) {
    for (std::size_t index = 0; index < rings_.size(); ++index) {
      if (context_.reactors[index] != executor) continue;
      // Only this reactor's thread ever looks at this element.
      Ring& ring = rings_[index];
      if (!std::exchange(ring.was_asked_for, true)) ring.uring = Uring::make(executor);
      return ring.uring && ring.uring->has_room() ? ring.uring.get() : nullptr;
    }
    return nullptr;
  }

  Task<Result<void>> read_from_storage(std::uint64_t offset, std::span<std::byte> into) {
    if (Uring* uring = ring_of(co_await boost::asio::this_coro::executor)) {
      while (!into.empty()) {
        const int got = co_await uring->transfer({.fd = fd_.get(), .offset = offset, .memory = into});
        if (got <= 0) break;  // what is wrong, the plain call finds out and tells
        offset += static_cast<std::uint64_t>(got);
        into = into.subspan(static_cast<std::size_t>(got));
        if (!uring->has_room()) break;
      }
      if (into.empty()) co_return Result<void>{};
    }
    co_return co_await pool_.run([this, offset, into] { return read_all(file(), offset, into); });
  }

  Task<Result<void>> read_direct(std::uint64_t offset, std::span<std::byte> into) {
    if (is_direct_range(offset, into)) {
      Uring* uring = ring_of(co_await boost::asio::this_coro::executor);
      const auto length = static_cast<int>(into.size());
      if (uring != nullptr &&
          co_await uring->transfer({.fd = direct_fd_.get(), .offset = offset, .memory = into}) == length)
        co_return Result<void>{};
    }
    co_return co_await pool_.run(
        [this, offset, into] { return read_all_direct(direct_file(), offset, into, facts_.direct_bytes); });
  }

  /// False when it must be done in another way (or again, to learn what is wrong).
  Task<Result<bool>> write_direct(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) {
    if (offset + from.size() > size_bytes()) co_return false;  // growing takes a lock
    Uring* uring = ring_of(co_await boost::asio::this_coro::executor);
    if (uring == nullptr) co_return false;
    const int put = co_await uring->transfer({.is_write = true,
                                              .fd = direct_fd_.get(),
                                              .offset = offset,
                                              .memory = {const_cast<std::byte*>(from.data()), from.size()},
                                              .rwf_flags = flags.fua ? RWF_DSYNC : 0});
    if (put == static_cast<int>(from.size())) co_return true;
    // As in write_waiting(): it may have been an earlier write's error, and is not told again.
    if (put < 0 && flags.fua && put != -EINVAL && put != -EAGAIN && put != -ENOSPC)
      remember_failed_flush(call_error(-put, "flush", info().name));
    co_return false;
  }

  // --- On a blocking thread

  void grown_to(std::uint64_t end) noexcept {  // growth_ is held
    if (end > size_bytes()) size_bytes_.store(end, std::memory_order_release);
  }

  Result<void> write_waiting(std::uint64_t offset, std::span<const std::byte> from, bool fua) {
    std::unique_lock growing(growth_, std::defer_lock);
    const std::uint64_t end = offset + from.size();
    if (end > size_bytes()) growing.lock();
    // What is not aligned goes through the page cache also with cache=none: the kernel keeps both coherent,
    // and needs no read-modify-write of ours that a neighbour's write could fall into.
    const FileReference to = is_direct() && is_direct_range(offset, from) ? direct_file() : file();
    auto done = write_all(to, offset, from, fua ? RWF_DSYNC : 0);
    // Of a write that fails with RWF_DSYNC nobody says whether it was the writing or the syncing; the second
    // may be the error of an earlier write, which the kernel tells only once.
    if (!done && fua && write_all(to, offset, from, 0)) remember_failed_flush(done.error());
    if (done && growing.owns_lock()) grown_to(end);
    return done;
  }

  /// A failed fdatasync leaves pages that are marked clean and were never written: the next one would succeed
  /// and say that all is well. So it never succeeds again.
  Result<void> flush_waiting() {
    {
      const std::lock_guard lock(failed_guard_);
      if (failed_flush_)
        return unexpected(Error(*failed_flush_)
                              .why("an earlier flush failed, and what was written before it may be lost")
                              .remedy("write it again to other storage"));
    }
    auto done = sync_data(file());
    if (!done) remember_failed_flush(done.error());
    return done;
  }
  void remember_failed_flush(const Error& error) {
    const std::lock_guard lock(failed_guard_);
    if (!failed_flush_) failed_flush_ = error;
  }

  /// True when it is done; false when zeros must be written (nothing was changed but the size, perhaps).
  Result<bool> zero_by_shortcut(Range range, ZeroFlags flags) {
    if (facts_.is_block_device) return zero_blocks(range, flags);
    if (range.end() <= size_bytes()) return zero_inside(range, flags);
    const std::lock_guard growing(growth_);
    struct stat status{};
    if (::fstat(fd_.get(), &status) != 0)
      return unexpected(transfer_error(errno, "write zeros", info().name, range));
    const auto old_end = static_cast<std::uint64_t>(status.st_size);
    // Never shorter: size_bytes() is behind the file's own size after a write that failed halfway.
    if (old_end < range.end() && ::ftruncate(fd_.get(), static_cast<off_t>(range.end())) != 0)
      return unexpected(transfer_error(errno, "write zeros", info().name, range));
    grown_to(range.end());
    const Range old_part = intersect(range, {0, old_end});
    if (flags.may_unmap) return old_part.empty() ? true : zero_inside(old_part, flags);
    return zero_inside(range, flags);
  }

  Result<bool> zero_inside(Range range, ZeroFlags flags) {
    if (flags.may_unmap) {
      DISKFERRY_TRY(const bool done, punch(range));
      if (done) return true;
    }
    if (has_zero_range_.load(std::memory_order_relaxed)) {
      DISKFERRY_TRY(const Attempt attempt,
                    try_fallocate(file(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, range));
      if (attempt == Attempt::done) return true;
      if (attempt == Attempt::not_offered) has_zero_range_.store(false, std::memory_order_relaxed);
    }
    if (flags.may_unmap) return false;
    // Not there (tmpfs): a hole, and storage for it again. What fails in between reads as zeros too.
    DISKFERRY_TRY(const bool done, punch(range));
    if (!done) return false;
    DISKFERRY_TRY(const Attempt attempt, try_fallocate(file(), FALLOC_FL_KEEP_SIZE, range));
    return attempt == Attempt::done;
  }

  Result<bool> punch(Range range) {
    if (!has_punch_.load(std::memory_order_relaxed)) return false;
    DISKFERRY_TRY(const Attempt attempt,
                  try_fallocate(file(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, range));
    if (attempt == Attempt::not_offered) has_punch_.store(false, std::memory_order_relaxed);
    return attempt == Attempt::done;
  }

  /// On a block device PUNCH_HOLE is "zero, perhaps by unmapping, but only if the device does it itself", and
  /// ZERO_RANGE "zero, keeping the storage, if need be by writing". Source: block/fops.c, blkdev_fallocate.
  Result<bool> zero_blocks(Range range, ZeroFlags flags) {
    if (flags.may_unmap) {
      DISKFERRY_TRY(const bool done, punch(range));
      if (done) return true;
    }
    if (flags.fast_only && !facts_.zeroes_in_place) return false;
    DISKFERRY_TRY(const Attempt attempt,
                  try_fallocate(file(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, range));
    return attempt == Attempt::done;
  }

  Task<Result<void>> zero_by_writing(Range range) {
    while (!range.empty()) {
      if (co_await is_cancelled()) co_return unexpected(cancelled_error("write zeros", info().name));
      const std::uint64_t now = std::min(range.length, zero_step_bytes);
      DISKFERRY_CO_CHECK(
          co_await pool_.run([this, range, now] { return write_zeros_waiting({range.offset, now}); }));
      range.offset += now;
      range.length -= now;
    }
    co_return Result<void>{};
  }
  Result<void> write_zeros_waiting(Range range) {
    while (!range.empty()) {
      const ZeroPiece piece = take_zeros(range);
      DISKFERRY_CHECK(write_waiting(piece.offset, piece.bytes, false));
    }
    return {};
  }

  Result<void> discard_waiting(Range range) {
    if (!facts_.is_block_device) {
      DISKFERRY_CHECK(range.empty() ? Result<bool>(true) : punch(range));
      return {};
    }
    const std::uint64_t from = align_up(range.offset, info().block_bytes);
    const std::uint64_t to = align_down(range.end(), info().block_bytes);
    if (to > from) DISKFERRY_CHECK(try_discard_blocks(file(), {from, to - from}));
    return {};
  }

  /// Lets this file share the blocks of another; both stay what they are when one is written to.
  Result<std::uint64_t> share_blocks(const FileDevice& source, std::uint64_t source_offset,
                                     std::uint64_t offset, std::uint64_t length) {
    if (!can_share_.load(std::memory_order_relaxed)) return 0;
    const std::lock_guard growing(growth_);
    const file_clone_range request{
        .src_fd = source.fd_.get(), .src_offset = source_offset, .src_length = length, .dest_offset = offset};
    if (::ioctl(fd_.get(), FICLONERANGE, &request) == 0) {
      grown_to(offset + length);
      return length;
    }
    if (errno == EOPNOTSUPP || errno == ENOTTY || errno == EPERM)
      can_share_.store(false, std::memory_order_relaxed);
    return 0;  // another file system, or not these offsets: the bytes go the ordinary way
  }

  DriverContext& context_;
  const FileFacts facts_;
  FileDescriptor fd_;
  FileDescriptor direct_fd_;  // with cache=none
  std::atomic<std::uint64_t> size_bytes_;
  /// Held while the file grows, so that growing by ftruncate never cuts off what was written meanwhile.
  std::mutex growth_;
  InlineGate gate_;
  AsyncSemaphore background_{background_writes_max};
  /// Of its own: calls that hang, as with a server that is away, are in nobody else's way.
  BlockingPool pool_{blocking_threads_max};
  struct Ring {
    std::unique_ptr<Uring> uring;
    bool was_asked_for = false;
  };
  std::vector<Ring> rings_;  // one for each reactor
  // What trying has shown so far.
  std::atomic<bool> writes_now_ = true;
  std::atomic<bool> has_zero_range_ = true;
  std::atomic<bool> has_punch_;
  std::atomic<bool> can_share_ = true;
  std::mutex failed_guard_;
  std::optional<Error> failed_flush_;
};

}  // namespace

DevicePtr make_file_device(DriverContext& context, OpenedFile file, FileFacts facts) {
  return std::make_unique<FileDevice>(context, std::move(file), std::move(facts));
}

}  // namespace diskferry
