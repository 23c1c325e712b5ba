// Addresses of gateways, parsed and printed.
#include "gateway/control/address.hpp"

#include "diskferry/image_uri.hpp"

#include <fmt/format.h>
#include <sys/un.h>

namespace diskferry::control {
namespace {

Error refuse(std::string_view text, std::string why) {
  return fail(ErrorKind::invalid_argument, "find gateway", printable(text))
      .why(std::move(why))
      .remedy("say unix:/path, or https://HOST:PORT");
}

Result<GatewayAddress> at_path(std::string_view text, std::string_view path) {
  if (!path.starts_with('/')) return unexpected(refuse(text, "the path of a socket is absolute"));
  if (path.size() >= sizeof(sockaddr_un::sun_path))
    return unexpected(refuse(
        text, fmt::format("the path of a socket has at most {} bytes", sizeof(sockaddr_un::sun_path) - 1)));
  GatewayAddress address;
  address.path = path;
  return address;
}

}  // namespace

Result<GatewayAddress> GatewayAddress::parse(std::string_view text) {
  if (text.empty()) return GatewayAddress{};
  if (text.starts_with('/')) return at_path(text, text);
  if (text.starts_with("unix://")) return at_path(text, text.substr(7));
  if (text.starts_with("unix:")) return at_path(text, text.substr(5));
  if (!text.starts_with("https://")) return unexpected(refuse(text, "this is no address of a gateway"));
  DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(text));
  if (uri.host().empty()) return unexpected(refuse(text, "the host is missing"));
  if (!uri.user().empty())
    return unexpected(refuse(text, "gateways know each other by certificates, not by users"));
  if (!uri.path().empty() && uri.path() != "/") return unexpected(refuse(text, "a gateway has no path"));
  GatewayAddress address;
  address.kind = Kind::https;
  address.path.clear();
  address.host = uri.host();
  address.port = uri.port().value_or(default_port);
  for (const auto& [key, value] : uri.queries()) {
    if (key == "certificates") {
      address.certificates = value;
    } else if (key == "server-name") {
      address.server_name = value;
    } else {
      return unexpected(refuse(text, fmt::format("there is no setting '{}'", printable(key))));
    }
  }
  return address;
}

std::string GatewayAddress::to_string() const {
  if (kind == Kind::unix_socket) return "unix:" + printable(path);
  const bool is_ipv6 = host.find(':') != std::string::npos;
  std::string text = fmt::format("https://{}{}{}:{}", is_ipv6 ? "[" : "", host, is_ipv6 ? "]" : "", port);
  std::string_view separator = "?";
  if (certificates != default_certificates) {
    text += fmt::format("{}certificates={}", separator, certificates);
    separator = "&";
  }
  if (!server_name.empty()) text += fmt::format("{}server-name={}", separator, server_name);
  return printable(text);
}

}  // namespace diskferry::control
