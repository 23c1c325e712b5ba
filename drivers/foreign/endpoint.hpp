// Where a disk on a web or SSH server is, taken out of a URI, and how QEMU is told. Pure: parsing asks nobody
// and reads no file. QEMU gets the parts one by one and never the operator's URI.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/driver.hpp"
#include "drivers/foreign/node_options.hpp"

#include <array>
#include <cstddef>
#include <span>
#include <string>

namespace diskferry::foreign {

enum class HostKeyCheck : std::uint8_t { known_hosts, fingerprint, off };

struct Endpoint {
  std::string name;    ///< for messages: the URI without secrets
  std::string scheme;  ///< "http", "https", "ssh"
  std::string host;
  std::uint16_t port = 0;
  std::string path;
  std::string user;  ///< empty: none; by SSH ours

  std::string password_file;  ///< web: of `user`
  std::string cookie_file;    ///< https: what is sent as "Cookie:"
  std::string ca_file;        ///< https: the authorities to believe
  bool verify_peer = true;    ///< https

  HostKeyCheck host_key_check = HostKeyCheck::known_hosts;
  std::string host_key;     ///< SHA-256 of the server's key, hexadecimal
  std::string known_hosts;  ///< empty: ~/.ssh/known_hosts
  std::string identity;     ///< empty: ~/.ssh/id_*
  bool uses_agent = false;  ///< the SSH agent is asked, too

  unsigned connections = 0;  ///< of ours to qemu-nbd; 0: the driver's choice
  Duration connect_limit = std::chrono::seconds(30);
  /// How long the server may be away, or refuse, while the disk is read.
  Duration reconnect_limit = std::chrono::seconds(60);
  /// How long it may take to answer a request.
  Duration stall_limit = std::chrono::seconds(30);

  bool is_ssh() const noexcept { return scheme == "ssh"; }
};

inline constexpr std::array<DriverKey, 8> http_keys{{
    {"ca-file", "PEM file with the authorities to believe instead of the system's (https)"},
    {"tls-verify-peer", "check the server's certificate (true or false; default true)"},
    {"password-file", "file with the password of the user in front of the host"},
    {"cookie-file", "file with the cookies to send (name=value; ...; https)"},
    {"connections", "connections to qemu-nbd, 1 to 16"},
    {"connect-timeout", "seconds to start, connect and open (default 30)"},
    {"reconnect-timeout", "seconds that the server may be away (default 60; 0: not at all)"},
    {"stall-timeout", "seconds that the server may take to answer (default 30)"},
}};
inline constexpr std::array<DriverKey, 9> ssh_keys{{
    {"host-key-check", "check the server's key (true or false; default true)"},
    {"host-key", "the server's key, as SHA256:... (ssh-keygen -l), instead of known_hosts"},
    {"known-hosts", "file with the keys of servers (default ~/.ssh/known_hosts)"},
    {"identity", "file with our private key (default: ~/.ssh/id_*)"},
    {"agent", "ask the SSH agent, too (true or false; default false)"},
    {"connections", "connections to qemu-nbd, 1 to 16"},
    {"connect-timeout", "seconds to start, connect and open (default 30)"},
    {"reconnect-timeout", "seconds that the server may be away (default 60; 0: not at all)"},
    {"stall-timeout", "seconds that the server may take to answer (default 30)"},
}};

/// Errors: invalid_argument, too_large.
Result<Endpoint> parse_endpoint(const ImageUri& uri);

/// What tells one content of the file from another, for VolumeFacts::identity. `ends`: its first and its last
/// bytes. A change between them that keeps the size does not show.
std::string content_identity(const Endpoint& endpoint, std::uint64_t size_bytes,
                             std::span<const std::byte> ends);

/// Ids of the secrets that a node refers to.
inline constexpr std::string_view password_secret = "password";
inline constexpr std::string_view cookie_secret = "cookie";
NodeOptions network_node(const Endpoint& endpoint);

}  // namespace diskferry::foreign
