// Listen addresses, parsed and printed.
#include "gateway/nbd/listen_address.hpp"

#include "diskferry/image_uri.hpp"

#include <fmt/format.h>
#include <sys/un.h>

namespace diskferry::nbd_server {
namespace {
Error refuse(std::string_view text, std::string why) {
  return fail(ErrorKind::invalid_argument, "listen", printable(text))
      .why(std::move(why))
      .remedy("say nbd://HOST:PORT, nbds://HOST:PORT or unix:PATH");
}
}  // namespace

Result<ListenAddress> ListenAddress::parse(std::string_view text) {
  ListenAddress address;
  const auto with_path = [&](std::string path) -> Result<ListenAddress> {
    if (path.empty()) return unexpected(refuse(text, "a UNIX socket needs a path"));
    if (path.size() >= sizeof(sockaddr_un::sun_path))
      return unexpected(refuse(text, fmt::format("the path of a UNIX socket has at most {} bytes",
                                                 sizeof(sockaddr_un::sun_path) - 1)));
    address.kind = Kind::unix_socket;
    address.path = std::move(path);
    return address;
  };
  if (text.starts_with("unix:")) return with_path(std::string(text.substr(5)));
  DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(text));
  address.direct_tls = uri.scheme().starts_with("nbds");
  if (uri.scheme() == "nbd+unix" || uri.scheme() == "nbds+unix")
    return with_path(std::string(uri.query("socket").value_or("")));
  if (uri.scheme() != "nbd" && uri.scheme() != "nbds")
    return unexpected(refuse(text, "this is no address of an NBD server"));
  if (!uri.path().empty() && uri.path() != "/")
    return unexpected(refuse(text, "an address to listen on has no export name; use --name"));
  if (!uri.queries().empty() || !uri.user().empty())
    return unexpected(refuse(text, "an address to listen on has neither user nor options"));
  address.host = uri.host();
  address.port = uri.port().value_or(default_port);
  return address;
}

std::string ListenAddress::to_uri() const {
  const std::string_view scheme = direct_tls ? "nbds" : "nbd";
  if (kind == Kind::unix_socket) {
    std::string encoded;
    for (const char c : path) {
      if (std::isalnum(static_cast<unsigned char>(c)) != 0 || std::string_view("/-._~").contains(c)) {
        encoded += c;
      } else {
        encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
      }
    }
    return fmt::format("{}+unix:///?socket={}", scheme, encoded);
  }
  const std::string_view shown = host.empty() ? std::string_view("localhost") : std::string_view(host);
  const bool is_ipv6 = shown.contains(':');
  return fmt::format("{}://{}{}{}:{}", scheme, is_ipv6 ? "[" : "", shown, is_ipv6 ? "]" : "", port);
}

}  // namespace diskferry::nbd_server
