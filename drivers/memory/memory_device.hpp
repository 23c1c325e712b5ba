// A disk in memory: the simplest driver, the twin that tests use, and scratch space. Sparse, by pages of 64
// KiB.
#pragma once

#include "diskferry/driver.hpp"

namespace diskferry {

struct MemoryOptions {
  std::uint64_t size_bytes = 0;
  std::uint32_t block_bytes = 1;
  bool read_only = false;
  bool can_grow = false;
  ZeroSupport zero = ZeroSupport::unmapping;
  bool can_discard = true;
  bool can_report_extents = true;
  bool can_fua = true;
  bool can_multi_connection = true;
};

/// A driver's device: put it behind checked().
DevicePtr make_memory_device(MemoryOptions options);

/// memory:///?size=64M&block=512
extern const Driver memory_driver;

}  // namespace diskferry
