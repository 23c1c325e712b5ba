// A part of a device as a device of its own: for storage that is larger than the disk on it, and for domain
// XML's <slice type='storage'>.
#pragma once

#include "diskferry/driver.hpp"

#include <memory>

namespace diskferry {

/// The bytes of `inner`, which is behind checked(), in `part`, which lies inside it and begins and ends where
/// blocks do (or where `inner` ends). Put it behind checked(), too. The size is fixed: what `inner` could
/// grow is not offered. close() closes `inner`.
DevicePtr make_slice_device(std::shared_ptr<BlockDevice> inner, Range part);

/// `device` itself where `part` is all of it, else the filter over it, checked; where `part` cuts blocks,
/// over one with byte granularity. Both are closed by closing what is returned, once. Errors: mismatch, where
/// `device` is smaller; then it is still open.
Result<std::shared_ptr<BlockDevice>> slice_of(const std::shared_ptr<BlockDevice>& device, Range part);

}  // namespace diskferry
