// Small files that the kernel makes.
#pragma once

#include <string>

namespace diskferry {

/// The first line of a file of sysfs, without blanks at its end; empty where there is none, or one longer
/// than anything that is a name (256 bytes). Blocks for a moment.
std::string sysfs_line(const std::string& path);

}  // namespace diskferry
