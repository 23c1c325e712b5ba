// RbdDevice: an open image as a block device. A request that the library cannot bring to an end in time,
// or a fence, ends the device once and for all.
#pragma once

#include "diskferry/driver.hpp"
#include "drivers/rbd/image.hpp"
#include "drivers/rbd/requests.hpp"

#include <atomic>
#include <mutex>
#include <optional>

namespace diskferry::rbd {

class RbdDevice final : public BlockDevice {
 public:
  /// `reactor`: of the context, on which answers are collected. `image` is ours where `purpose` is to write.
  RbdDevice(DriverContext& context, Executor reactor, const Endpoint& endpoint, std::shared_ptr<Image> image,
            Purpose purpose);

  /// Once, before any other verb; afterwards close() is due, also where this failed.
  Task<Result<void>> start();

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return size_bytes_.load(std::memory_order_acquire); }
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override;
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override;
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override;
  Task<Result<void>> discard(Range range) override;
  Task<Result<void>> flush() override;
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override;
  Task<Result<void>> close() override;
  void stop_waiting() noexcept override;

 private:
  Task<Result<void>> perform(Request request);
  Task<Result<void>> perform_in_pieces(Verb verb, Range range);
  Task<Result<void>> make_room(Range range);
  Task<Result<void>> start_requests();
  Task<Result<void>> stop_requests();
  Result<void> judge(const Request& request, std::int64_t result);
  Result<void> check_gone() const;

  DriverContext& context_;
  const Endpoint endpoint_;
  const Executor executor_;
  std::shared_ptr<Image> image_;
  Requests requests_;
  DeviceInfo info_{};

  std::atomic<std::uint64_t> size_bytes_;
  std::uint64_t image_bytes_;  ///< of the image, which grows in steps; guarded by growing_
  AsyncMutex growing_{};
  std::atomic<bool> is_gone_ = false;
  mutable std::mutex guard_;
  std::optional<Error> gone_;
};

}  // namespace diskferry::rbd
