#include "drivers/gluster/endpoint.hpp"

#include "drivers/support/uri_keys.hpp"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>

namespace diskferry::gluster {
namespace {

/// What `gluster volume create` takes as a name. A slash in it would name a folder of the volume, or one of
/// the server's own volume files.
bool is_volume_name(std::string_view name) {
  return !name.empty() && name.size() <= volume_bytes_max && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

Result<void> check_parts(const ImageUri& uri, std::string_view path) {
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const std::string_view part = path.substr(0, path.find('/'));
    if (part.empty() || part == "." || part == "..")
      return unexpected(bad_uri(uri, "the path has an empty part, '.' or '..' in it"));
    if (part.size() > name_bytes_max)
      return unexpected(fail(ErrorKind::too_large, "open", "a file on a GlusterFS volume")
                            .why(fmt::format("a part of the path has {} bytes, and {} are allowed",
                                             part.size(), name_bytes_max)));
    path.remove_prefix(part.size());
  }
  return {};
}

Result<void> take_path(const ImageUri& uri, Endpoint& endpoint) {
  const std::string_view path = uri.path();
  const std::string remedy = "write gluster://host/volume/disk.raw";
  if (!path.starts_with('/')) return unexpected(bad_uri(uri, "the volume is missing", remedy));
  const std::size_t slash = path.find('/', 1);
  if (slash == std::string_view::npos || slash + 1 == path.size())
    return unexpected(bad_uri(uri, "a volume and the name of a file in it are missing", remedy));
  endpoint.volume = path.substr(1, slash - 1);
  if (!is_volume_name(endpoint.volume))
    return unexpected(bad_uri(uri, "the name of a volume consists of letters, digits, '-' and '_'", remedy));
  endpoint.path = path.substr(slash);
  if (endpoint.path.find('\0') != std::string::npos)
    return unexpected(bad_uri(uri, "the path has a zero byte in it"));
  if (endpoint.path.size() > path_bytes_max)
    return unexpected(fail(ErrorKind::too_large, "open", "a file on a GlusterFS volume")
                          .why(fmt::format("the path has {} bytes, and {} are allowed", endpoint.path.size(),
                                           path_bytes_max)));
  return check_parts(uri, endpoint.path);
}

/// "host", "host:port", "[v6]:port".
std::optional<Server> server_of(std::string_view text) {
  std::string_view host = text.substr(0, text.rfind(':'));
  std::string_view port = text.substr(std::min(host.size() + 1, text.size()));
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    host = text.substr(1, end - 1);
    port = text.substr(end + 1);
    if (!port.empty() && !port.starts_with(':')) return std::nullopt;
    if (!port.empty()) port.remove_prefix(1);
  }
  Server server{.transport = "tcp", .host = std::string(host)};
  const bool is_ambiguous = !text.starts_with('[') && host.find(':') != std::string_view::npos;
  if (is_ambiguous || host.empty() || host.find('\0') != std::string_view::npos || text.ends_with(':'))
    return std::nullopt;
  if (port.empty()) return server;
  const auto [end, failed] = std::from_chars(port.data(), port.data() + port.size(), server.port);
  if (failed != std::errc() || end != port.data() + port.size() || server.port == 0) return std::nullopt;
  return server;
}

Result<void> take_backup_servers(const ImageUri& uri, Endpoint& endpoint) {
  std::string_view list = uri.query("backup-servers").value_or("");
  while (!list.empty()) {
    const std::string_view one = list.substr(0, list.find(','));
    list.remove_prefix(std::min(one.size() + 1, list.size()));
    const auto server = server_of(one);
    if (!server) return unexpected(bad_uri(uri, "backup-servers is not a list of HOST or HOST:PORT"));
    if (endpoint.servers.size() == servers_max)
      return unexpected(bad_uri(uri, fmt::format("there are more than {} servers", servers_max)));
    endpoint.servers.push_back(*server);
  }
  return {};
}

Result<void> take_servers(const ImageUri& uri, Endpoint& endpoint) {
  const auto socket = uri.query("socket");
  if (uri.scheme() == "gluster+unix") {
    if (!uri.host().empty() || uri.port())
      return unexpected(bad_uri(uri, "a socket is on this host",
                                "write gluster+unix:///volume/disk.raw?socket=/var/run/glusterd.socket"));
    if (!socket || !socket->starts_with('/') || socket->find('\0') != std::string_view::npos)
      return unexpected(bad_uri(uri, "the socket is missing or is no absolute path",
                                "add ?socket=/var/run/glusterd.socket"));
    if (socket->size() > socket_path_bytes_max)
      return unexpected(bad_uri(uri, "the socket's path is longer than the system takes"));
    endpoint.servers.push_back({.transport = "unix", .host = std::string(*socket)});
  } else {
    if (socket) return unexpected(bad_uri(uri, "a socket is for gluster+unix://"));
    if (uri.host().empty()) return unexpected(bad_uri(uri, "the host is missing"));
    endpoint.servers.push_back({.transport = "tcp", .host = uri.host(), .port = uri.port().value_or(0)});
  }
  return take_backup_servers(uri, endpoint);
}

}  // namespace

Duration Endpoint::change_limit() const {
  return std::max<Duration>(reconnect_limit, connect_limit + std::chrono::seconds(frame_s()));
}

std::string Endpoint::folder() const {
  const std::size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string Endpoint::mount_key() const {
  std::string key = fmt::format("{} {}", volume, stall_s);
  for (const Server& server : servers)
    key += fmt::format(" {} {} {}", server.transport, server.port, server.host);
  return key;
}

Result<Endpoint> parse_endpoint(const ImageUri& uri) {
  Endpoint endpoint;
  endpoint.name = uri.to_string();
  if (!uri.user().empty())
    return unexpected(bad_uri(uri, "GlusterFS knows its clients by their addresses, not by a user"));
  DISKFERRY_CHECK(take_servers(uri, endpoint));
  DISKFERRY_CHECK(take_path(uri, endpoint));
  DISKFERRY_TRY(endpoint.connect_limit, seconds_key(uri, "connect-timeout", endpoint.connect_limit));
  DISKFERRY_TRY(endpoint.reconnect_limit, seconds_key(uri, "reconnect-timeout", endpoint.reconnect_limit));
  // The library's bounds of its ping-timeout, without 0, which means never.
  DISKFERRY_TRY(endpoint.stall_s, number_key(uri, "stall-timeout", 1, 1013, endpoint.stall_s));
  if (endpoint.connect_limit == Duration::zero())
    return unexpected(bad_uri(uri, "connect-timeout must be more than 0"));
  return endpoint;
}

}  // namespace diskferry::gluster
