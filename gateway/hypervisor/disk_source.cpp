#include "gateway/hypervisor/disk_source.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <fmt/format.h>
#include <vector>

#include <pugixml.hpp>

namespace diskferry {
namespace {

/// RFC 3986: all but the unreserved characters and those in `also` are escaped.
std::string encoded(std::string_view text, std::string_view also = {}) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_plain =
        (byte < 0x80 && std::isalnum(byte) != 0) || std::string_view("-._~").contains(c) || also.contains(c);
    out += is_plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return out;
}
std::string encoded_path(std::string_view text) {
  return encoded(text, "/:@+,=");
}

/// "host:port", with brackets around an IPv6 address; empty for a host without a name.
std::string authority_of(const pugi::xml_node& host) {
  const std::string_view name = host.attribute("name").value();
  if (name.empty()) return {};
  std::string text = name.contains(':') ? fmt::format("[{}]", encoded(name, ":")) : encoded(name);
  if (const std::string_view port = host.attribute("port").value(); !port.empty())
    text += ":" + encoded(port);
  return text;
}

class Query {
 public:
  void add(std::string_view key, std::string_view value) {
    if (!value.empty())
      text_ += fmt::format("{}{}={}", text_.empty() ? '?' : '&', key, encoded(value, "/:,"));
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// The name of the user of a network source: inside the source, or (in older definitions) beside it.
std::string_view user_of(const pugi::xml_node& holder, const pugi::xml_node& source) {
  const std::string_view inside = source.child("auth").attribute("username").value();
  return inside.empty() ? std::string_view(holder.child("auth").attribute("username").value()) : inside;
}

std::string nbd_uri(const pugi::xml_node& source) {
  const auto host = source.child("host");
  const bool is_tls = std::string_view(source.attribute("tls").value()) == "yes";
  const bool is_unix = std::string_view(host.attribute("transport").value()) == "unix";
  Query query;
  if (is_unix) query.add("socket", host.attribute("socket").value());
  query.add("tls-hostname", source.attribute("tlsHostname").value());
  return fmt::format("nbd{}{}://{}/{}{}", is_tls ? "s" : "", is_unix ? "+unix" : "",
                     is_unix ? std::string{} : authority_of(host),
                     encoded_path(source.attribute("name").value()), query.text());
}

/// rbd://pool/[namespace/]image[@snapshot]: the cluster's monitors have no place in front of the pool.
std::string rbd_uri(const pugi::xml_node& holder, const pugi::xml_node& source) {
  std::string image = encoded(source.attribute("name").value(), "/:+,=");
  if (const std::string_view snapshot = source.child("snapshot").attribute("name").value(); !snapshot.empty())
    image += "@" + encoded(snapshot);
  Query query;
  query.add("conf", source.child("config").attribute("file").value());
  query.add("id", user_of(holder, source));
  std::string monitors;
  for (const auto& host : source.children("host")) {
    if (const auto authority = authority_of(host); !authority.empty())
      monitors += (monitors.empty() ? "" : ",") + authority;
  }
  query.add("mon_host", monitors);
  return fmt::format("rbd://{}{}", image, query.text());
}

/// libvirt writes a user's number as "+1000", so that it is not taken for a name.
std::string_view number_of(std::string_view user) {
  user.remove_prefix(user.starts_with('+') ? 1 : 0);
  return user;
}

/// All others: scheme, host, path. The names of gluster's volumes and iSCSI's targets are the path's first
/// part.
std::string plain_uri(std::string_view protocol, const pugi::xml_node& holder, const pugi::xml_node& source) {
  const auto host = source.child("host");
  const std::string_view transport = host.attribute("transport").value();
  std::string scheme = encoded(protocol);
  if (!transport.empty() && transport != "tcp") scheme += "+" + encoded(transport);
  const auto user = user_of(holder, source);
  std::string_view path = source.attribute("name").value();
  while (path.starts_with('/')) path.remove_prefix(1);
  Query query;
  query.add("socket", host.attribute("socket").value());
  query.add("uid", number_of(source.child("identity").attribute("user").value()));
  query.add("gid", number_of(source.child("identity").attribute("group").value()));
  std::string_view own_query = source.attribute("query").value();  // of http and https, as it is to be sent
  return fmt::format("{}://{}{}{}/{}{}{}{}", scheme, encoded(user), user.empty() ? "" : "@",
                     authority_of(host), encoded_path(path), query.text(), own_query.empty() ? "" : "?",
                     own_query.empty() ? std::string{} : encoded(own_query, "=&/:,"));
}

SourceName network_source(const pugi::xml_node& holder, const pugi::xml_node& source) {
  const std::string_view protocol = source.attribute("protocol").value();
  if (protocol.empty()) return {.text = "network storage without a protocol"};
  std::string uri;
  if (protocol == "nbd") {
    uri = nbd_uri(source);
  } else if (protocol == "rbd") {
    uri = rbd_uri(holder, source);
  } else {
    uri = plain_uri(protocol, holder, source);
  }
  return {.name = uri, .text = uri};
}

/// A path is a name only where it is absolute: others are relative to nobody knows what, and could be read as
/// URIs.
SourceName path_source(std::string_view path) {
  if (path.empty()) return {};
  if (!path.starts_with('/')) return {.text = fmt::format("file {}, which is no absolute path", path)};
  return {.name = std::string(path), .text = std::string(path)};
}

/// Numbers of PCI addresses are written "0x0a".
std::string hexadecimal(std::string_view text, unsigned digits) {
  if (text.starts_with("0x")) text.remove_prefix(2);
  unsigned value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return end.ec == std::errc{} ? fmt::format("{:0{}x}", value, digits) : std::string(digits, '0');
}

}  // namespace

std::string pci_address(const pugi::xml_node& address) {
  if (!address.attribute("bus")) return {};
  return fmt::format("{}:{}:{}.{}", hexadecimal(address.attribute("domain").value(), 4),
                     hexadecimal(address.attribute("bus").value(), 2),
                     hexadecimal(address.attribute("slot").value(), 2),
                     hexadecimal(address.attribute("function").value(), 1));
}

SourceName read_source(const pugi::xml_node& holder, std::string_view type) {
  const auto source = holder.child("source");
  if (!source) return {};
  if (type == "file") return path_source(source.attribute("file").value());
  if (type == "block") return path_source(source.attribute("dev").value());
  if (type == "network") return network_source(holder, source);
  if (type == "dir") return {.text = fmt::format("folder {}", source.attribute("dir").value())};
  if (type == "volume")
    return {.text = fmt::format("volume {} of pool {}", source.attribute("volume").value(),
                                source.attribute("pool").value())};
  if (type == "nvme")
    return {.text = fmt::format("NVMe {} namespace {}", pci_address(source.child("address")),
                                source.attribute("namespace").value())};
  if (type == "vhostuser")
    return {.text = fmt::format("vhost-user socket {}", source.attribute("path").value())};
  if (type == "vhostvdpa") return {.text = fmt::format("vDPA device {}", source.attribute("dev").value())};
  return {.text = fmt::format("storage of type {}", type)};
}

}  // namespace diskferry
