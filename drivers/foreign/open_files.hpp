// Which files a child has opened, by what the kernel says of it. The extents and backing images that an image
// names become known in this way, and that they are where they may be is looked at a second time.
#pragma once

#include "diskferry/error.hpp"

#include <string>
#include <sys/types.h>
#include <vector>

namespace diskferry::foreign {

/// Files and block devices that `pid` has open, but for `image`, by their real paths. Errors: permission (one
/// that lies below none of `folders`, or a device; or one cannot be looked at), gone (`pid` has ended).
Result<std::vector<std::string>> further_files(pid_t pid, const std::string& image,
                                               const std::vector<std::string>& folders);

}  // namespace diskferry::foreign
