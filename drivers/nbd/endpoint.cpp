// The URI's fields, each checked; see the header.
#include "drivers/nbd/endpoint.hpp"

#include "drivers/support/uri_keys.hpp"

#include <fmt/format.h>

namespace diskferry::nbd {
namespace {

constexpr std::string_view default_port = "10809";  // IANA's, for nbd and nbds alike

Result<void> take_address(const ImageUri& uri, Endpoint& endpoint) {
  const auto socket = uri.query("socket");
  if (uri.scheme().ends_with("+unix")) {
    if (!uri.host().empty() || uri.port())
      return unexpected(bad_uri(uri, "a UNIX socket has neither host nor port",
                                fmt::format("write {}:///export?socket=/path", uri.scheme())));
    if (!socket || socket->empty())
      return unexpected(bad_uri(uri, "the path of the UNIX socket is missing", "add ?socket=/path"));
    if (socket->size() > socket_path_bytes_max)
      return unexpected(fail(ErrorKind::too_large, "open", uri.to_string())
                            .why(fmt::format("the socket's path has {} bytes, the system takes {}",
                                             socket->size(), socket_path_bytes_max))
                            .remedy("use a shorter path, through a symbolic link if need be"));
    endpoint.socket_path = *socket;
    return {};
  }
  if (socket) return unexpected(bad_uri(uri, "a socket path needs the scheme nbd+unix or nbds+unix"));
  if (uri.host().empty()) return unexpected(bad_uri(uri, "the host is missing"));
  endpoint.host = uri.host();
  endpoint.port = uri.port() ? fmt::format("{}", *uri.port()) : std::string(default_port);
  return {};
}

Result<void> take_tls(const ImageUri& uri, Endpoint& endpoint) {
  endpoint.is_tls = uri.scheme().starts_with("nbds");
  if (!endpoint.is_tls) {
    for (const auto& [key, value] : uri.queries()) {
      if (key.starts_with("tls-"))
        return unexpected(bad_uri(uri, fmt::format("'{}' on a connection in clear text", printable(key)),
                                  "use nbds:// or nbds+unix://"));
    }
    return {};
  }
  endpoint.tls_certificates = uri.query("tls-certificates").value_or("");
  endpoint.tls_psk_file = uri.query("tls-psk-file").value_or("");
  endpoint.tls_username = uri.query("tls-username").value_or(uri.user());
  endpoint.tls_hostname = uri.query("tls-hostname").value_or("");
  DISKFERRY_TRY(endpoint.tls_verify_peer, truth_key(uri, "tls-verify-peer", true));
  if (!endpoint.tls_certificates.empty() && !endpoint.tls_psk_file.empty())
    return unexpected(bad_uri(uri, "tls-certificates and tls-psk-file exclude each other"));
  return {};
}

}  // namespace

Result<Endpoint> parse_endpoint(const ImageUri& uri) {
  Endpoint endpoint;
  endpoint.name = uri.to_string();
  DISKFERRY_CHECK(take_address(uri, endpoint));
  DISKFERRY_CHECK(take_tls(uri, endpoint));
  // "nbd://host/name": the slash in front belongs to the URI, all others to the name.
  endpoint.export_name = uri.path().starts_with('/') ? uri.path().substr(1) : uri.path();
  if (endpoint.export_name.size() > export_name_bytes_max)
    return unexpected(fail(ErrorKind::too_large, "open", fmt::format("{}://{}", uri.scheme(), uri.host()))
                          .why(fmt::format("the export's name has {} bytes, the protocol allows {}",
                                           endpoint.export_name.size(), export_name_bytes_max)));
  DISKFERRY_TRY(endpoint.connections, number_key(uri, "connections", 1, connections_max, 0));
  DISKFERRY_TRY(endpoint.connect_limit, seconds_key(uri, "connect-timeout", endpoint.connect_limit));
  DISKFERRY_TRY(endpoint.reconnect_limit, seconds_key(uri, "reconnect-timeout", endpoint.reconnect_limit));
  DISKFERRY_TRY(endpoint.stall_limit, seconds_key(uri, "stall-timeout", endpoint.stall_limit));
  if (endpoint.connect_limit == Duration::zero() || endpoint.stall_limit == Duration::zero())
    return unexpected(bad_uri(uri, "connect-timeout and stall-timeout must be more than 0"));
  return endpoint;
}

}  // namespace diskferry::nbd
