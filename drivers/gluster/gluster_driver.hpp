// Disks that are files on a GlusterFS volume, by libgfapi, without mounting it in the kernel.
#pragma once

#include "diskferry/driver.hpp"

namespace diskferry {
/// In a build without libgfapi all its verbs say so.
extern const Driver gluster_driver;
}  // namespace diskferry
