// Endpoint: where an NBD export is and how to get there, taken out of a URI (the NBD URI specification).
// Pure: parsing looks at no file and resolves no name. The fields are handed to libnbd one by one, never as a
// URI, so that a URI cannot switch on anything that is not named here.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/driver.hpp"

#include <array>
#include <string>

namespace diskferry::nbd {

struct Endpoint {
  std::string name;         ///< for messages: the URI without secrets
  std::string host;         ///< empty: a UNIX socket
  std::string port;         ///< decimal
  std::string socket_path;  ///< of a UNIX socket
  std::string export_name;  ///< at most 4096 bytes (NBD protocol, "String values")

  bool is_tls = false;  ///< nbds: TLS or no connection at all
  std::string
      tls_certificates;      ///< folder with ca-cert.pem, and for a client certificate client-{cert,key}.pem
  std::string tls_psk_file;  ///< user:hexkey lines
  std::string tls_username;  ///< for the PSK file
  std::string tls_hostname;  ///< the name the certificate must have, where it is not the host
  bool tls_verify_peer = true;

  unsigned connections = 0;  ///< 0: the driver's choice
  /// TCP and TLS handshake, NBD negotiation. 10 s is what QEMU's server allows a client.
  Duration connect_limit = std::chrono::seconds(10);
  /// How long a request waits for a lost server to come back. 30 s covers the restart of a server and the
  /// failover of an address, and is what guests wait for a disk before they complain.
  Duration reconnect_limit = std::chrono::seconds(30);
  /// Without a sign of life for this long while requests are in flight, a connection counts as lost. 60 s is
  /// longer than the error recovery of a disk and of an array's failover.
  Duration stall_limit = std::chrono::seconds(60);

  bool is_unix() const noexcept { return host.empty(); }
};

/// Connections a client may ask for: more only moves the queue into the server.
inline constexpr unsigned connections_max = 16;
inline constexpr std::size_t export_name_bytes_max = 4096;
/// sun_path is 108 bytes with its NUL (unix(7)).
inline constexpr std::size_t socket_path_bytes_max = 107;

inline constexpr std::array<DriverKey, 10> endpoint_keys{{
    {"socket", "path of the server's UNIX socket (nbd+unix, nbds+unix)"},
    {"tls-certificates", "folder with ca-cert.pem, client-cert.pem, client-key.pem"},
    {"tls-psk-file", "file with user:key lines for pre-shared keys"},
    {"tls-username", "user in the PSK file"},
    {"tls-verify-peer", "check the server's certificate (true or false; default true)"},
    {"tls-hostname", "name the server's certificate must have"},
    {"connections",
     "connections at once, 1 to 16 (default: as the server allows; one a core over UNIX, two over TCP)"},
    {"connect-timeout", "seconds to connect and negotiate (default 10)"},
    {"reconnect-timeout", "seconds to wait for a lost server (default 30; 0: not at all)"},
    {"stall-timeout", "seconds without a sign of life until a connection counts as lost (default 60)"},
}};

/// Errors: invalid_argument, too_large (export name, socket path).
Result<Endpoint> parse_endpoint(const ImageUri& uri);

}  // namespace diskferry::nbd
