// A regular file or block device as a BlockDevice. Made by the file driver from what it has opened.
#pragma once

#include "diskferry/driver.hpp"
#include "drivers/file/file_facts.hpp"
#include "drivers/file/open_file.hpp"

namespace diskferry {

/// A driver's device: put it behind checked(). Locks are the caller's and live as long as the descriptor.
DevicePtr make_file_device(DriverContext& context, OpenedFile file, FileFacts facts);

}  // namespace diskferry
