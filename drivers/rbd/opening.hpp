// How an image is opened without blocking a reactor, and how its other users are waited for.
#pragma once

#include "drivers/rbd/image.hpp"

namespace diskferry::rbd {

/// Errors: as Image::open. Cancel: at once; what the library is doing is given up, and let go of by itself.
Task<Result<std::shared_ptr<Image>>> open_image(DriverContext& context, Endpoint endpoint, Purpose purpose);
/// The same for writing, when nobody else has it open: waits for others, takes the exclusive lock. Neither
/// with `without_lock`, see OpenOptions: librbd then hands the lock over to whoever writes. Errors: in_use.
Task<Result<std::shared_ptr<Image>>> open_for_writing(DriverContext& context, Endpoint endpoint,
                                                      bool without_lock);
/// Closes it, where that may block.
Task<void> close_image(BlockingPool& pool, std::shared_ptr<Image> image);

}  // namespace diskferry::rbd
