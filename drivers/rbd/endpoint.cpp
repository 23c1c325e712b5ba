#include "drivers/rbd/endpoint.hpp"

#include "diskferry/units.hpp"
#include "drivers/support/uri_keys.hpp"

#include <bit>
#include <fmt/format.h>

namespace diskferry::rbd {
namespace {

constexpr std::string_view form =
    "write rbd://POOL/IMAGE, rbd://POOL/NAMESPACE/IMAGE or rbd://POOL/IMAGE@SNAPSHOT";

/// What is left of `text` before `separator`; `text` goes on behind it.
std::string take(std::string_view& text, char separator) {
  const std::size_t at = text.find(separator);
  std::string taken(text.substr(0, at));
  text = at == std::string_view::npos ? std::string_view{} : text.substr(at + 1);
  return taken;
}

/// Where the pool's name is one that no host has, the path begins with it: rbd:///my pool/image.
Result<void> take_names(const ImageUri& uri, Endpoint& endpoint) {
  std::string_view path = uri.path();
  if (path.starts_with('/')) path.remove_prefix(1);
  endpoint.pool = uri.host().empty() ? take(path, '/') : uri.host();
  if (const std::size_t slash = path.find('/'); slash != std::string_view::npos) {
    endpoint.name_space = take(path, '/');
    if (endpoint.name_space.empty())
      return unexpected(bad_uri(uri, "the namespace is empty", std::string(form)));
  }
  const bool names_snapshot = path.find('@') != std::string_view::npos;
  endpoint.image = take(path, '@');
  endpoint.snapshot = path;
  if (endpoint.pool.empty() || endpoint.image.empty() || (names_snapshot && endpoint.snapshot.empty()))
    return unexpected(bad_uri(uri, "the pool, the image or the snapshot has no name", std::string(form)));
  for (const std::string* name :
       {&endpoint.pool, &endpoint.name_space, &endpoint.image, &endpoint.snapshot}) {
    if (name->find_first_of("/@") != std::string::npos)
      return unexpected(bad_uri(uri, "there are too many names in it", std::string(form)));
    if (name->size() > name_bytes_max)
      return unexpected(
          fail(ErrorKind::too_large, "open", "rbd://")
              .why(fmt::format("a name has {} bytes, the limit is {}", name->size(), name_bytes_max)));
  }
  return {};
}

Result<void> take_text(const ImageUri& uri, std::string_view key, std::string& into) {
  const auto value = uri.query(key);
  if (!value) return {};
  if (value->empty() || value->find('\0') != std::string_view::npos)
    return unexpected(bad_uri(uri, fmt::format("{} is empty or has a zero byte in it", key)));
  into = *value;
  return {};
}

Result<std::uint64_t> object_size(const ImageUri& uri) {
  const auto value = uri.query("object-size");
  if (!value) return std::uint64_t{0};
  const auto bytes = parse_bytes(*value);
  if (!bytes || !std::has_single_bit(*bytes) || *bytes < object_bytes_min || *bytes > object_bytes_max)
    return unexpected(bad_uri(uri, "object-size is not a power of two from 4K to 32M"));
  return *bytes;
}

}  // namespace

Result<Endpoint> parse_endpoint(const ImageUri& uri) {
  Endpoint endpoint;
  endpoint.name = uri.to_string();
  if (!uri.user().empty() || uri.port())
    return unexpected(bad_uri(uri, "an RBD image has no user or port in front",
                              "name the user with id=USER, and monitors with mon_host=ADDRESSES"));
  DISKFERRY_CHECK(take_names(uri, endpoint));
  for (const auto& [key, into] :
       std::initializer_list<std::pair<std::string_view, std::string*>>{{"conf", &endpoint.conf},
                                                                        {"mon_host", &endpoint.monitors},
                                                                        {"id", &endpoint.user},
                                                                        {"keyring", &endpoint.keyring},
                                                                        {"data-pool", &endpoint.data_pool}})
    DISKFERRY_CHECK(take_text(uri, key, *into));
  if (endpoint.user.starts_with("client."))
    return unexpected(bad_uri(uri, "id has 'client.' in front", "leave it out"));
  DISKFERRY_TRY(endpoint.object_bytes, object_size(uri));
  DISKFERRY_TRY(endpoint.connect_limit, seconds_key(uri, "connect-timeout", endpoint.connect_limit));
  DISKFERRY_TRY(endpoint.reconnect_limit, seconds_key(uri, "reconnect-timeout", endpoint.reconnect_limit));
  DISKFERRY_TRY(endpoint.in_use_limit, seconds_key(uri, "in-use-timeout", endpoint.in_use_limit));
  if (endpoint.connect_limit == Duration::zero() || endpoint.reconnect_limit == Duration::zero())
    return unexpected(bad_uri(uri, "connect-timeout and reconnect-timeout must be more than 0"));
  return endpoint;
}

}  // namespace diskferry::rbd
