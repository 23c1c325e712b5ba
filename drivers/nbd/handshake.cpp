// libnbd's settings and errors. The TLS rules here exist because libnbd fails open in places: without a
// readable ca-cert.pem it trusts the system's authorities and then verifies nothing, and without a host's
// name it verifies nothing either (CVE-2024-7383 and what remains of it in 1.14). Where it cannot verify, we
// refuse.
#include "drivers/nbd/handshake.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/nbd/block_status.hpp"

#include <cerrno>
#include <fmt/format.h>
#include <unistd.h>

#include <libnbd.h>

namespace diskferry::nbd {
namespace {

/// A server's sentence is cut here: the protocol allows 4096 bytes, a message for people does not.
constexpr std::size_t server_text_max = 500;

Error library_failed(const Endpoint& endpoint) {
  const LibraryError error = last_error();
  return fail(error.number == ENOMEM ? ErrorKind::too_large : ErrorKind::internal, "prepare connection",
              endpoint.name)
      .why(error.text);
}

/// libnbd tells a server's error text to its debug log only.
int take_debug_line(void* user_data, const char*, const char* line) noexcept {
  static constexpr std::string_view mark = "server error message: ";
  try {
    const std::string_view text(line);
    const auto at = text.find(mark);
    if (at != std::string_view::npos) {
      auto& into = *static_cast<std::string*>(user_data);
      into = printable(text.substr(at + mark.size(), server_text_max));
    }
  } catch (...) {
    return 0;  // out of memory: the text is a courtesy
  }
  return 0;
}

Result<void> need_readable(const Endpoint& endpoint, const std::string& path, std::string_view what) {
  if (access(path.c_str(), R_OK) == 0) return {};
  return unexpected(errno_error(errno, fmt::format("read {}", what), path).in(endpoint.name));
}

}  // namespace

Result<void> check_tls(const Endpoint& endpoint) {
  if (!endpoint.is_tls) return {};
  if (!endpoint.tls_psk_file.empty()) return need_readable(endpoint, endpoint.tls_psk_file, "PSK file");
  if (!endpoint.tls_certificates.empty())
    DISKFERRY_CHECK(need_readable(endpoint, endpoint.tls_certificates + "/ca-cert.pem", "CA certificate"));
  if (!endpoint.tls_verify_peer) return {};
  if (endpoint.tls_certificates.empty())
    return unexpected(fail(ErrorKind::invalid_argument, "open", endpoint.name)
                          .why("there is no authority to verify the server's certificate with")
                          .remedy("add tls-certificates=DIR (with ca-cert.pem) or tls-psk-file=FILE"));
#ifndef LIBNBD_HAVE_NBD_SET_TLS_HOSTNAME
  if (!endpoint.tls_hostname.empty())
    return unexpected(fail(ErrorKind::unsupported, "open", endpoint.name)
                          .why("this libnbd cannot verify a name other than the host's")
                          .remedy("connect by the name in the certificate, or use tls-psk-file"));
  if (endpoint.is_unix())
    return unexpected(fail(ErrorKind::unsupported, "open", endpoint.name)
                          .why("this libnbd cannot verify a certificate on a UNIX socket")
                          .remedy("use tls-psk-file, or nbd+unix:// where the socket is trusted"));
#else
  if (endpoint.is_unix() && endpoint.tls_hostname.empty())
    return unexpected(fail(ErrorKind::invalid_argument, "open", endpoint.name)
                          .why("a UNIX socket has no host name to verify the certificate with")
                          .remedy("add tls-hostname=NAME"));
#endif
  return {};
}

namespace {

bool set_tls(nbd_handle& handle, const Endpoint& endpoint) {
  // REQUIRE: libnbd ends the connection where the server does not offer TLS.
  bool good = nbd_set_tls(&handle, endpoint.is_tls ? LIBNBD_TLS_REQUIRE : LIBNBD_TLS_DISABLE) == 0;
  if (!endpoint.is_tls) return good;
  good = good && nbd_set_tls_verify_peer(&handle, endpoint.tls_verify_peer) == 0;
  if (!endpoint.tls_certificates.empty())
    good = good && nbd_set_tls_certificates(&handle, endpoint.tls_certificates.c_str()) == 0;
  if (!endpoint.tls_psk_file.empty())
    good = good && nbd_set_tls_psk_file(&handle, endpoint.tls_psk_file.c_str()) == 0;
  if (!endpoint.tls_username.empty())
    good = good && nbd_set_tls_username(&handle, endpoint.tls_username.c_str()) == 0;
#ifdef LIBNBD_HAVE_NBD_SET_TLS_HOSTNAME
  if (!endpoint.tls_hostname.empty())
    good = good && nbd_set_tls_hostname(&handle, endpoint.tls_hostname.c_str()) == 0;
#endif
  return good;
}

struct Explanation {
  ErrorKind kind;
  std::string remedy;
};

Explanation explain_text(const Endpoint& endpoint, const LibraryError& error) {
  const auto says = [&](std::string_view part) { return error.text.find(part) != std::string::npos; };
  if (says("has no export named"))
    return {ErrorKind::not_found, "ask the server for its list (nbdinfo --list)"};
  if (says("requires TLS encryption"))
    return {ErrorKind::permission, endpoint.is_unix() ? "use nbds+unix://" : "use nbds://"};
  if (says("refused TLS")) return {ErrorKind::permission, "switch TLS on at the server"};
  if (says("policy prevents")) return {ErrorKind::permission, "ask whoever runs the server"};
  if (says("certificate verification"))
    return {
        ErrorKind::permission,
        "check that ca-cert.pem signed the server's certificate, that it is valid today, and that it names "
        "the host"};
  if (says("getlogin"))
    return {ErrorKind::invalid_argument,
            "name the user of the pre-shared key in the URI: nbds://USER@host/..., or ?tls-username=USER"};
  if (says("gnutls_record") && endpoint.tls_psk_file.empty())
    return {
        ErrorKind::permission,
        "the server may want a certificate of this client: put client-cert.pem and client-key.pem, signed by "
        "an authority that the server knows, into the folder of tls-certificates"};
  // GnuTLS refuses an address as the name that a client calls a server by, and libnbd sends what it has.
  if (says("gnutls_handshake") && endpoint.host.find(':') != std::string::npos)
    return {ErrorKind::permission,
            "some servers refuse TLS to an IPv6 address: use the host's name; else check keys and "
            "certificates on "
            "both sides"};
  if (says("gnutls") || says("PSK file"))
    return {ErrorKind::permission, "check keys and certificates on both sides"};
  if (says("oldstyle"))
    return {ErrorKind::unsupported, "use a server that speaks the fixed newstyle protocol"};
  if (says("getaddrinfo")) return {ErrorKind::not_found, "check the host's name"};
  if (says("backlog overflowed"))
    return {ErrorKind::timed_out, "the server takes no more connections; try again"};
  if (says("disconnected unexpectedly")) return {ErrorKind::gone, "look into the server's log"};
  switch (error.number) {
    case ENOENT:
      return {ErrorKind::not_found, "check the socket's path and that the server runs"};
    case ECONNREFUSED:
      return {ErrorKind::gone, "check that the server runs and listens there"};
    case 0:
      return {ErrorKind::protocol, "check that an NBD server listens there"};
    default:
      return {kind_of_errno(error.number), {}};
  }
}

/// "nbd_aio_notify_read: handshake: text" -> "text", and what our own message says already goes.
std::string without_prefix(std::string text) {
  if (text.starts_with("nbd_")) {
    const auto end = text.find(": ");
    if (end != std::string::npos) text.erase(0, end + 2);
  }
  for (const std::string_view step : {"handshake: ", "connect: "}) {
    if (text.starts_with(step)) text.erase(0, step.size());
  }
  return text;
}

}  // namespace

void CloseHandle::operator()(nbd_handle* handle) const noexcept {
  nbd_close(handle);
}

LibraryError last_error() {
  const char* const text = nbd_get_error();
  return {nbd_get_errno(), text != nullptr ? printable(text) : std::string("no reason given")};
}

Result<Handle> make_handle(const Endpoint& endpoint, std::string& server_text) {
  DISKFERRY_CHECK(check_tls(endpoint));
  Handle handle(nbd_create());
  if (!handle) return unexpected(library_failed(endpoint));
  if (endpoint.is_tls && nbd_supports_tls(handle.get()) != 1)
    return unexpected(
        fail(ErrorKind::unsupported, "open", endpoint.name).why("this libnbd was built without TLS"));
  bool good = set_tls(*handle, endpoint);
  good = good && nbd_set_export_name(handle.get(), endpoint.export_name.c_str()) == 0;
  // Negotiate step by step: the answer to OPT_GO comes with its own error.
  good = good && nbd_set_opt_mode(handle.get(), true) == 0;
  good = good && nbd_add_meta_context(handle.get(), context_allocation.data()) == 0;
  good = good && nbd_add_meta_context(handle.get(), context_depth.data()) == 0;
  // We check that every byte of a read arrived; libnbd need not zero the buffer first.
  good = good && nbd_set_pread_initialize(handle.get(), false) == 0;
  // Our requests are whole blocks but at the end of an export whose size is no multiple of its block size:
  // there the server decides, where libnbd would refuse before anybody was asked.
  const std::uint32_t strict = nbd_get_strict_mode(handle.get()) & ~std::uint32_t{LIBNBD_STRICT_ALIGN};
  good = good && nbd_set_strict_mode(handle.get(), strict) == 0;
  good = good &&
         nbd_set_debug_callback(
             handle.get(), {.callback = take_debug_line, .user_data = &server_text, .free = nullptr}) == 0;
  good = good && nbd_set_debug(handle.get(), true) == 0;
  if (!good) return unexpected(library_failed(endpoint));
  return handle;
}

Result<void> start_connecting(nbd_handle& handle, const Endpoint& endpoint) {
  const int failed = endpoint.is_unix()
                         ? nbd_aio_connect_unix(&handle, endpoint.socket_path.c_str())
                         : nbd_aio_connect_tcp(&handle, endpoint.host.c_str(), endpoint.port.c_str());
  if (failed != 0) return unexpected(explain(endpoint, last_error(), {}));
  return {};
}

Error explain(const Endpoint& endpoint, const LibraryError& error, const std::string& server_text) {
  auto [kind, remedy] = explain_text(endpoint, error);
  std::string why = without_prefix(error.text);
  if (!server_text.empty()) why += fmt::format("; the server says: {}", server_text);
  Error result = fail(kind, "connect", endpoint.name).why(std::move(why));
  return remedy.empty() ? result : std::move(result).remedy(std::move(remedy));
}

Result<ServerInfo> server_info(nbd_handle& handle) {
  ServerInfo info;
  DISKFERRY_CHECK(take_sizes({.size = nbd_get_size(&handle),
                              .minimum = nbd_get_block_size(&handle, LIBNBD_SIZE_MINIMUM),
                              .preferred = nbd_get_block_size(&handle, LIBNBD_SIZE_PREFERRED),
                              .maximum = nbd_get_block_size(&handle, LIBNBD_SIZE_MAXIMUM)},
                             info));
  info.is_read_only = nbd_is_read_only(&handle) != 0;  // where it cannot say, do not write
  info.can_flush = nbd_can_flush(&handle) == 1;
  info.can_fua = nbd_can_fua(&handle) == 1;
  info.can_trim = nbd_can_trim(&handle) == 1;
  info.can_zero = nbd_can_zero(&handle) == 1;
  info.can_fast_zero = nbd_can_fast_zero(&handle) == 1;
  info.can_cache = nbd_can_cache(&handle) == 1;
  info.can_multi_connection = nbd_can_multi_conn(&handle) == 1;
  info.is_rotational = nbd_is_rotational(&handle) == 1;
  info.has_structured_replies = nbd_get_structured_replies_negotiated(&handle) == 1;
  info.has_allocation = nbd_can_meta_context(&handle, context_allocation.data()) == 1;
  info.has_depth = info.has_allocation && nbd_can_meta_context(&handle, context_depth.data()) == 1;
  return info;
}

}  // namespace diskferry::nbd
