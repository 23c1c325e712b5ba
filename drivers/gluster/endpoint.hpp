// Where a disk on a GlusterFS volume is, taken out of a URI. Pure: parsing asks nobody. The fields are handed
// to libgfapi one by one, and never as the operator's URI, so that a name cannot switch on anything.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/driver.hpp"

#include <array>
#include <string>
#include <vector>

namespace diskferry::gluster {

/// A management daemon (glusterd) that tells which bricks a volume has.
struct Server {
  std::string transport;   ///< "tcp" or "unix"
  std::string host;        ///< with "unix" the path of its socket
  std::uint16_t port = 0;  ///< 0: the library's own, 24007
  bool operator==(const Server&) const = default;
};

struct Endpoint {
  std::string name;  ///< for messages: the URI
  std::vector<Server> servers;
  std::string volume;
  std::string path;  ///< in the volume, with a slash in front
  Duration connect_limit = std::chrono::seconds(10);
  /// How long a request waits for a lost brick. The library looks for it every three seconds.
  Duration reconnect_limit = std::chrono::seconds(120);
  /// Without an answer for this long a brick counts as lost. GlusterFS's own default (network.ping-timeout).
  std::uint32_t stall_s = 42;

  /// What a brick that answers pings may take for one request (its disk hangs), in seconds; then the library
  /// gives the request up (frame-timeout).
  std::uint32_t frame_s() const noexcept { return 10 * stall_s; }
  /// How long making or removing a file may take. The library's own limit comes first: a change that we give
  /// up goes on, and nobody hears what becomes of it. Preallocating is one request, of whatever size.
  Duration change_limit() const;
  /// The folder that the file is in.
  std::string folder() const;
  /// The same text for all that can share one mount.
  std::string mount_key() const;
};

inline constexpr std::size_t path_bytes_max = 4095;  // PATH_MAX, which the bricks have, with its zero
inline constexpr std::size_t name_bytes_max = 255;   // NAME_MAX
inline constexpr std::size_t volume_bytes_max = 255;
inline constexpr std::size_t socket_path_bytes_max = 107;  // sun_path is 108 bytes with its NUL (unix(7))
inline constexpr std::size_t servers_max = 16;

inline constexpr std::array<DriverKey, 5> endpoint_keys{{
    {"socket", "gluster+unix: the socket of the management daemon on this host"},
    {"backup-servers", "further servers of the volume, HOST[:PORT],..., asked where the first is away"},
    {"connect-timeout", "seconds to mount the volume and open the file (default 10)"},
    {"reconnect-timeout", "seconds to wait for a lost brick (default 120; 0: not at all)"},
    {"stall-timeout", "whole seconds without an answer until a brick counts as lost (default 42)"},
}};

/// Errors: invalid_argument, too_large.
Result<Endpoint> parse_endpoint(const ImageUri& uri);

}  // namespace diskferry::gluster
