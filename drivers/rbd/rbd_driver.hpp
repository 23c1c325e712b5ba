// Disks that are images in a Ceph cluster (RBD), without mapping them and without being root.
#pragma once

#include "diskferry/driver.hpp"

namespace diskferry {
extern const Driver rbd_driver;
}  // namespace diskferry
