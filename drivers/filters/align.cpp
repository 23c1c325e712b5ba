// Reads need no lock: the inner device answers each block as of some moment. Writes of whole blocks hold
// their range shared, so that they overlap each other freely; a write that changes part of a block holds the
// blocks exclusively from before it reads them until it has written them back, because a write in between
// would be undone.
#include "drivers/filters/align.hpp"

#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/support/range_lock.hpp"

#include <algorithm>
#include <cstring>

namespace diskferry {

BlockPieces split_at_blocks(Range range, std::uint64_t block_bytes, std::uint64_t size_bytes) noexcept {
  const auto between = [](std::uint64_t from, std::uint64_t to) { return Range{from, to - from}; };
  const bool ends_whole = is_aligned(range.end(), block_bytes) || range.end() == size_bytes;
  const std::uint64_t head_end = std::min(align_up(range.offset, block_bytes), range.end());
  const std::uint64_t tail_begin =
      std::max(head_end, ends_whole ? range.end() : align_down(range.end(), block_bytes));
  return {between(range.offset, head_end), between(head_end, tail_begin), between(tail_begin, range.end())};
}

Range whole_blocks_around(Range range, std::uint64_t block_bytes, std::uint64_t size_bytes) noexcept {
  const std::uint64_t first = align_down(range.offset, block_bytes);
  const std::uint64_t end = std::min(align_up(range.end(), block_bytes), size_bytes);
  return {first, end - first};
}

namespace {

// Up to here a request is served by one bounce buffer and one request to the inner device; beyond it, copying
// costs more than a second and third request. Two of the largest blocks fit.
constexpr std::uint64_t bounced_bytes_max = 128 * kib;
// What all requests together may use for bouncing. Not the process's pool: whoever calls holds a buffer of
// that one already, and waiting for a second could wait for ever.
constexpr std::size_t bounces_bytes = 2 * mib;

class AlignDevice final : public BlockDevice {
 public:
  explicit AlignDevice(std::shared_ptr<BlockDevice> inner)
      : inner_(std::move(inner)),
        info_(inner_->info()),
        block_bytes_(info_.block_bytes),
        size_bytes_(inner_->size_bytes()) {
    info_.block_bytes = 1;
    info_.preferred_bytes = std::max<std::uint32_t>(info_.preferred_bytes, inner_->info().block_bytes);
    info_.can_grow = false;
  }

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    const Range range{offset, into.size()};
    if (is_whole(range)) co_return co_await inner_->read(offset, into);
    const Range around = blocks_around(range);
    if (around.length <= bounced_bytes_max) {
      DISKFERRY_CO_TRY(Buffer bounce, co_await bounces_.acquire(around.length));
      DISKFERRY_CO_CHECK(co_await inner_->read(around.offset, bounce.span()));
      std::memcpy(into.data(), bounce.data() + (offset - around.offset), into.size());
      co_return Result<void>{};
    }
    const BlockPieces pieces = split_at_blocks(range, block_bytes_, size_bytes_);
    DISKFERRY_CO_TRY(Buffer bounce, co_await bounces_.acquire(block_bytes_));
    for (const Range edge : pieces.edges()) {
      if (edge.empty()) continue;
      const Range block = blocks_around(edge);
      DISKFERRY_CO_CHECK(co_await inner_->read(block.offset, bounce.span().first(block.length)));
      std::memcpy(into.data() + (edge.offset - offset), bounce.data() + (edge.offset - block.offset),
                  edge.length);
    }
    co_return co_await inner_->read(pieces.middle.offset, part(into, range, pieces.middle));
  }

  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    const Range range{offset, from.size()};
    RangeLock::Hold hold;
    if (is_whole(range)) {
      if (!locks_.try_lock(hold, range, RangeLock::Mode::shared))
        DISKFERRY_CO_CHECK(co_await locks_.lock(hold, range, RangeLock::Mode::shared));
      co_return co_await inner_->write(offset, from, flags);
    }
    const Range around = blocks_around(range);
    const bool in_one = around.length <= bounced_bytes_max;
    // The buffer before the lock: whoever holds a range never waits for another one's buffer.
    DISKFERRY_CO_TRY(Buffer bounce, co_await bounces_.acquire(in_one ? around.length : block_bytes_));
    DISKFERRY_CO_CHECK(co_await locks_.lock(hold, around, RangeLock::Mode::exclusive));
    if (in_one) co_return co_await write_in_one(range, from, flags, bounce);

    const BlockPieces pieces = split_at_blocks(range, block_bytes_, size_bytes_);
    const bool flush_after = take_flush(flags.fua);
    for (const Range& edge : pieces.edges())
      DISKFERRY_CO_CHECK(co_await change_edge(edge, part(from, range, edge), flags, bounce));
    DISKFERRY_CO_CHECK(co_await inner_->write(pieces.middle.offset, part(from, range, pieces.middle), flags));
    if (flush_after) co_return co_await inner_->flush();
    co_return Result<void>{};
  }

  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    RangeLock::Hold hold;
    if (is_whole(range)) {
      if (!locks_.try_lock(hold, range, RangeLock::Mode::shared))
        DISKFERRY_CO_CHECK(co_await locks_.lock(hold, range, RangeLock::Mode::shared));
      co_return co_await inner_->write_zeroes(range, flags);
    }
    const BlockPieces pieces = split_at_blocks(range, block_bytes_, size_bytes_);
    // With fast_only nothing may change before it is known that it goes fast: whole blocks first, and where
    // there are none, by what the device says of itself.
    if (flags.fast_only && info_.zero < ZeroSupport::fast)
      co_return unexpected(
          fail(ErrorKind::unsupported, "zero quickly", info_.name).at(range.offset, range.length));
    DISKFERRY_CO_TRY(Buffer bounce, co_await bounces_.acquire(block_bytes_));
    DISKFERRY_CO_CHECK(co_await locks_.lock(hold, blocks_around(range), RangeLock::Mode::exclusive));
    const bool flush_after = take_flush(flags.fua);
    if (!pieces.middle.empty()) DISKFERRY_CO_CHECK(co_await inner_->write_zeroes(pieces.middle, flags));
    for (const Range& edge : pieces.edges())
      DISKFERRY_CO_CHECK(co_await change_edge(edge, {}, {.fua = flags.fua}, bounce));
    if (flush_after) co_return co_await inner_->flush();
    co_return Result<void>{};
  }

  /// Only whole blocks: a discard is a hint, and an edge is not worth a read-modify-write.
  Task<Result<void>> discard(Range range) override {
    const Range whole = split_at_blocks(range, block_bytes_, size_bytes_).middle;
    if (whole.empty()) co_return Result<void>{};
    RangeLock::Hold hold;
    if (!locks_.try_lock(hold, whole, RangeLock::Mode::shared))
      DISKFERRY_CO_CHECK(co_await locks_.lock(hold, whole, RangeLock::Mode::shared));
    co_return co_await inner_->discard(whole);
  }

  Task<Result<void>> flush() override { co_return co_await inner_->flush(); }

  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    if (is_whole(range)) co_return co_await inner_->extents(range, extents_max);
    DISKFERRY_CO_TRY(auto found, co_await inner_->extents(blocks_around(range), extents_max));
    found = clip(std::move(found), range);
    // An inner device that reports extents smaller than its blocks may end before the range begins. What is
    // not known is data.
    if (found.empty()) {
      const Range first = intersect(range, blocks_around({range.offset, 1}));
      found.push_back({.offset = first.offset, .length = first.length});
    }
    co_return found;
  }

  Task<Result<void>> close() override { co_return co_await inner_->close(); }

  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override {
    if (!is_whole({offset, into.size()})) return std::nullopt;
    return inner_->try_read(offset, into);
  }
  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from) override {
    const Range range{offset, from.size()};
    RangeLock::Hold hold;
    if (!is_whole(range) || !locks_.try_lock(hold, range, RangeLock::Mode::shared)) return std::nullopt;
    return inner_->try_write(offset, from);
  }
  std::uint64_t repeated_requests() const noexcept override { return inner_->repeated_requests(); }
  void stop_waiting() noexcept override { inner_->stop_waiting(); }
  Task<Result<void>> prefetch(Range range) override {
    co_return co_await inner_->prefetch(blocks_around(range));
  }
  Task<Result<void>> start_writeback(Range range) override {
    co_return co_await inner_->start_writeback(blocks_around(range));
  }
  Task<Result<std::uint64_t>> copy_from(BlockDevice& source, std::uint64_t source_offset,
                                        std::uint64_t offset, std::uint64_t length) override {
    const Range range{offset, length};
    if (!is_whole(range)) co_return std::uint64_t{0};
    RangeLock::Hold hold;
    if (!locks_.try_lock(hold, range, RangeLock::Mode::shared))
      DISKFERRY_CO_CHECK(co_await locks_.lock(hold, range, RangeLock::Mode::shared));
    co_return co_await inner_->copy_from(source, source_offset, offset, length);
  }

 private:
  bool is_whole(Range range) const noexcept {
    return is_aligned(range.offset, block_bytes_) &&
           (is_aligned(range.length, block_bytes_) || range.end() == size_bytes_);
  }
  Range blocks_around(Range range) const noexcept {
    return whole_blocks_around(range, block_bytes_, size_bytes_);
  }
  template <class Byte>
  static std::span<Byte> part(std::span<Byte> bytes, Range whole, Range piece) {
    return bytes.subspan(piece.offset - whole.offset, piece.length);
  }
  /// Where FUA costs a flush, one flush for all pieces is enough. Clears `fua` and returns true then.
  bool take_flush(bool& fua) const noexcept {
    const bool flush_after = fua && !info_.can_fua;
    if (flush_after) fua = false;
    return flush_after;
  }

  /// Reads the blocks at both edges, changes them and writes all in one request. The range is held.
  Task<Result<void>> write_in_one(Range range, std::span<const std::byte> from, WriteFlags flags,
                                  Buffer& bounce) {
    const Range around = blocks_around(range);
    const BlockPieces pieces = split_at_blocks(range, block_bytes_, size_bytes_);
    for (const Range edge : pieces.edges()) {
      if (edge.empty()) continue;
      const Range block = blocks_around(edge);
      DISKFERRY_CO_CHECK(co_await inner_->read(block.offset, part(bounce.span(), around, block)));
    }
    std::memcpy(bounce.data() + (range.offset - around.offset), from.data(), from.size());
    co_return co_await inner_->write(around.offset, bounce.span(), flags);
  }

  /// Changes part of one block to `from`, or to zeros where `from` is empty. The range is held.
  Task<Result<void>> change_edge(Range edge, std::span<const std::byte> from, WriteFlags flags,
                                 Buffer& bounce) {
    if (edge.empty()) co_return Result<void>{};
    const Range block = blocks_around(edge);
    const auto bytes = bounce.span().first(block.length);
    DISKFERRY_CO_CHECK(co_await inner_->read(block.offset, bytes));
    const auto changed = part(bytes, block, edge);
    if (from.empty()) {
      std::ranges::fill(changed, std::byte{0});
    } else {
      std::ranges::copy(from, changed.begin());
    }
    co_return co_await inner_->write(block.offset, bytes, flags);
  }

  const std::shared_ptr<BlockDevice> inner_;
  DeviceInfo info_;
  const std::uint64_t block_bytes_;
  const std::uint64_t size_bytes_;
  RangeLock locks_;
  BufferPool bounces_{bounces_bytes};
};

}  // namespace

DevicePtr make_align_device(std::shared_ptr<BlockDevice> inner) {
  return std::make_unique<AlignDevice>(std::move(inner));
}

std::shared_ptr<BlockDevice> with_byte_granularity(std::shared_ptr<BlockDevice> device) {
  if (device->info().block_bytes == 1) return device;
  return checked(make_align_device(std::move(device)));
}

}  // namespace diskferry
