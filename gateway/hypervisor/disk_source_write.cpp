// The source of a disk as libvirt's XML has it: from the names operators use, checked, and written.
#include "gateway/hypervisor/domain_edit.hpp"
#include "gateway/hypervisor/xml_tree.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include <pugixml.hpp>

namespace diskferry {
namespace {

constexpr std::uint16_t iscsi_port = 3260;
constexpr std::uint16_t gluster_port = 24007;

Error bad_source(std::string why) {
  return fail(ErrorKind::invalid_argument, "rewrite domain XML").why(std::move(why));
}

std::string_view user_of(const ImageUri& uri) {
  return uri.scheme() == "rbd" ? uri.query("id").value_or("") : std::string_view(uri.user());
}

/// Lower-case letters, digits and '-': all names of formats and of cache modes are such.
bool is_word(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

Result<void> check_path(std::string_view path) {
  if (!path.starts_with('/'))
    return unexpected(bad_source(fmt::format("'{}' is no absolute path", printable(path))));
  if (!is_plain_text(path))
    return unexpected(bad_source(fmt::format("XML cannot hold the path '{}'", printable(path))));
  return {};
}

Result<void> check(const NbdDiskSource& nbd) {
  if (nbd.host.empty() == nbd.socket.empty())
    return unexpected(bad_source("an NBD source needs either a host or a socket"));
  if (!nbd.socket.empty()) DISKFERRY_CHECK(check_path(nbd.socket));
  if (nbd.socket.empty() && nbd.port == 0) return unexpected(bad_source("an NBD source needs a port"));
  if (!is_plain_text(nbd.host) || !is_plain_text(nbd.export_name) || !is_plain_text(nbd.tls_hostname))
    return unexpected(bad_source("XML cannot hold the name of the NBD export or of its host"));
  if (!nbd.tls_hostname.empty() && !nbd.tls)
    return unexpected(bad_source("a TLS host name is of no use without TLS"));
  if (!nbd.socket.empty() && nbd.tls && nbd.tls_hostname.empty())
    return unexpected(bad_source("TLS on a socket needs the name that the certificate has"));
  return {};
}

Result<void> check(const UriDiskSource& storage) {
  const ImageUri& uri = storage.uri;
  const auto refuse = [&](std::string why, std::string remedy) -> Result<void> {
    return unexpected(fail(ErrorKind::invalid_argument, "rewrite domain XML", uri.to_string())
                          .why(std::move(why))
                          .remedy(std::move(remedy)));
  };
  constexpr std::array<std::string_view, 4> schemes{"rbd", "iscsi", "nfs", "gluster"};
  if (std::ranges::find(schemes, uri.scheme()) == schemes.end())
    return unexpected(fail(ErrorKind::unsupported, "rewrite domain XML", uri.to_string())
                          .why("a machine's disk can be a path, nbd, rbd, iscsi, nfs or gluster"));
  if (uri.host().empty() || uri.path().size() < 2) return refuse("it names no image", "write the whole URI");
  if (!user_of(uri).empty() && storage.secret_uuid.empty())
    return refuse("it names a user, whose key QEMU gets from libvirt only",
                  "define a secret there and name it with --secret, or leave the user out");
  if (!is_plain_text(uri.path()) || !is_plain_text(uri.user()) || !is_plain_text(storage.secret_uuid) ||
      std::ranges::any_of(uri.queries(), [](const auto& query) { return !is_plain_text(query.second); }))
    return refuse("XML cannot hold it", "leave control characters out");
  return {};
}

void write_host(pugi::xml_node to, std::string_view host, std::string_view port) {
  auto element = append_element(to, "host");
  set_attribute(element, "name", host);
  set_attribute(element, "port", port);
}

void write(pugi::xml_node to, const FileDiskSource& file) {
  set_attribute(to, "file", file.path);
}
void write(pugi::xml_node to, const BlockDiskSource& block) {
  set_attribute(to, "dev", block.path);
}
void write(pugi::xml_node to, const NbdDiskSource& nbd) {
  set_attribute(to, "protocol", "nbd");
  set_attribute(to, "name", nbd.export_name);
  set_attribute(to, "tls", nbd.tls ? "yes" : "no");
  set_attribute(to, "tlsHostname", nbd.tls_hostname);
  if (nbd.socket.empty()) return write_host(to, nbd.host, std::to_string(nbd.port));
  auto host = append_element(to, "host");
  set_attribute(host, "transport", "unix");
  set_attribute(host, "socket", nbd.socket);
}

/// The monitors of "a:6789,[::1]:6789".
void write_monitors(pugi::xml_node to, std::string_view monitors) {
  while (!monitors.empty()) {
    const auto end = std::min(monitors.find(','), monitors.size());
    std::string_view host = monitors.substr(0, end);
    std::string_view port;
    const auto colon = host.rfind(':');
    if (colon != std::string_view::npos && host.find(':') == colon) {
      port = host.substr(colon + 1);
      host = host.substr(0, colon);
    } else if (const auto bracket = host.find(']');
               host.starts_with('[') && bracket != std::string_view::npos) {
      if (host.substr(bracket + 1).starts_with(':')) port = host.substr(bracket + 2);
      host = host.substr(1, bracket - 1);
    }
    if (!host.empty()) write_host(to, host, port);
    monitors.remove_prefix(std::min(end + 1, monitors.size()));
  }
}

void write_rbd(pugi::xml_node to, const UriDiskSource& rbd) {
  // rbd://pool/[namespace/]image[@snapshot]: the pool is where other URIs have the host.
  std::string name = rbd.uri.host() + rbd.uri.path();
  const auto at = name.rfind('@');
  const std::string snapshot = at == std::string::npos ? std::string{} : name.substr(at + 1);
  set_attribute(to, "name", name.substr(0, at));
  write_monitors(to, rbd.uri.query("mon_host").value_or(""));
  if (!snapshot.empty()) set_attribute(append_element(to, "snapshot"), "name", snapshot);
  if (const auto conf = rbd.uri.query("conf")) set_attribute(append_element(to, "config"), "file", *conf);
}

void write_nfs(pugi::xml_node to, const UriDiskSource& nfs) {
  set_attribute(to, "name", nfs.uri.path());
  write_host(to, nfs.uri.host(), nfs.uri.port() ? std::to_string(*nfs.uri.port()) : std::string{});
  const auto uid = nfs.uri.query("uid").value_or("");
  const auto gid = nfs.uri.query("gid").value_or("");
  if (uid.empty() && gid.empty()) return;
  auto identity = append_element(to, "identity");
  // With a plus it is a number; without, libvirt looks for a user of that name first.
  if (!uid.empty()) set_attribute(identity, "user", fmt::format("+{}", uid));
  if (!gid.empty()) set_attribute(identity, "group", fmt::format("+{}", gid));
}

/// iSCSI and GlusterFS: the name of the target or volume, and what is in it, is the path.
void write_named(pugi::xml_node to, const UriDiskSource& storage, std::uint16_t usual_port) {
  std::string_view name = storage.uri.path();
  name.remove_prefix(name.starts_with('/') ? 1 : 0);
  set_attribute(to, "name", name);
  write_host(to, storage.uri.host(), std::to_string(storage.uri.port().value_or(usual_port)));
}

void write(pugi::xml_node to, const UriDiskSource& storage) {
  const std::string& scheme = storage.uri.scheme();
  set_attribute(to, "protocol", scheme);
  if (scheme == "rbd") write_rbd(to, storage);
  if (scheme == "nfs") write_nfs(to, storage);
  if (scheme == "iscsi") write_named(to, storage, iscsi_port);
  if (scheme == "gluster") write_named(to, storage, gluster_port);
  if (const auto user = user_of(storage.uri); !user.empty()) {
    auto auth = append_element(to, "auth");
    set_attribute(auth, "username", user);
    auto secret = append_element(auth, "secret");
    set_attribute(secret, "type", scheme == "rbd" ? "ceph" : "iscsi");
    set_attribute(secret, "uuid", storage.secret_uuid);
  }
}

}  // namespace

std::string_view format_of(const DiskSource& source) {
  if (const auto* file = std::get_if<FileDiskSource>(&source)) return file->format;
  if (const auto* block = std::get_if<BlockDiskSource>(&source)) return block->format;
  const auto* uri = std::get_if<UriDiskSource>(&source);
  if (uri != nullptr && !uri->format.empty()) return uri->format;
  return "raw";
}

const char* type_of(const DiskSource& source) {
  if (std::holds_alternative<FileDiskSource>(source)) return "file";
  return std::holds_alternative<BlockDiskSource>(source) ? "block" : "network";
}

Result<void> check_source(const DiskRewrite& change) {
  const DiskSource& source = change.source;
  if (!change.cache.empty() && !is_word(change.cache))
    return unexpected(bad_source(fmt::format("'{}' is no cache mode", printable(change.cache))));
  if (!is_word(format_of(source)))
    return unexpected(bad_source(fmt::format("'{}' is no name of a format", printable(format_of(source)))));
  if (change.slice_bytes != 0 && format_of(source) != "raw")
    return unexpected(bad_source("only a raw disk can be a part of its storage"));
  if (const auto* file = std::get_if<FileDiskSource>(&source)) return check_path(file->path);
  if (const auto* block = std::get_if<BlockDiskSource>(&source)) return check_path(block->path);
  if (const auto* nbd = std::get_if<NbdDiskSource>(&source)) return check(*nbd);
  return check(std::get<UriDiskSource>(source));
}

void write_source(pugi::xml_node source, const DiskSource& from) {
  std::visit([&](const auto& kind) { write(source, kind); }, from);
}

bool is_plain_text(std::string_view text) {
  return is_utf8(text) && printable(text) == text;
}

Result<DiskSource> disk_source(const ImageUri& uri, std::string format, bool is_block_device,
                               std::string secret_uuid) {
  const std::string& scheme = uri.scheme();
  if (uri.is_file()) {
    if (format.empty()) return unexpected(bad_source("a path needs the format of the image"));
    if (is_block_device) return BlockDiskSource{.path = uri.path(), .format = std::move(format)};
    return FileDiskSource{.path = uri.path(), .format = std::move(format)};
  }
  if (scheme == "nbd" || scheme == "nbds" || scheme == "nbd+unix" || scheme == "nbds+unix") {
    if (!format.empty() && format != "raw") return unexpected(bad_source("an NBD export is raw"));
    return NbdDiskSource{.host = uri.host(),
                         .port = uri.port().value_or(10809),
                         .socket = std::string(uri.query("socket").value_or("")),
                         .export_name = uri.path().empty() ? "" : uri.path().substr(1),
                         .tls = scheme.starts_with("nbds"),
                         .tls_hostname = std::string(uri.query("tls-hostname").value_or(""))};
  }
  UriDiskSource source{.uri = uri, .format = std::move(format), .secret_uuid = std::move(secret_uuid)};
  DISKFERRY_CHECK(check(source));
  return source;
}

}  // namespace diskferry
