// How the server does TLS, as its caller says it. What is made of it is in tls.hpp.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry::nbd_server {

enum class TlsMode : std::uint8_t {
  off,     ///< NBD_OPT_STARTTLS is answered with "policy"
  on,      ///< clients may use it
  require  ///< without it a client gets nothing but NBD_REP_ERR_TLS_REQD
};

struct TlsOptions {
  TlsMode mode = TlsMode::off;
  /// Folder with ca-cert.pem, server-cert.pem, server-key.pem, as QEMU, libvirt and nbdkit name them; also
  /// ca-crl.pem where there is one. Empty: no certificates.
  std::string certificates = {};
  /// File of "user:hexkey" lines, as psktool writes it. Empty: no pre-shared keys.
  std::string psk_file = {};
  bool verify_peer = false;  ///< clients show a certificate that ca-cert.pem signed
  /// Names let in: a certificate's CN or whole DN, or a PSK user; empty: all that are verified.
  std::vector<std::string> allow = {};
};

}  // namespace diskferry::nbd_server
