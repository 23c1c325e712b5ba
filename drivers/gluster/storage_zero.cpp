// Zeroing, and what is known of holes.
#include "diskferry/units.hpp"
#include "diskferry/zeros.hpp"
#include "drivers/gluster/status.hpp"
#include "drivers/gluster/storage.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <glusterfs/api/glfs.h>
#include <unistd.h>

namespace diskferry::gluster {
namespace {

/// What one request punches or fills before cancellation is looked at again. A brick writes what it fills.
constexpr std::uint64_t punch_step_bytes = 1 * gib;
constexpr std::uint64_t fill_step_bytes = 64 * mib;
/// What is written where the file grows by zeros: the block that its new end is in.
constexpr std::uint64_t end_block_bytes = 4096;
/// Of one question for extents, which holds a thread of the volume.
constexpr std::size_t extents_per_call_max = 64;

struct Found {
  std::vector<Extent> extents{};
  int failed = 0;  ///< the errno that ended the search; what was found before it is true
  bool is_sane = true;
};

/// On a thread of the volume. A translator that does not know holes, or answers with something that cannot
/// be, leaves the rest to be data.
Found find_extents(glfs_fd* fd, Range range, std::size_t extents_max) {
  Found found;
  std::uint64_t at = range.offset;
  bool in_data = false;
  while (at < range.end() && found.extents.size() < extents_max) {
    const off_t next = glfs_lseek(fd, static_cast<off_t>(at), in_data ? SEEK_HOLE : SEEK_DATA);
    const bool is_last_hole = next < 0 && errno == ENXIO && !in_data;
    if (next < 0 && !is_last_hole) {
      found.failed = errno;
      return found;
    }
    const auto there = is_last_hole ? range.end() : static_cast<std::uint64_t>(next);
    found.is_sane = in_data ? there > at : there >= at;
    if (!found.is_sane) return found;
    const std::uint64_t end = std::min(there, range.end());
    append_merged(found.extents,
                  {.offset = at, .length = end - at, .reads_zero = !in_data, .is_hole = !in_data});
    at = end;
    in_data = !in_data;
  }
  return found;
}

}  // namespace

Task<Result<std::vector<Extent>>> Storage::extents(Range range, std::size_t extents_max) {
  std::vector<Extent> all_data{{.offset = range.offset, .length = range.length}};
  std::optional<TimePoint> lost_until;
  while (seeks_.load(std::memory_order_relaxed)) {
    DISKFERRY_CO_TRY(const OpenFilePtr file, co_await this->file(lost_until.value_or(give_up_time())));
    const std::size_t most = std::min(extents_max, extents_per_call_max);
    std::function<Result<Found>(glfs*)> work = [file, range, most](glfs*) {
      return Result<Found>(find_extents(file->fd(), range, most));
    };
    DISKFERRY_CO_TRY(Found found, co_await volume_->call<Found>("map", std::move(work)));
    if (!found.is_sane || is_unsupported(found.failed) || found.failed == EINVAL) seeks_ = false;
    if (!found.extents.empty()) co_return std::move(found.extents);
    if (!is_lost(found.failed)) break;
    retire(file);
    if (lost_until && context_.clock.now() >= *lost_until) break;  // the reading will tell
    if (!lost_until) lost_until = give_up_time();
  }
  co_return all_data;
}

Task<Result<void>> Storage::discard(Range range) {
  if (!punches_.load(std::memory_order_relaxed)) co_return Result<void>{};
  auto done = co_await punch(range);
  if (!done) co_return unexpected(std::move(done).error());
  co_return Result<void>{};
}

Task<Result<bool>> Storage::reads_zero(Range range) {
  std::array<std::byte, end_block_bytes> bytes{};
  const std::span part = std::span(bytes).first(std::min<std::uint64_t>(range.length, bytes.size()));
  for (const std::uint64_t at : {range.offset, range.end() - part.size()}) {
    DISKFERRY_CO_CHECK(co_await read(at, part));
    if (std::ranges::any_of(part, [](std::byte one) { return one != std::byte{0}; })) co_return false;
  }
  co_return true;
}

Task<Result<bool>> Storage::change_in_steps(Verb verb, std::uint64_t step_bytes, std::atomic<bool>& can,
                                            Range range) {
  while (!range.empty()) {
    if (!can.load(std::memory_order_relaxed)) co_return false;
    if (co_await is_cancelled()) co_return unexpected(cancelled_error("zero", endpoint_.name));
    const std::uint64_t now = std::min(range.length, step_bytes);
    auto done = co_await change({.verb = verb, .offset = range.offset, .length = now});
    if (!done && done.error().kind() == ErrorKind::unsupported) {
      can = false;
      co_return false;
    }
    if (!done) co_return unexpected(std::move(done).error());
    range.offset += now;
    range.length -= now;
  }
  co_return true;
}

Task<Result<bool>> Storage::punch(Range range) {
  return change_in_steps(Verb::punch, punch_step_bytes, punches_, range);
}

Task<Result<bool>> Storage::fill(Range range) {
  return change_in_steps(Verb::fill, fill_step_bytes, fills_, range);
}

Task<Result<void>> Storage::write_zeros(Range range) {
  while (!range.empty()) {
    if (co_await is_cancelled()) co_return unexpected(cancelled_error("zero", endpoint_.name));
    const ZeroPiece piece = take_zeros(range);
    DISKFERRY_CO_CHECK(co_await write(piece.offset, piece.bytes));
  }
  co_return Result<void>{};
}

Task<Result<void>> Storage::zero(Range range, ZeroFlags flags) {
  const bool can_punch = flags.may_unmap && punches_.load(std::memory_order_relaxed);
  if (flags.fast_only && !can_punch)
    co_return unexpected(fail(ErrorKind::unsupported, "zero quickly", endpoint_.name)
                             .why("the volume cannot, or the storage has to stay allocated")
                             .at(range.offset, range.length));
  if (range.end() > size_bytes()) {
    // Never by truncating, which would cut off what somebody else has just written behind it.
    const std::uint64_t from = std::max(range.offset, align_down(range.end() - 1, end_block_bytes));
    DISKFERRY_CO_CHECK(co_await write_zeros({from, range.end() - from}));
    range.length = from - range.offset;
    if (range.empty()) co_return Result<void>{};
  }
  if (can_punch) {
    DISKFERRY_CO_TRY(const bool is_punched, co_await punch(range));
    bool is_zero = is_punched;
    // Not every translator means zeros by it: the first time, it is looked at.
    if (is_punched && !has_seen_zeros_.load(std::memory_order_relaxed)) {
      DISKFERRY_CO_TRY(is_zero, co_await reads_zero(range));
      (is_zero ? has_seen_zeros_ : punches_) = is_zero;
    }
    if (is_zero) co_return Result<void>{};
  }
  DISKFERRY_CO_TRY(const bool is_filled, co_await fill(range));
  if (is_filled) co_return Result<void>{};
  co_return co_await write_zeros(range);
}

}  // namespace diskferry::gluster
