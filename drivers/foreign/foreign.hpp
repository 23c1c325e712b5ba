// Images of other hypervisors, and files on web and SSH servers, read through a confined qemu-nbd. What is
// opened here is a device like any other; the parsing of hostile bytes happens elsewhere.
#pragma once

#include "diskferry/driver.hpp"

#include <string>
#include <vector>

namespace diskferry::foreign {

struct ForeignImage {
  ImageUri uri{};
  std::string format{};                ///< one of formats.hpp
  std::string real_path{};             ///< as OpenOptions::real_path
  std::vector<std::string> folders{};  ///< further files (extents, backing) are read below these only
  bool force_share = false;
  unsigned connections = 0;  ///< as OpenOptions::connections
};
struct OpenedForeign {
  DevicePtr device{};
  std::vector<std::string> further_files{};  ///< that it reads besides the one that was named
};

/// Read-only. A file is read by one child without network; what lies on a web or SSH server, by one that
/// talks to the server and never sees what the bytes mean, and one that parses them and reaches nothing but
/// the first. Errors: as Driver::open; unsupported (no qemu-nbd, no way to confine it), corrupt, permission
/// (an extent outside the folders).
Task<Result<OpenedForeign>> open_foreign(DriverContext& context, ForeignImage image);

}  // namespace diskferry::foreign

namespace diskferry {

/// http://[user@]host[:port]/path, https://; keys in endpoint.hpp. Both can be looked at as sources: their
/// size, and whether their first or last 64 KiB have changed.
extern const Driver http_driver;
/// ssh://[user@]host[:port]/path; keys in endpoint.hpp.
extern const Driver ssh_driver;

}  // namespace diskferry
