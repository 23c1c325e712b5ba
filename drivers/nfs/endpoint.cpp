#include "drivers/nfs/endpoint.hpp"

#include "drivers/support/uri_keys.hpp"

#include <fmt/format.h>

namespace diskferry::nfs {
namespace {

constexpr std::uint32_t id_max = INT32_MAX;  // libnfs takes an int

Result<void> take_path(const ImageUri& uri, Endpoint& endpoint) {
  const std::string& path = uri.path();
  const std::size_t slash = path.rfind('/');
  if (path.empty() || path.back() == '/' || slash == 0 || slash == std::string::npos)
    return unexpected(bad_uri(uri, "an export and the name of a file in it are missing",
                              fmt::format("write nfs://{}/export/disk.raw", printable(endpoint.host))));
  if (path.find('\0') != std::string::npos) return unexpected(bad_uri(uri, "the path has a zero byte in it"));
  if (path.size() > path_bytes_max)
    return unexpected(
        fail(ErrorKind::too_large, "open", fmt::format("nfs://{}", printable(endpoint.host)))
            .why(fmt::format("the path has {} bytes, the protocol allows {}", path.size(), path_bytes_max)));
  endpoint.folder = path.substr(0, slash);
  endpoint.file = path.substr(slash);
  return {};
}

Result<std::optional<std::uint32_t>> id_key(const ImageUri& uri, std::string_view key) {
  if (!uri.query(key)) return std::nullopt;
  return number_key(uri, key, 0, id_max, 0);
}

Result<void> take_ports(const ImageUri& uri, Endpoint& endpoint) {
  DISKFERRY_TRY(const std::uint32_t nfs_port,
                number_key(uri, "nfsport", 1, UINT16_MAX, uri.port() ? *uri.port() : 0u));
  DISKFERRY_TRY(const std::uint32_t mount_port, number_key(uri, "mountport", 1, UINT16_MAX, 0));
  if (endpoint.version == 4 && mount_port != 0)
    return unexpected(bad_uri(uri, "NFSv4 has no MOUNT protocol", "leave mountport out"));
  endpoint.nfs_port = static_cast<std::uint16_t>(nfs_port);
  endpoint.mount_port = static_cast<std::uint16_t>(mount_port);
  return {};
}

}  // namespace

Result<Endpoint> parse_endpoint(const ImageUri& uri) {
  Endpoint endpoint;
  endpoint.name = uri.to_string();
  if (uri.host().empty()) return unexpected(bad_uri(uri, "the host is missing"));
  endpoint.host = uri.host();
  DISKFERRY_CHECK(take_path(uri, endpoint));
  DISKFERRY_TRY(endpoint.version, number_key(uri, "version", 3, 4, 3));
  DISKFERRY_CHECK(take_ports(uri, endpoint));
  DISKFERRY_TRY(endpoint.uid, id_key(uri, "uid"));
  DISKFERRY_TRY(endpoint.gid, id_key(uri, "gid"));
  DISKFERRY_TRY(endpoint.connections, number_key(uri, "connections", 1, connections_max, 0));
  DISKFERRY_TRY(endpoint.connect_limit, seconds_key(uri, "connect-timeout", endpoint.connect_limit));
  DISKFERRY_TRY(endpoint.reconnect_limit, seconds_key(uri, "reconnect-timeout", endpoint.reconnect_limit));
  DISKFERRY_TRY(endpoint.stall_limit, seconds_key(uri, "stall-timeout", endpoint.stall_limit));
  if (endpoint.connect_limit == Duration::zero() || endpoint.stall_limit == Duration::zero())
    return unexpected(bad_uri(uri, "connect-timeout and stall-timeout must be more than 0"));
  return endpoint;
}

}  // namespace diskferry::nfs
