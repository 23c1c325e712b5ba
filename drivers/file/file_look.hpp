// Asking about a file or block device without opening it for writing. Called by the file driver on a blocking
// thread.
#pragma once

#include "diskferry/driver.hpp"

namespace diskferry {

/// See Driver::look. The identity is one of this host: device and inode.
Result<VolumeFacts> look_at_file(const ImageUri& uri, LookOptions options);

}  // namespace diskferry
