// The writing verbs of Qcow2Device; the work is in writer*.cpp.
#include "drivers/image/qcow2/writer.hpp"

#include <algorithm>

namespace diskferry::qcow2 {

Qcow2Device::~Qcow2Device() = default;

Task<Result<void>> Qcow2Device::open_for_writing(DriverContext&, DeviceParts parts) {
  if (parts.snapshot)
    co_return unexpected(
        fail(ErrorKind::read_only, "open for writing", image_.name).why("a snapshot cannot be written"));
  DISKFERRY_CO_TRY(writer_, co_await Writer::open(image_, parts.compress_writes));
  image_.is_writable = true;
  info_.is_read_only = false;
  info_.zero = image_.header.version >= 3 || !image_.backing ? ZeroSupport::unmapping : ZeroSupport::slow;
  info_.can_discard = true;
  // A part of the data's block would have to be read, changed and written while others write the rest of it.
  info_.block_bytes = image_.data().info().block_bytes;
  bool is_empty = !image_.backing && !image_.header.has_raw_data_file();
  for (std::size_t i = 0; is_empty && i < image_.l1->size(); ++i) is_empty = image_.l1->get(i) == 0;
  info_.starts_zeroed = is_empty;
  co_return Result<void>{};
}

std::vector<std::shared_ptr<const RecordedBitmap>> Qcow2Device::recorded_bitmaps() const {
  if (!writer_) return {};
  return writer_->recorded_bitmaps();
}

Task<Result<void>> Qcow2Device::write(std::uint64_t offset, std::span<const std::byte> from,
                                      WriteFlags flags) {
  co_return co_await writer_->write(offset, from, flags);
}
std::optional<Result<void>> Qcow2Device::try_write(std::uint64_t offset, std::span<const std::byte> from) {
  return writer_->try_write(offset, from);
}
Task<Result<void>> Qcow2Device::write_zeroes(Range range, ZeroFlags flags) {
  co_return co_await writer_->write_zeroes(range, flags);
}
Task<Result<void>> Qcow2Device::discard(Range range) {
  co_return co_await writer_->discard(range);
}
Task<Result<void>> Qcow2Device::flush() {
  if (!writer_) co_return Result<void>{};
  co_return co_await writer_->flush();
}
Task<Result<void>> Qcow2Device::preallocate(bool reserve) {
  co_return co_await writer_->preallocate(reserve);
}

Task<Result<void>> Qcow2Device::close() {
  Result<void> finished;
  if (writer_) finished = co_await writer_->finish();
  auto closed = co_await close_below();
  if (!finished) co_return unexpected(std::move(finished).error());
  co_return closed;
}

}  // namespace diskferry::qcow2
