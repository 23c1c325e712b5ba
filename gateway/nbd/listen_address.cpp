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
      .remedy("say nbd://HOST:PORT, nbds://HOST:PORT (TLS) or unix:PATH");
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
std::string encoded(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || std::string_view("/-._~").contains(c)) {
      result += c;
    } else {
      result += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return result;
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
  const auto colon = text.find(':');
  const std::string_view scheme = text.substr(0, colon);
  const bool is_unix = scheme.ends_with("+unix");
  const std::string_view base = is_unix ? scheme.substr(0, scheme.size() - 5) : scheme;
  if (base == "nbds") {
    address.tls = Tls::required;
  } else if (base == "tls") {
    address.tls = Tls::direct;
  } else if (base != "nbd") {
    return unexpected(refuse(text, "this is no address of an NBD server"));
  }
  if (colon == std::string_view::npos || !text.substr(colon).starts_with("://"))
    return unexpected(refuse(text, "after the scheme comes ://"));
  if (is_unix) {
    DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(fmt::format("nbd+unix{}", text.substr(colon))));
    return with_path(std::string(uri.query("socket").value_or("")));
  }
  std::string_view authority = text.substr(colon + 3);
  if (authority.ends_with('/')) authority.remove_suffix(1);
  if (authority.find_first_of("/?#@") != std::string_view::npos)
    return unexpected(refuse(text, "an address to listen on is a host and a port; names go into --name"));
  return parse_authority(text, authority, std::move(address));
}

std::string ListenAddress::to_uri(std::string_view export_name) const {
  const std::string_view scheme = tls == Tls::direct ? "tls" : tls == Tls::required ? "nbds" : "nbd";
  if (kind == Kind::unix_socket)
    return fmt::format("{}+unix:///{}?socket={}", scheme, encoded(export_name), encoded(path));
  const std::string_view shown = host.empty() ? std::string_view("localhost") : std::string_view(host);
  const bool is_ipv6 = shown.contains(':');
  return fmt::format("{}://{}{}{}:{}{}{}", scheme, is_ipv6 ? "[" : "", shown, is_ipv6 ? "]" : "", port,
                     export_name.empty() ? "" : "/", encoded(export_name));
}

}  // namespace diskferry::nbd_server
