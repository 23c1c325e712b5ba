// Where a server listens, as an operator writes it.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace diskferry::nbd_server {

struct ListenAddress {
  enum class Kind : std::uint8_t { tcp, unix_socket };
  static constexpr std::uint16_t default_port = 10809;  // assigned by IANA

  Kind kind = Kind::tcp;
  std::string host = {};  ///< tcp: a name, an IPv4 or IPv6 address without brackets; empty: all interfaces
  std::uint16_t port = default_port;  ///< 0: any free one
  std::string path = {};              ///< unix_socket
  bool direct_tls = false;            ///< nbds://: TLS from the first byte, as well as what the mode says

  /// "nbd://HOST:PORT", "nbds://...", "unix:PATH", "nbd+unix://?socket=PATH", "nbds+unix://?socket=PATH".
  /// Errors: invalid_argument.
  static Result<ListenAddress> parse(std::string_view text);
  /// As a client would write it: "nbd://127.0.0.1:10809", "nbd+unix:///?socket=/run/x".
  std::string to_uri() const;
};

}  // namespace diskferry::nbd_server
