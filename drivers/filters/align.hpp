// Byte granularity over a device that only takes whole blocks: what is not aligned is read, changed and
// written back under a lock on the blocks it touches. The NBD server uses it for exports, so that a client
// may ask for any bytes; requests that are aligned already pass through.
#pragma once

#include "diskferry/driver.hpp"

#include <array>
#include <memory>

namespace diskferry {

/// A range of a device cut where its blocks begin: `head` and `tail` are parts of one block each, `middle` is
/// whole blocks (the device's short last block counts as whole). Each may be empty; inside one block the
/// range is all head, or all tail where it begins with the block.
struct BlockPieces {
  Range head;
  Range middle;
  Range tail;
  std::array<Range, 2> edges() const noexcept { return {head, tail}; }
  bool operator==(const BlockPieces&) const = default;
};
/// Precondition: the range lies inside the device.
BlockPieces split_at_blocks(Range range, std::uint64_t block_bytes, std::uint64_t size_bytes) noexcept;
/// The whole blocks that a range touches. Precondition: the range lies inside the device.
Range whole_blocks_around(Range range, std::uint64_t block_bytes, std::uint64_t size_bytes) noexcept;

/// A filter with block_bytes 1 over `inner`, which is behind checked(). Put the filter itself behind
/// checked(), too. Overlapping writes are atomic byte by byte as the contract of BlockDevice asks, also
/// where one of them needs a read-modify-write. The size is fixed: what `inner` could grow is not offered.
/// Memory: at most 2 MiB for edges, however many requests there are; further ones wait for it.
/// close() closes `inner`.
DevicePtr make_align_device(std::shared_ptr<BlockDevice> inner);

/// `device` itself when it takes single bytes, else the filter over it, checked. Both are closed by closing
/// what is returned, once.
std::shared_ptr<BlockDevice> with_byte_granularity(std::shared_ptr<BlockDevice> device);

}  // namespace diskferry
