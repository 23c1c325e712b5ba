// See the header.
#include "drivers/filters/slice.hpp"

#include "diskferry/assert.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/align.hpp"

#include <fmt/format.h>
#include <utility>

namespace diskferry {
namespace {

DeviceInfo info_of(const BlockDevice& inner) {
  DeviceInfo info = inner.info();
  info.can_grow = false;
  return info;
}

class SliceDevice final : public BlockDevice {
 public:
  SliceDevice(std::shared_ptr<BlockDevice> inner, Range part)
      : inner_(std::move(inner)), part_(part), info_(info_of(*inner_)) {}

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return part_.length; }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    return inner_->read(part_.offset + offset, into);
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    return inner_->write(part_.offset + offset, from, flags);
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    return inner_->write_zeroes(below(range), flags);
  }
  Task<Result<void>> discard(Range range) override { return inner_->discard(below(range)); }
  Task<Result<void>> flush() override { return inner_->flush(); }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    DISKFERRY_CO_TRY(auto found, co_await inner_->extents(below(range), extents_max));
    for (Extent& extent : found) extent.offset -= part_.offset;
    co_return found;
  }
  Task<Result<void>> close() override { return inner_->close(); }

  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override {
    return inner_->try_read(part_.offset + offset, into);
  }
  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from) override {
    return inner_->try_write(part_.offset + offset, from);
  }
  Task<Result<void>> prefetch(Range range) override { return inner_->prefetch(below(range)); }
  Task<Result<void>> start_writeback(Range range) override { return inner_->start_writeback(below(range)); }
  Task<Result<std::uint64_t>> copy_from(BlockDevice& source, std::uint64_t source_offset,
                                        std::uint64_t offset, std::uint64_t length) override {
    return inner_->copy_from(source, source_offset, part_.offset + offset, length);
  }
  std::uint64_t repeated_requests() const noexcept override { return inner_->repeated_requests(); }
  void stop_waiting() noexcept override { inner_->stop_waiting(); }

 private:
  Range below(Range range) const noexcept { return {part_.offset + range.offset, range.length}; }

  const std::shared_ptr<BlockDevice> inner_;
  const Range part_;
  const DeviceInfo info_;
};

bool is_cut_at_blocks(const BlockDevice& device, Range part) {
  const std::uint64_t block = device.info().block_bytes;
  return part.offset % block == 0 && (part.end() % block == 0 || part.end() == device.size_bytes());
}

}  // namespace

DevicePtr make_slice_device(std::shared_ptr<BlockDevice> inner, Range part) {
  DISKFERRY_ASSERT(inner && part.offset <= inner->size_bytes() &&
                       part.length <= inner->size_bytes() - part.offset && is_cut_at_blocks(*inner, part),
                   "a slice lies inside its device and is whole blocks of it");
  return std::make_unique<SliceDevice>(std::move(inner), part);
}

Result<std::shared_ptr<BlockDevice>> slice_of(const std::shared_ptr<BlockDevice>& device, Range part) {
  const std::uint64_t size_bytes = device->size_bytes();
  if (part.offset == 0 && part.length == size_bytes) return device;
  if (part.offset > size_bytes || part.length > size_bytes - part.offset)
    return unexpected(fail(ErrorKind::mismatch, "use a part", device->info().name)
                          .why(fmt::format("it has {} bytes, and {} from {} on are needed", size_bytes,
                                           part.length, part.offset))
                          .remedy("name storage that is large enough"));
  auto below = is_cut_at_blocks(*device, part) ? device : with_byte_granularity(device);
  return std::shared_ptr<BlockDevice>(checked(make_slice_device(std::move(below), part)));
}

}  // namespace diskferry
