// Disks that are files on an NFS server, without mounting it and without being root.
#pragma once

#include "diskferry/driver.hpp"

namespace diskferry {
extern const Driver nfs_driver;
}  // namespace diskferry
