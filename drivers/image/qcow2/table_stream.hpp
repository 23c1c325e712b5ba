// Reading a table of records of varying length from front to back: the snapshot table and the bitmap
// directory. It holds a bounded window in memory, so that what a hostile image claims costs nothing.
#pragma once

#include "diskferry/block_device.hpp"

#include <string_view>
#include <vector>

namespace diskferry::qcow2 {

class TableStream {
 public:
  /// `what` names the table in errors; `storage` outlives the stream.
  TableStream(BlockDevice& storage, Range where, std::string_view what)
      : storage_(storage), left_(where), what_(what) {}

  /// The next `bytes` of the table (at most 256 KiB); valid until the next call.
  /// Errors: corrupt when the table or the file ends before; as BlockDevice::read.
  Task<Result<std::span<const std::byte>>> next(std::size_t bytes);
  /// Skips to a multiple of 8 from the start of the table. Errors: as next().
  Task<Result<void>> align();
  std::uint64_t position() const noexcept { return position_; }

 private:
  BlockDevice& storage_;
  Range left_;  // not yet in window_
  std::string_view what_;
  std::vector<std::byte> window_;
  std::size_t at_ = 0;          // in window_
  std::uint64_t position_ = 0;  // in the table
};

}  // namespace diskferry::qcow2
