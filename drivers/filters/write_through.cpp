// See the header.
#include "drivers/filters/write_through.hpp"

#include <utility>

namespace diskferry {
namespace {

class WriteThroughDevice final : public BlockDevice {
 public:
  explicit WriteThroughDevice(std::shared_ptr<BlockDevice> inner) : inner_(std::move(inner)) {}

  const DeviceInfo& info() const noexcept override { return inner_->info(); }
  std::uint64_t size_bytes() const noexcept override { return inner_->size_bytes(); }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    return inner_->read(offset, into);
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    flags.fua = true;
    return inner_->write(offset, from, flags);
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    flags.fua = true;
    return inner_->write_zeroes(range, flags);
  }
  Task<Result<void>> discard(Range range) override {
    DISKFERRY_CO_CHECK(co_await inner_->discard(range));
    co_return co_await inner_->flush();
  }
  Task<Result<void>> flush() override { return inner_->flush(); }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    return inner_->extents(range, extents_max);
  }
  Task<Result<void>> close() override { co_return Result<void>{}; }

  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override {
    return inner_->try_read(offset, into);
  }
  Task<Result<void>> prefetch(Range range) override { return inner_->prefetch(range); }
  std::uint64_t repeated_requests() const noexcept override { return inner_->repeated_requests(); }
  void stop_waiting() noexcept override { inner_->stop_waiting(); }

 private:
  const std::shared_ptr<BlockDevice> inner_;
};

}  // namespace

DevicePtr make_write_through_device(std::shared_ptr<BlockDevice> inner) {
  return std::make_unique<WriteThroughDevice>(std::move(inner));
}

}  // namespace diskferry
