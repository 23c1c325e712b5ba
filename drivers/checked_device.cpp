// See checked_device.hpp. Holds no state of its own but for the device and the zeros that emulation writes.
#include "drivers/checked_device.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/units.hpp"

#include <algorithm>
#include <array>
#include <atomic>

namespace diskferry {
namespace {

constexpr std::size_t zeros_bytes = 256 * 1024;
alignas(4096) constinit const std::array<std::byte, zeros_bytes> zeros{};

class CheckedDevice final : public BlockDevice {
 public:
  explicit CheckedDevice(DevicePtr device) : device_(std::move(device)), driver_info_(device_->info()) {
    info_ = driver_info_;
    DISKFERRY_ASSERT(std::has_single_bit(info_.block_bytes) && info_.block_bytes <= 65536,
                     "a block size is a power of two up to 64 KiB");
    DISKFERRY_ASSERT(info_.request_bytes_max >= info_.block_bytes, "a request holds at least one block");
    info_.can_report_extents = driver_info_.can_report_extents;
  }
  ~CheckedDevice() override = default;

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return device_->size_bytes(); }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    check_range({offset, into.size()}, false);
    if (into.size() <= info_.request_bytes_max) co_return co_await device_->read(offset, into);
    while (!into.empty()) {
      const std::size_t now = std::min<std::size_t>(into.size(), info_.request_bytes_max);
      DISKFERRY_CO_CHECK(co_await device_->read(offset, into.first(now)));
      offset += now;
      into = into.subspan(now);
    }
    co_return Result<void>{};
  }

  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    check_range({offset, from.size()}, true);
    const bool flush_after = flags.fua && !info_.can_fua;
    if (flush_after) flags.fua = false;
    while (true) {
      const std::size_t now = std::min<std::size_t>(from.size(), info_.request_bytes_max);
      DISKFERRY_CO_CHECK(co_await device_->write(offset, from.first(now), flags));
      offset += now;
      from = from.subspan(now);
      if (from.empty()) break;
    }
    if (flush_after) co_return co_await device_->flush();
    co_return Result<void>{};
  }

  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    check_range(range, true);
    if (range.empty()) co_return Result<void>{};
    const bool flush_after = flags.fua && !info_.can_fua;
    ZeroFlags passed = flags;
    if (flush_after) passed.fua = false;
    if (info_.zero == ZeroSupport::none) {
      if (flags.fast_only)
        co_return unexpected(
            fail(ErrorKind::unsupported, "zero quickly", info_.name).at(range.offset, range.length));
      DISKFERRY_CO_CHECK(co_await write_zeros_as_data(range));
    } else {
      DISKFERRY_CO_CHECK(co_await device_->write_zeroes(range, passed));
    }
    if (flush_after) co_return co_await device_->flush();
    co_return Result<void>{};
  }

  Task<Result<void>> discard(Range range) override {
    check_range(range, true);
    if (range.empty() || !info_.can_discard) co_return Result<void>{};
    co_return co_await device_->discard(range);
  }

  Task<Result<void>> flush() override {
    check_open();
    co_return co_await device_->flush();
  }

  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    check_range(range, false);
    DISKFERRY_ASSERT(extents_max > 0, "asking for no extents");
    if (range.empty()) co_return std::vector<Extent>{};
    if (!info_.can_report_extents)
      co_return std::vector<Extent>{{.offset = range.offset, .length = range.length}};
    DISKFERRY_CO_TRY(auto found, co_await device_->extents(range, extents_max));
    std::uint64_t at = range.offset;
    for (const Extent& extent : found) {
      DISKFERRY_ASSERT(extent.offset == at && extent.length > 0, "a driver's extents are contiguous");
      at = extent.end();
    }
    DISKFERRY_ASSERT(!found.empty() && at <= range.end(), "a driver's extents stay inside the range");
    co_return found;
  }

  Task<Result<void>> close() override {
    DISKFERRY_ASSERT(!closed_.exchange(true), "a device is closed once");
    co_return co_await device_->close();
  }

  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override {
    check_range({offset, into.size()}, false);
    return device_->try_read(offset, into);
  }
  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from) override {
    check_range({offset, from.size()}, true);
    return device_->try_write(offset, from);
  }
  Task<Result<void>> prefetch(Range range) override {
    check_range(range, false);
    co_return co_await device_->prefetch(range);
  }
  Task<Result<void>> start_writeback(Range range) override {
    check_range(range, true);
    co_return co_await device_->start_writeback(range);
  }
  Task<Result<std::uint64_t>> copy_from(BlockDevice& source, std::uint64_t source_offset,
                                        std::uint64_t offset, std::uint64_t length) override {
    check_range({offset, length}, true);
    co_return co_await device_->copy_from(source.unwrapped(), source_offset, offset, length);
  }
  BlockDevice& unwrapped() noexcept override { return device_->unwrapped(); }

 private:
  void check_open() const {
    DISKFERRY_ASSERT(!closed_.load(std::memory_order_relaxed), "the device is closed");
  }
  void check_range(Range range, bool for_writing) const {
    check_open();
    DISKFERRY_ASSERT(!for_writing || !info_.is_read_only, "writing to a read-only device");
    DISKFERRY_ASSERT(is_aligned(range.offset, info_.block_bytes), "offset is aligned to block_bytes");
    if (is_inside(range, size_bytes())) {
      DISKFERRY_ASSERT(is_aligned(range.length, info_.block_bytes) || range.end() == size_bytes(),
                       "length is aligned to block_bytes or ends at the device's end");
    } else {
      DISKFERRY_ASSERT(for_writing && info_.can_grow && range.length <= INT64_MAX &&
                           range.offset <= INT64_MAX - range.length,
                       "the range lies inside the device");
    }
  }

  Task<Result<void>> write_zeros_as_data(Range range) {
    const std::uint64_t step =
        std::min<std::uint64_t>(zeros_bytes, align_down(info_.request_bytes_max, info_.block_bytes));
    while (!range.empty()) {
      const std::uint64_t now = std::min(range.length, step);
      DISKFERRY_CO_CHECK(co_await device_->write(range.offset, std::span(zeros).first(now), {}));
      range.offset += now;
      range.length -= now;
    }
    co_return Result<void>{};
  }

  const DevicePtr device_;
  const DeviceInfo driver_info_;
  DeviceInfo info_;
  std::atomic<bool> closed_ = false;
};

}  // namespace

DevicePtr checked(DevicePtr device) {
  return std::make_unique<CheckedDevice>(std::move(device));
}

}  // namespace diskferry
