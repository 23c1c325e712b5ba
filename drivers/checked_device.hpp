// The one layer every call on a device passes through. It asserts what callers owe (range, alignment,
// capability: a violation is a defect of ours and ends the process), splits what is larger than the device
// takes, and emulates what a driver lacks: zeroing by writing zeros, FUA by a flush, extents by "all data",
// discard by nothing.
#pragma once

#include "diskferry/driver.hpp"

namespace diskferry {

/// Wraps a driver's device. After this, every verb may be called with any length inside the device, and
/// write_zeroes works on every writable device.
DevicePtr checked(DevicePtr device);

}  // namespace diskferry
