// The driver for what the local system shows as a file: regular files (also on NFS and the like, when
// mounted) and block devices. Scheme "file": paths and file:///path.
#pragma once

#include "diskferry/driver.hpp"

namespace diskferry {

extern const Driver file_driver;

}  // namespace diskferry
