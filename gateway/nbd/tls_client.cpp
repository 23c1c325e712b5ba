// The client's side of TLS: a server is always verified, by its certificate and its name.
#include "diskferry/image_uri.hpp"
#include "gateway/nbd/tls_state.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <unistd.h>

#include <openssl/x509v3.h>

namespace diskferry::nbd_server {
namespace {

bool is_ip_address(const std::string& name) {
  in6_addr ignored{};
  return inet_pton(AF_INET, name.c_str(), &ignored) == 1 || inet_pton(AF_INET6, name.c_str(), &ignored) == 1;
}

Error refuse(const std::string& file, std::string why) {
  return fail(ErrorKind::invalid_argument, "load TLS certificates", printable(file)).why(std::move(why));
}

Result<void> load_client_certificates(SSL_CTX* context, const std::string& folder) {
  const std::string authority = folder + "/ca-cert.pem";
  const std::string certificate = folder + "/client-cert.pem";
  const std::string key = folder + "/client-key.pem";
  for (const std::string& file : {authority, certificate, key}) {
    if (access(file.c_str(), R_OK) != 0)
      return unexpected(errno_error(errno, "open", printable(file))
                            .in("load TLS certificates")
                            .remedy("the folder needs ca-cert.pem, client-cert.pem and client-key.pem"));
  }
  if (SSL_CTX_load_verify_locations(context, authority.c_str(), nullptr) != 1)
    return unexpected(refuse(authority, openssl_problem()));
  if (SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != 1)
    return unexpected(refuse(certificate, openssl_problem()));
  if (SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1)
    return unexpected(refuse(key, openssl_problem()));
  if (SSL_CTX_check_private_key(context) != 1)
    return unexpected(refuse(key, "the key does not belong to client-cert.pem"));
  return {};
}

}  // namespace

Result<std::shared_ptr<TlsContext>> TlsContext::make_client(const std::string& certificates,
                                                            std::string server_name) {
  OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, nullptr);  // as for servers
  auto state = std::make_unique<State>();
  state->is_client = true;
  state->verify_peer = true;
  state->server_name = std::move(server_name);
  state->context.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* context = state->context.get();
  if (context == nullptr) return unexpected(fail(ErrorKind::internal, "set up TLS").why(openssl_problem()));
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  DISKFERRY_CHECK(load_client_certificates(context, certificates));
  return std::make_shared<TlsContext>(std::move(state));
}

Result<void> begin_as_client(SSL* ssl, const TlsContext::State& context) {
  SSL_set_connect_state(ssl);
  const std::string& name = context.server_name;
  bool done = false;
  if (is_ip_address(name)) {
    done = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name.c_str()) == 1;
  } else {
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    done = SSL_set1_host(ssl, name.c_str()) == 1 && SSL_set_tlsext_host_name(ssl, name.c_str()) == 1;
  }
  if (!done) return unexpected(fail(ErrorKind::internal, "start TLS").why(openssl_problem()));
  return {};
}

}  // namespace diskferry::nbd_server
