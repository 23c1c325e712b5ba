// A qcow2 image as a block device: the verbs, each a thin call into reading (read.cpp) or writing
// (write.cpp). Opened by drivers/image, which finds the storage and the chain; put behind checked().
#pragma once

#include "drivers/image/qcow2/image_state.hpp"

#include <memory>
#include <optional>

namespace diskferry::qcow2 {

class RecordedBitmap;  // recorded_bitmap.hpp
class Writer;          // writer.hpp; only an image that is open for writing has one

struct DeviceParts {
  std::string name{};                        ///< for messages, without secrets
  Header header{};                           ///< as parse_header() gave it
  std::shared_ptr<BlockDevice> storage{};    ///< checked; writable when `writable`
  std::shared_ptr<BlockDevice> data_file{};  ///< checked; null: none
  std::shared_ptr<BlockDevice> backing{};    ///< checked; null: none, or not wanted
  std::optional<DiskView> snapshot{};        ///< read this disk instead of the active one
  bool writable = false;
  bool compress_writes = false;  ///< whole clusters written become compressed ones
};

class Qcow2Device final : public BlockDevice {
 public:
  /// For reading it reads nothing yet; for writing the L1 table and what write.cpp needs. Errors: corrupt,
  /// read_only (the image may not be written: corrupt bit), unsupported; as BlockDevice::read.
  static Task<Result<std::unique_ptr<Qcow2Device>>> open(DriverContext& context, DeviceParts parts);
  ~Qcow2Device() override;

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return image_.size_bytes; }
  ImageState& image() noexcept { return image_; }
  /// The bitmaps that record what is written here; none when not writable. (write.cpp)
  std::vector<std::shared_ptr<const RecordedBitmap>> recorded_bitmaps() const;

  // read.cpp
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override;
  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override;
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override;

  // write.cpp
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override;
  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from) override;
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override;
  Task<Result<void>> discard(Range range) override;
  Task<Result<void>> flush() override;
  std::uint64_t repeated_requests() const noexcept override;
  void stop_waiting() noexcept override;
  /// For image creation: allocates the whole disk; `reserve`: also in the storage. Precondition: writable.
  Task<Result<void>> preallocate(bool reserve);
  /// Writes back what the writer holds, then closes the devices below.
  Task<Result<void>> close() override;

 private:
  explicit Qcow2Device(DeviceParts parts);
  /// Makes writer_ and fills in what info_ says of writing. (write.cpp)
  Task<Result<void>> open_for_writing(DriverContext& context, DeviceParts parts);
  Task<Result<void>> close_below();

  ImageState image_;
  DeviceInfo info_;
  std::shared_ptr<Writer> writer_;  // one owner; shared_ptr only because Writer is incomplete here
};

}  // namespace diskferry::qcow2
