// Listen addresses, parsed and printed.
#include "gateway/nbd/listen_address.hpp"

#include "diskferry/image_uri.hpp"

#include <charconv>
#include <fmt/format.h>
#include <sys/un.h>

namespace diskferry::nbd_server {
namespace {
Error refuse(std::string_view text, std::string why) {
  return fail(ErrorKind::invalid_argument, "listen", printable(text))
      .why(std::move(why))
      .remedy("say nbd://HOST:PORT, nbds://HOST:PORT or unix:PATH");
}
/// "HOST", "HOST:PORT", "[IPv6]:PORT", ":PORT". Port 0 is any free one, which no URI of a client may say.
Result<ListenAddress> parse_authority(std::string_view text, std::string_view authority,
                                      ListenAddress address) {
  std::string_view port;
  if (authority.starts_with('[')) {
    const auto closing = authority.find(']');
    if (closing == std::string_view::npos) return unexpected(refuse(text, "the bracket is not closed"));
    address.host = authority.substr(1, closing - 1);
    authority.remove_prefix(closing + 1);
    if (!authority.empty() && !authority.starts_with(':'))
      return unexpected(refuse(text, "after the bracket comes a colon and the port"));
    if (!authority.empty()) port = authority.substr(1);
  } else {
    const auto colon = authority.find(':');
    address.host = authority.substr(0, colon);
    if (colon != std::string_view::npos) port = authority.substr(colon + 1);
    if (port.contains(':')) return unexpected(refuse(text, "an IPv6 address stands in brackets"));
  }
  if (port.empty()) return address;
  const auto parsed = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (parsed.ec != std::errc() || parsed.ptr != port.data() + port.size())
    return unexpected(refuse(text, "the port is not a number from 0 to 65535"));
  return address;
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
  if (text.starts_with("nbd+unix://") || text.starts_with("nbds+unix://")) {
    DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(text));
    address.direct_tls = uri.scheme() == "nbds+unix";
    return with_path(std::string(uri.query("socket").value_or("")));
  }
  std::string_view authority;
  if (text.starts_with("nbd://")) {
    authority = text.substr(6);
  } else if (text.starts_with("nbds://")) {
    authority = text.substr(7);
    address.direct_tls = true;
  } else {
    return unexpected(refuse(text, "this is no address of an NBD server"));
  }
  if (authority.ends_with('/')) authority.remove_suffix(1);
  if (authority.find_first_of("/?#@") != std::string_view::npos)
    return unexpected(refuse(text, "an address to listen on is a host and a port; names go into --name"));
  return parse_authority(text, authority, std::move(address));
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
