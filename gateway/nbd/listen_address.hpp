// Where a server listens, as an operator writes it.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace diskferry::nbd_server {

struct ListenAddress {
  enum class Kind : std::uint8_t { tcp, unix_socket };
  enum class Tls : std::uint8_t {
    by_mode,   ///< as the server's mode says
    required,  ///< by STARTTLS, whatever the mode says
    direct     ///< from the first byte
  };
  static constexpr std::uint16_t default_port = 10809;  // assigned by IANA

  Kind kind = Kind::tcp;
  std::string host = {};  ///< tcp: a name, an IPv4 or IPv6 address without brackets; empty: all interfaces
  std::uint16_t port = default_port;  ///< 0: any free one
  std::string path = {};              ///< unix_socket
  Tls tls = Tls::by_mode;

  /// "nbd://HOST:PORT", "unix:PATH", "nbd+unix:///?socket=PATH"; "nbds" in place of "nbd" requires TLS by
  /// STARTTLS, which is what clients do when they are given such a URI (NBD URI specification); "tls" in its
  /// place speaks TLS from the first byte, for proxies and scanners that expect it. Errors: invalid_argument.
  static Result<ListenAddress> parse(std::string_view text);
  /// As a client would write it: "nbd://127.0.0.1:10809/disk", "nbd+unix:///disk?socket=/run/x".
  std::string to_uri(std::string_view export_name = {}) const;
};

}  // namespace diskferry::nbd_server
