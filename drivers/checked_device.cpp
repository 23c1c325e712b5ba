// See checked_device.hpp. Holds no state of its own but for the device and how many calls are in flight.
#include "drivers/checked_device.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/units.hpp"
#include "diskferry/zeros.hpp"

#include <algorithm>
#include <atomic>

namespace diskferry {
namespace {

class CheckedDevice final : public BlockDevice {
 public:
  explicit CheckedDevice(DevicePtr device) : device_(std::move(device)), info_(device_->info()) {
    DISKFERRY_ASSERT(std::has_single_bit(info_.block_bytes) && info_.block_bytes <= 65536,
                     "a block size is a power of two up to 64 KiB");
    DISKFERRY_ASSERT(info_.request_bytes_max >= info_.block_bytes, "a request holds at least one block");
    step_bytes_ = align_down(info_.request_bytes_max, info_.block_bytes);
  }
  ~CheckedDevice() override {
    DISKFERRY_ASSERT(calls_.load(std::memory_order_relaxed) == 0, "a device is destroyed while it is used");
  }

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return device_->size_bytes(); }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    const Call call(*this);
    check_inside({offset, into.size()});
    if (into.size() <= info_.request_bytes_max) {
      if (into.empty()) co_return Result<void>{};
      co_return co_await device_->read(offset, into);
    }
    while (!into.empty()) {
      const std::size_t now = std::min<std::size_t>(into.size(), step_bytes_);
      DISKFERRY_CO_CHECK(co_await device_->read(offset, into.first(now)));
      offset += now;
      into = into.subspan(now);
    }
    co_return Result<void>{};
  }

  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    const Call call(*this);
    check_writable({offset, from.size()});
    if (from.empty()) co_return Result<void>{};
    const bool flush_after = take_flush(flags.fua);
    if (from.size() <= info_.request_bytes_max) {
      if (!flush_after) co_return co_await device_->write(offset, from, flags);
      DISKFERRY_CO_CHECK(co_await device_->write(offset, from, flags));
      co_return co_await device_->flush();
    }
    while (!from.empty()) {
      const std::size_t now = std::min<std::size_t>(from.size(), step_bytes_);
      DISKFERRY_CO_CHECK(co_await device_->write(offset, from.first(now), flags));
      offset += now;
      from = from.subspan(now);
    }
    if (flush_after) co_return co_await device_->flush();
    co_return Result<void>{};
  }

  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    const Call call(*this);
    check_writable(range);
    if (range.empty()) co_return Result<void>{};
    if (flags.fast_only && info_.zero < ZeroSupport::fast)
      co_return unexpected(
          fail(ErrorKind::unsupported, "zero quickly", info_.name).at(range.offset, range.length));
    const bool flush_after = take_flush(flags.fua);
    if (info_.zero == ZeroSupport::none) {
      DISKFERRY_CO_CHECK(co_await write_zeros_as_data(range, flags.fua));
    } else {
      DISKFERRY_CO_CHECK(co_await device_->write_zeroes(range, flags));
    }
    if (flush_after) co_return co_await device_->flush();
    co_return Result<void>{};
  }

  Task<Result<void>> discard(Range range) override {
    const Call call(*this);
    DISKFERRY_ASSERT(!info_.is_read_only, "writing to a read-only device");
    check_inside(range);
    if (range.empty() || !info_.can_discard) co_return Result<void>{};
    co_return co_await device_->discard(range);
  }

  Task<Result<void>> flush() override {
    const Call call(*this);
    check_open();
    if (info_.is_read_only) co_return Result<void>{};
    co_return co_await device_->flush();
  }

  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    const Call call(*this);
    check_inside(range);
    DISKFERRY_ASSERT(extents_max > 0, "asking for no extents");
    if (range.empty()) co_return std::vector<Extent>{};
    if (!info_.can_report_extents)
      co_return std::vector<Extent>{{.offset = range.offset, .length = range.length}};
    DISKFERRY_CO_TRY(auto found, co_await device_->extents(range, extents_max));
    std::uint64_t at = range.offset;
    for (const Extent& extent : found) {
      DISKFERRY_ASSERT(extent.offset == at && extent.length > 0, "a driver's extents are contiguous");
      DISKFERRY_ASSERT(extent.length <= range.end() - at, "a driver's extents stay inside the range");
      at = extent.end();
    }
    DISKFERRY_ASSERT(!found.empty() && found.size() <= extents_max, "as many extents as were asked for");
    co_return found;
  }

  Task<Result<void>> close() override {
    DISKFERRY_ASSERT(!closed_.exchange(true), "a device is closed once");
    DISKFERRY_ASSERT(calls_.load() == 0, "a device is closed while it is used");
    co_return co_await device_->close();
  }

  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override {
    check_inside({offset, into.size()});
    if (into.empty()) return Result<void>{};
    if (into.size() > info_.request_bytes_max) return std::nullopt;
    return device_->try_read(offset, into);
  }
  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from) override {
    check_writable({offset, from.size()});
    if (from.empty()) return Result<void>{};
    if (from.size() > info_.request_bytes_max) return std::nullopt;
    return device_->try_write(offset, from);
  }
  Task<Result<void>> prefetch(Range range) override {
    const Call call(*this);
    check_inside(range);
    if (range.empty()) co_return Result<void>{};
    co_return co_await device_->prefetch(range);
  }
  Task<Result<void>> start_writeback(Range range) override {
    const Call call(*this);
    check_inside(range);
    if (range.empty() || info_.is_read_only) co_return Result<void>{};
    co_return co_await device_->start_writeback(range);
  }
  Task<Result<std::uint64_t>> copy_from(BlockDevice& source, std::uint64_t source_offset,
                                        std::uint64_t offset, std::uint64_t length) override {
    const Call call(*this);
    check_writable({offset, length});
    DISKFERRY_ASSERT(is_inside({source_offset, length}, source.size_bytes()),
                     "the range lies inside the source");
    if (length == 0) co_return std::uint64_t{0};
    DISKFERRY_CO_TRY(const std::uint64_t copied,
                     co_await device_->copy_from(source.unwrapped(), source_offset, offset, length));
    DISKFERRY_ASSERT(copied <= length, "a driver copies no more than it was asked to");
    co_return copied;
  }
  std::uint64_t repeated_requests() const noexcept override { return device_->repeated_requests(); }
  void stop_waiting() noexcept override { device_->stop_waiting(); }
  BlockDevice& unwrapped() noexcept override { return device_->unwrapped(); }

 private:
  /// Counts the calls in flight: what is closed or destroyed under one of them would be used after its end.
  class Call {
   public:
    explicit Call(CheckedDevice& device) : calls_(device.calls_) {
      calls_.fetch_add(1, std::memory_order_relaxed);
    }
    ~Call() { calls_.fetch_sub(1, std::memory_order_release); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    std::atomic<std::uint32_t>& calls_;
  };

  void check_open() const {
    DISKFERRY_ASSERT(!closed_.load(std::memory_order_relaxed), "the device is closed");
  }
  void check_inside(Range range) const {
    check_open();
    const std::uint64_t size = size_bytes();
    DISKFERRY_ASSERT(is_aligned(range.offset, info_.block_bytes), "offset is aligned to block_bytes");
    DISKFERRY_ASSERT(is_inside(range, size), "the range lies inside the device");
    DISKFERRY_ASSERT(is_aligned(range.length, info_.block_bytes) || range.end() == size,
                     "length is aligned to block_bytes or ends at the device's end");
  }
  void check_writable(Range range) const {
    DISKFERRY_ASSERT(!info_.is_read_only, "writing to a read-only device");
    if (!info_.can_grow || is_inside(range, size_bytes())) return check_inside(range);
    check_open();
    DISKFERRY_ASSERT(is_aligned(range.offset, info_.block_bytes), "offset is aligned to block_bytes");
    DISKFERRY_ASSERT(range.length <= INT64_MAX && range.offset <= INT64_MAX - range.length,
                     "the range lies inside the device");
  }

  /// Where the device has no FUA, it is a flush at the end. Clears `fua` and returns true then.
  bool take_flush(bool& fua) const noexcept {
    const bool flush_after = fua && !info_.can_fua;
    if (flush_after) fua = false;
    return flush_after;
  }

  Task<Result<void>> write_zeros_as_data(Range range, bool fua) {
    while (!range.empty()) {
      const ZeroPiece piece = take_zeros(range, step_bytes_);
      DISKFERRY_CO_CHECK(co_await device_->write(piece.offset, piece.bytes, {.fua = fua}));
    }
    co_return Result<void>{};
  }

  const DevicePtr device_;
  const DeviceInfo info_;
  std::uint64_t step_bytes_ = 0;  // request_bytes_max in whole blocks
  std::atomic<std::uint32_t> calls_ = 0;
  std::atomic<bool> closed_ = false;
};

}  // namespace

DevicePtr checked(DevicePtr device) {
  return std::make_unique<CheckedDevice>(std::move(device));
}

}  // namespace diskferry
