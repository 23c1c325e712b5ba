// Where a gateway is, as an operator writes it: `--gateway URI`, a peer in a request.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace diskferry::control {

struct GatewayAddress {
  enum class Kind : std::uint8_t { unix_socket, https };
  static constexpr std::uint16_t default_port = 10810;
  static constexpr std::string_view default_socket = "/run/diskferry/control.sock";
  /// Where certificates are looked for when an address names none.
  static constexpr std::string_view default_certificates = "/etc/diskferry/pki";

  Kind kind = Kind::unix_socket;
  std::string path{default_socket};  ///< unix_socket
  std::string host{};                ///< https: a name or an address, without brackets
  std::uint16_t port = default_port;
  /// https: folder with ca-cert.pem, client-cert.pem and client-key.pem.
  std::string certificates{default_certificates};
  /// https: the name the server's certificate must have; empty: `host`.
  std::string server_name{};

  /// "unix:/path", "/path", "https://host[:port][?certificates=DIR&server-name=NAME]"; "" is the daemon of
  /// this host. Errors: invalid_argument.
  static Result<GatewayAddress> parse(std::string_view text);
  /// As parse() takes it.
  std::string to_string() const;
};

}  // namespace diskferry::control
