// What is done to an image as a whole: made, emptied, removed, looked at. Each blocks and is called on a
// thread of the BlockingPool.
#pragma once

#include "drivers/rbd/image.hpp"

namespace diskferry::rbd {

/// Errors: already_exists, permission, no_space, not_found (a pool).
Result<void> make_image(const Endpoint& endpoint, std::uint64_t size_bytes);
/// Gives all of its storage back: what it reads afterwards is zeros. `image` is ours. Errors: cancelled,
/// where `stop` became true meanwhile: some of its content is gone.
Result<void> empty_image(Image& image, std::uint64_t size_bytes, std::atomic<bool>& stop);
/// Errors: not_found, in_use (somebody has it open, or it has snapshots), permission; cancelled, where `stop`
/// became true meanwhile: its name is free, the rest of it is in the cluster's trash, and removing that name
/// once more goes on.
Result<void> remove_image(const Endpoint& endpoint, std::atomic<bool>& stop);
/// Errors: as Image::open, but not where the image is not there.
Result<VolumeFacts> look_at_image(const Endpoint& endpoint, const LookOptions& options);

}  // namespace diskferry::rbd
