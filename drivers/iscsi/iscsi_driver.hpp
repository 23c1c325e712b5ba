// Disks that are LUNs of an iSCSI target, without the kernel's initiator and without being root.
#pragma once

#include "diskferry/driver.hpp"

namespace diskferry {
extern const Driver iscsi_driver;
}  // namespace diskferry
