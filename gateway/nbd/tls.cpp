// OpenSSL with BIOs of our own over two byte queues.
#include "gateway/nbd/tls.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/image_uri.hpp"
#include "gateway/nbd/byte_queue.hpp"
#include "gateway/nbd/tls_state.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <unistd.h>

#include <openssl/x509.h>

namespace diskferry::nbd_server {
namespace {

/// Sixteen records of ciphertext in one receive.
constexpr std::size_t input_bytes = 256u << 10;

/// What the BIO reads from and writes to.
struct Queues {
  std::unique_ptr<std::byte[]> input = std::make_unique_for_overwrite<std::byte[]>(input_bytes);
  std::size_t input_begin = 0;
  std::size_t input_end = 0;
  bool input_ended = false;
  ByteQueue output;
};

int bio_read(BIO* bio, char* into, int wanted) {
  auto& queues = *static_cast<Queues*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  const std::size_t there = queues.input_end - queues.input_begin;
  if (there == 0) {
    if (queues.input_ended) return 0;
    BIO_set_retry_read(bio);
    return -1;
  }
  const std::size_t now = std::min(there, static_cast<std::size_t>(std::max(wanted, 0)));
  std::memcpy(into, queues.input.get() + queues.input_begin, now);
  queues.input_begin += now;
  if (queues.input_begin == queues.input_end) queues.input_begin = queues.input_end = 0;
  return static_cast<int>(now);
}
int bio_write(BIO* bio, const char* from, int length) {
  auto& queues = *static_cast<Queues*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  queues.output.append(std::as_bytes(std::span(from, static_cast<std::size_t>(std::max(length, 0)))));
  return length;
}
long bio_control(BIO* bio, int command, long, void*) {
  const auto& queues = *static_cast<Queues*>(BIO_get_data(bio));
  switch (command) {
    case BIO_CTRL_FLUSH:
      return 1;
    case BIO_CTRL_EOF:
      return queues.input_ended && queues.input_begin == queues.input_end ? 1 : 0;
    default:
      return 0;
  }
}
int bio_create(BIO* bio) {
  BIO_set_init(bio, 1);
  return 1;
}
BIO_METHOD* queue_method() {
  static const std::unique_ptr<BIO_METHOD, FreeSsl> method = [] {
    std::unique_ptr<BIO_METHOD, FreeSsl> made(
        BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "byte queues"));
    BIO_meth_set_read(made.get(), bio_read);
    BIO_meth_set_write(made.get(), bio_write);
    BIO_meth_set_ctrl(made.get(), bio_control);
    BIO_meth_set_create(made.get(), bio_create);
    return made;
  }();
  return method.get();
}

std::string name_text(const X509_NAME* name, unsigned long flags) {
  const std::unique_ptr<BIO, FreeSsl> bio(BIO_new(BIO_s_mem()));
  if (!bio || X509_NAME_print_ex(bio.get(), name, 0, flags) < 0) return {};
  char* data = nullptr;
  const long length = BIO_get_mem_data(bio.get(), &data);
  return length > 0 ? std::string(data, static_cast<std::size_t>(length)) : std::string();
}

/// The CN, and the DN in both orders and spacings that people copy out of tools (RFC 4514 as certtool and
/// `openssl x509 -nameopt RFC2253` print it, and the certificate's own order as QEMU's lists have it).
std::vector<std::string> names_of(X509* certificate) {
  std::vector<std::string> names;
  const X509_NAME* subject = X509_get_subject_name(certificate);
  for (int at = -1; (at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0;) {
    unsigned char* text = nullptr;
    const int length = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (length < 0) continue;
    names.emplace_back(reinterpret_cast<char*>(text), static_cast<std::size_t>(length));
    OPENSSL_free(text);
  }
  // A NUL inside a name is an attempt to look like another one.
  std::erase_if(names, [](const std::string& name) { return name.find('\0') != std::string::npos; });
  constexpr unsigned long base = ASN1_STRFLGS_RFC2253 & ~static_cast<unsigned long>(ASN1_STRFLGS_ESC_MSB);
  for (const auto separator : {static_cast<unsigned long>(XN_FLAG_SEP_COMMA_PLUS),
                               static_cast<unsigned long>(XN_FLAG_SEP_CPLUS_SPC)}) {
    for (const unsigned long order : {static_cast<unsigned long>(XN_FLAG_DN_REV), 0ul})
      names.push_back(name_text(subject, base | separator | order | XN_FLAG_FN_SN));
  }
  return names;
}

}  // namespace

struct TlsEngine::State {
  std::shared_ptr<TlsContext> context;
  std::unique_ptr<Queues> queues = std::make_unique<Queues>();
  std::string psk_user;
  std::unique_ptr<SSL, FreeSsl> ssl;
};

namespace {
/// What the callback of a connection needs.
struct PskHook {
  const PskTable* keys;
  std::string* user;
};
int hook_index() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}
/// Called by OpenSSL for TLS 1.2 and, where there is no TLS 1.3 callback, for TLS 1.3 as well. The identity
/// is only a claim here: see is_key_proven().
unsigned find_psk(SSL* ssl, const char* identity, unsigned char* into, unsigned into_max) {
  const auto* hook = static_cast<PskHook*>(SSL_get_ex_data(ssl, hook_index()));
  if (hook == nullptr || identity == nullptr) return 0;
  const auto* key = hook->keys->find(identity);
  if (key == nullptr || key->size() > into_max) return 0;
  std::memcpy(into, key->data(), key->size());
  *hook->user = identity;
  return static_cast<unsigned>(key->size());
}

/// Whether the finished handshake rests on the pre-shared key. OpenSSL asks for the key of an identity before
/// it knows whether it can use it: in TLS 1.3 a key that does not fit the hash of the cipher suite, or an
/// identity we do not know, is passed over, and the handshake goes on with our certificate, unproven.
bool is_key_proven(SSL* ssl) {
  // In TLS 1.3 a key that was used counts as a resumption, and we offer no other kind.
  if (SSL_version(ssl) >= TLS1_3_VERSION) return SSL_session_reused(ssl) == 1;
  return SSL_CIPHER_get_auth_nid(SSL_get_current_cipher(ssl)) == NID_auth_psk;
}

Result<void> load_certificates(SSL_CTX* context, const TlsOptions& options) {
  const auto path = [&](std::string_view name) { return options.certificates + "/" + std::string(name); };
  const auto refuse = [](const std::string& file, std::string why) {
    return unexpected(
        fail(ErrorKind::invalid_argument, "load TLS certificates", printable(file)).why(std::move(why)));
  };
  const auto check_readable = [&](const std::string& file) -> Result<void> {
    if (access(file.c_str(), R_OK) != 0)
      return unexpected(errno_error(errno, "open", printable(file))
                            .in("load TLS certificates")
                            .remedy("the folder needs ca-cert.pem, server-cert.pem and server-key.pem"));
    return {};
  };
  DISKFERRY_CHECK(check_readable(path("server-cert.pem")));
  DISKFERRY_CHECK(check_readable(path("server-key.pem")));
  if (SSL_CTX_use_certificate_chain_file(context, path("server-cert.pem").c_str()) != 1)
    return refuse(path("server-cert.pem"), openssl_problem());
  if (SSL_CTX_use_PrivateKey_file(context, path("server-key.pem").c_str(), SSL_FILETYPE_PEM) != 1)
    return refuse(path("server-key.pem"), openssl_problem());
  if (SSL_CTX_check_private_key(context) != 1)
    return refuse(path("server-key.pem"), "the key does not belong to server-cert.pem");
  if (!options.verify_peer) return {};
  DISKFERRY_CHECK(check_readable(path("ca-cert.pem")));
  if (SSL_CTX_load_verify_locations(context, path("ca-cert.pem").c_str(), nullptr) != 1)
    return refuse(path("ca-cert.pem"), openssl_problem());
  if (access(path("ca-crl.pem").c_str(), F_OK) == 0) {
    X509_STORE* store = SSL_CTX_get_cert_store(context);
    if (X509_STORE_load_locations(store, path("ca-crl.pem").c_str(), nullptr) != 1)
      return refuse(path("ca-crl.pem"), openssl_problem());
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
  }
  SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(path("ca-cert.pem").c_str()));
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return {};
}
}  // namespace

TlsContext::TlsContext(std::unique_ptr<State> state) : state_(std::move(state)) {}
TlsContext::~TlsContext() = default;

Result<std::shared_ptr<TlsContext>> TlsContext::make(const TlsOptions& options) {
  const auto refuse = [](std::string why, std::string remedy) {
    return unexpected(
        fail(ErrorKind::invalid_argument, "set up TLS").why(std::move(why)).remedy(std::move(remedy)));
  };
  if (options.certificates.empty() && options.psk_file.empty())
    return refuse("there is neither a certificate nor a pre-shared key",
                  "say --tls-certificates DIR or --tls-psk FILE");
  if (options.verify_peer && options.certificates.empty())
    return refuse("clients cannot be verified without certificates", "say --tls-certificates DIR");
  if (!options.allow.empty() && !options.verify_peer && options.psk_file.empty())
    return refuse("a list of allowed clients needs clients that prove their name",
                  "say --tls-verify-peer or --tls-psk FILE");
  if (!options.psk_file.empty() && !options.certificates.empty() && !options.verify_peer &&
      options.allow.empty())
    return refuse("a client without a key would come in by the server's certificate alone",
                  "say --tls-verify-peer or --allow NAME, or leave out --tls-certificates");
  // Reactor threads may outlive the exit handlers of main(): what they hold of OpenSSL is freed when they
  // end.
  OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, nullptr);
  auto state = std::make_unique<State>();
  state->allow = options.allow;
  state->verify_peer = options.verify_peer;
  state->context.reset(SSL_CTX_new(TLS_server_method()));
  SSL_CTX* context = state->context.get();
  if (context == nullptr) return unexpected(fail(ErrorKind::internal, "set up TLS").why(openssl_problem()));
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET);
  SSL_CTX_set_num_tickets(context, 0);  // an NBD client never resumes
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  // A key in TLS 1.3 is a session to OpenSSL, and where peers are verified it takes none without a context.
  constexpr std::string_view session_context = "diskferry";
  SSL_CTX_set_session_id_context(context, reinterpret_cast<const unsigned char*>(session_context.data()),
                                 static_cast<unsigned>(session_context.size()));
  SSL_CTX_set_dh_auto(context, 1);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(context, 1);
  // What an unauthenticated client can make us hold before it has proved anything.
  SSL_CTX_set_max_cert_list(context, 64 * 1024);
  if (!options.certificates.empty()) DISKFERRY_CHECK(load_certificates(context, options));
  std::string ciphers =
      options.certificates.empty() ? "" : "ECDHE+AES128+AESGCM:ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM";
  if (!options.psk_file.empty()) {
    DISKFERRY_CHECK(read_psk_file(options.psk_file, state->keys));
    SSL_CTX_set_psk_server_callback(context, find_psk);
    if (!ciphers.empty()) ciphers += ':';
    // The forms with a Diffie-Hellman exchange only: plain PSK has no forward secrecy.
    ciphers +=
        "DHE-PSK-AES128-GCM-SHA256:DHE-PSK-AES256-GCM-SHA384:ECDHE-PSK-CHACHA20-POLY1305:"
        "DHE-PSK-CHACHA20-POLY1305:ECDHE-PSK-AES256-CBC-SHA384:ECDHE-PSK-AES128-CBC-SHA256";
  }
  // AES-128 first: every processor a disk is served from has instructions for it. A pre-shared key in TLS 1.3
  // is bound to SHA-256, and OpenSSL would otherwise pick ChaCha20 for it.
  SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE);
  if (SSL_CTX_set_ciphersuites(
          context, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") != 1 ||
      SSL_CTX_set_cipher_list(context, ciphers.c_str()) != 1)
    return unexpected(fail(ErrorKind::internal, "set up TLS").why(openssl_problem()));
  return std::make_shared<TlsContext>(std::move(state));
}

Result<std::unique_ptr<TlsEngine>> TlsContext::make_engine() {
  auto state = std::make_unique<TlsEngine::State>();
  state->context = shared_from_this();
  state->ssl.reset(SSL_new(state_->context.get()));
  BIO* bio = BIO_new(queue_method());
  if (!state->ssl || bio == nullptr) {
    BIO_free(bio);
    return unexpected(fail(ErrorKind::internal, "start TLS").why(openssl_problem()));
  }
  BIO_set_data(bio, state->queues.get());
  SSL_set_bio(state->ssl.get(), bio, bio);
  if (state_->is_client) {
    DISKFERRY_CHECK(begin_as_client(state->ssl.get(), *state_));
  } else {
    SSL_set_accept_state(state->ssl.get());
  }
  return std::unique_ptr<TlsEngine>(new TlsEngine(std::move(state)));
}

TlsEngine::TlsEngine(std::unique_ptr<State> state) : state_(std::move(state)) {}
TlsEngine::~TlsEngine() = default;

TlsEngine::Status TlsEngine::classify(int returned) {
  switch (SSL_get_error(state_->ssl.get(), returned)) {
    case SSL_ERROR_NONE:
      return Status::done;
    case SSL_ERROR_WANT_READ:
      return Status::want_input;
    case SSL_ERROR_ZERO_RETURN:
      return Status::ended;
    default:
      break;
  }
  const unsigned long code = ERR_peek_error();
  // libnbd closes without a close_notify.
  if (code == 0 || ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
    ERR_clear_error();
    return Status::ended;
  }
  const bool is_verdict =
      ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED;
  problem_ = openssl_problem();
  if (is_verdict)
    problem_ += fmt::format(": {}", X509_verify_cert_error_string(SSL_get_verify_result(state_->ssl.get())));
  return Status::failed;
}

TlsEngine::Status TlsEngine::handshake() {
  PskHook hook{&state_->context->state_->keys, &state_->psk_user};
  SSL_set_ex_data(state_->ssl.get(), hook_index(), &hook);
  ERR_clear_error();
  const int returned = SSL_do_handshake(state_->ssl.get());
  SSL_set_ex_data(state_->ssl.get(), hook_index(), nullptr);
  return returned == 1 ? Status::done : classify(returned);
}

Result<PeerIdentity> TlsEngine::peer() const {
  PeerIdentity identity{.is_encrypted = true, .names = {}};
  const auto& context = *state_->context->state_;
  const std::unique_ptr<X509, FreeSsl> certificate(SSL_get1_peer_certificate(state_->ssl.get()));
  if (certificate && context.verify_peer && SSL_get_verify_result(state_->ssl.get()) == X509_V_OK)
    identity.names = names_of(certificate.get());
  if (!state_->psk_user.empty() && is_key_proven(state_->ssl.get()))
    identity.names.push_back(state_->psk_user);
  if (context.allow.empty()) return identity;
  for (const std::string& name : identity.names) {
    if (std::ranges::find(context.allow, name) != context.allow.end()) return identity;
  }
  return unexpected(fail(ErrorKind::permission, "accept client")
                        .why(fmt::format("'{}' is not among the allowed names",
                                         identity.names.empty() ? "" : printable(identity.names.front()))));
}

TlsEngine::Status TlsEngine::read(std::span<std::byte> into, std::size_t& read_bytes) {
  read_bytes = 0;
  ERR_clear_error();
  while (read_bytes < into.size()) {
    std::size_t now = 0;
    const int returned =
        SSL_read_ex(state_->ssl.get(), into.data() + read_bytes, into.size() - read_bytes, &now);
    if (returned != 1) {
      const Status status = classify(returned);
      return read_bytes != 0 && status != Status::failed ? Status::done : status;
    }
    read_bytes += now;
  }
  return Status::done;
}

TlsEngine::Status TlsEngine::write(std::span<const std::byte> from) {
  ERR_clear_error();
  while (!from.empty()) {
    std::size_t now = 0;
    const int returned = SSL_write_ex(state_->ssl.get(), from.data(), from.size(), &now);
    if (returned != 1) {
      if (classify(returned) != Status::failed) problem_ = "the TLS layer does not take data";
      return Status::failed;
    }
    from = from.subspan(now);
  }
  return Status::done;
}

void TlsEngine::shut_down() {
  ERR_clear_error();
  SSL_shutdown(state_->ssl.get());
  ERR_clear_error();
}

std::span<std::byte> TlsEngine::input_space() {
  Queues& queues = *state_->queues;
  if (queues.input_begin != 0 && queues.input_end == input_bytes) {
    std::memmove(queues.input.get(), queues.input.get() + queues.input_begin,
                 queues.input_end - queues.input_begin);
    queues.input_end -= queues.input_begin;
    queues.input_begin = 0;
  }
  return {queues.input.get() + queues.input_end, input_bytes - queues.input_end};
}
void TlsEngine::input_added(std::size_t bytes) {
  state_->queues->input_end += bytes;
  DISKFERRY_ASSERT(state_->queues->input_end <= input_bytes, "more was received than there is room");
}
void TlsEngine::input_ended() {
  state_->queues->input_ended = true;
}
std::span<const std::byte> TlsEngine::output() const {
  return state_->queues->output.waiting();
}
void TlsEngine::output_sent(std::size_t bytes) {
  state_->queues->output.pop(bytes);
}

}  // namespace diskferry::nbd_server
