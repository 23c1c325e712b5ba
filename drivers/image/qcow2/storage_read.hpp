// Reading any bytes of a storage, also where it takes whole blocks only, and past its end. Tables and
// compressed clusters lie where the image says, not where the storage would like them.
#pragma once

#include "diskferry/block_device.hpp"

namespace diskferry::qcow2 {

/// Fills `into` from `offset`; what lies beyond the end of the storage is zeros. Errors: as
/// BlockDevice::read. Lifetime: `into` until the task ends.
Task<Result<void>> read_storage(BlockDevice& storage, std::uint64_t offset, std::span<std::byte> into);
/// The same without waiting; nullopt: not now. Answers only what is aligned to the storage's blocks.
std::optional<Result<void>> try_read_storage(BlockDevice& storage, std::uint64_t offset,
                                             std::span<std::byte> into);

}  // namespace diskferry::qcow2
