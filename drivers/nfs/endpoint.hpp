// Where a disk on an NFS server is, taken out of a URI. Pure: parsing asks nobody. The fields are handed to
// libnfs one by one, and never as the operator's URI, so that a name cannot switch on anything.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/driver.hpp"

#include <array>
#include <optional>
#include <string>

namespace diskferry::nfs {

struct Endpoint {
  std::string name;  ///< for messages: the URI
  std::string host;
  std::string folder;  ///< what is mounted: all but the last part of the path, as QEMU and libnfs do it
  std::string file;    ///< in that folder, with a slash in front
  unsigned version = 3;
  std::uint16_t nfs_port = 0;    ///< 0: the server's port mapper says
  std::uint16_t mount_port = 0;  ///< v3 only
  std::optional<std::uint32_t> uid{};
  std::optional<std::uint32_t> gid{};
  unsigned connections = 0;  ///< 0: the driver's choice
  Duration connect_limit = std::chrono::seconds(10);
  /// How long a request waits for a lost server. A server that restarts is back within seconds, but gives its
  /// clients a grace of 90 s by default, in which it may make them wait.
  Duration reconnect_limit = std::chrono::seconds(120);
  /// Without a sign of life for this long while requests are in flight, a connection counts as lost.
  Duration stall_limit = std::chrono::seconds(60);
};

inline constexpr unsigned connections_max = 16;
inline constexpr std::size_t path_bytes_max = 1023;  // MNTPATHLEN is 1024 (RFC 1813, 5.1.1)

inline constexpr std::array<DriverKey, 9> endpoint_keys{{
    {"version", "3 (default), or 4, which is for reading only"},
    {"nfsport", "the server's NFS port (default: what its port mapper says; version 4: 2049)"},
    {"mountport", "the server's MOUNT port (version 3; default: what its port mapper says)"},
    {"uid", "user id that the server is told (default: that of this process)"},
    {"gid", "group id that the server is told (default: that of this process)"},
    {"connections", "connections at once, 1 to 16 (default: two a core, 4 at least)"},
    {"connect-timeout", "seconds to connect, mount and open (default 10)"},
    {"reconnect-timeout", "seconds to wait for a lost server (default 120; 0: not at all)"},
    {"stall-timeout", "seconds without a sign of life until a connection counts as lost (default 60)"},
}};

/// Errors: invalid_argument, too_large.
Result<Endpoint> parse_endpoint(const ImageUri& uri);

}  // namespace diskferry::nfs
