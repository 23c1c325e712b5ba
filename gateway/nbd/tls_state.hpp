// What a TLS context is made of, for the two files that make one: tls.cpp for servers, tls_client.cpp for
// clients. No other file includes this.
#pragma once

#include "gateway/nbd/psk_file.hpp"
#include "gateway/nbd/tls.hpp"

#include <memory>
#include <string>
#include <vector>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

namespace diskferry::nbd_server {

struct FreeSsl {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(BIO_METHOD* method) const { BIO_meth_free(method); }
};

/// The first reason that OpenSSL noted; empties its list.
inline std::string openssl_problem() {
  std::string text;
  while (const unsigned long code = ERR_get_error()) {
    if (const char* reason = ERR_reason_error_string(code); reason != nullptr && text.empty()) text = reason;
  }
  return text.empty() ? "unknown TLS failure" : text;
}

struct TlsContext::State {
  std::unique_ptr<SSL_CTX, FreeSsl> context{};
  PskTable keys{};
  std::vector<std::string> allow{};
  bool verify_peer = false;
  bool is_client = false;
  std::string server_name{};  ///< is_client: what the server's certificate must be for
};

/// Makes a new connection a client's: which name the server must have. Errors: internal.
Result<void> begin_as_client(SSL* ssl, const TlsContext::State& context);

}  // namespace diskferry::nbd_server
