// Reading guest data and telling extents: the reading verbs of Qcow2Device, as functions over ImageState so
// that copy-on-write uses the very same code.
#pragma once

#include "drivers/image/qcow2/image_state.hpp"

#include <optional>
#include <span>
#include <vector>

namespace diskferry::qcow2 {

/// Fills `into` with what the guest sees at `offset` (inside the disk). Errors: corrupt, with the guest's
/// address; as BlockDevice::read of the layers below. Lifetime: both until the task ends.
Task<Result<void>> read_guest(ImageState& image, std::uint64_t offset, std::span<std::byte> into);

/// The same without waiting, when tables and data are in memory.
std::optional<Result<void>> try_read_guest(ImageState& image, std::uint64_t offset,
                                           std::span<std::byte> into);

/// What the image below has there; zeros beyond its end, or where there is none.
Task<Result<void>> read_backing(ImageState& image, std::uint64_t offset, std::span<std::byte> into);

/// As BlockDevice::extents, across the chain.
Task<Result<std::vector<Extent>>> guest_extents(ImageState& image, Range range, std::size_t extents_max);

}  // namespace diskferry::qcow2
