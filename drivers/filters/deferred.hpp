// A device that is opened when it is first used: for storage that is known by name and size, and will be
// there by then (the NBD server inside a QEMU that has yet to start). What it can do is promised beforehand
// and checked at the opening.
#pragma once

#include "diskferry/driver.hpp"

#include <functional>

namespace diskferry {

struct DeferredOptions {
  DeviceInfo info{};  ///< what is promised; block_bytes at least that of what will be opened
  std::uint64_t size_bytes = 0;
  /// How long the first call tries again when what it opens is not there yet or does not answer.
  Duration open_limit = std::chrono::seconds(30);
  Duration open_pause = std::chrono::milliseconds(50);  ///< between two tries
};
using DeferredOpen = std::function<Task<Result<DevicePtr>>()>;

/// `open` gives a checked device; it is called until it succeeds once, never two at a time. A failure other
/// than not_found, gone, io, permission or timed_out is final and every call returns it, as is the passing of
/// the limit. Errors further: mismatch when the size differs or it is less able than promised. close() closes
/// what was opened.
DevicePtr make_deferred_device(Clock& clock, DeferredOptions options, DeferredOpen open);

}  // namespace diskferry
