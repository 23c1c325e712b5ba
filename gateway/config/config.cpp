// The configuration, section by section, and the rules that go across sections.
#include "gateway/config/config.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/config/toml_table.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <set>
#include <sys/stat.h>

namespace diskferry {
namespace {

/// Far above any honest file.
constexpr std::size_t file_bytes_max = 1u << 20;
/// A client's name in an export or a certificate; the bound of NBD.
constexpr std::size_t name_bytes_max = 4096;
/// A socket's path in the system's structures, with its NUL.
constexpr std::size_t socket_path_bytes_max = 107;

void absolute_path(TomlTable& table, std::string_view key, std::string& into) {
  table.text(key, into);
  if (!into.empty() && !into.starts_with('/'))
    table.problem(key, fmt::format("{} must be an absolute path", key));
}

void read_control(TomlTable& table, ControlConfig& control) {
  absolute_path(table, "socket", control.socket);
  if (control.socket.empty() || control.socket.size() > socket_path_bytes_max)
    table.problem("socket", fmt::format("the socket's path must have 1 to {} bytes", socket_path_bytes_max));
  table.text("group", control.group);
  table.text("listen", control.listen);
  absolute_path(table, "certificates", control.certificates);
  table.texts("allow", control.allow);
  table.texts("peers", control.peers);
  if (!control.listen.text.empty() && control.allow.empty() && control.peers.empty())
    table.problem("listen", "a gateway that listens for other hosts needs control.allow or control.peers");
  if (control.listen.text.empty() && !(control.allow.empty() && control.peers.empty()))
    table.problem("", "control.allow and control.peers mean something with control.listen only");
}

void read_web(TomlTable& table, WebConfig& web) {
  table.text("listen", web.listen);
  table.texts("allow", web.allow);
  table.flag("plain", web.plain);
  table.texts("hosts", web.hosts);
  if (web.listen.text.empty() && !(web.allow.empty() && web.hosts.empty() && !web.plain))
    table.problem("", "web.allow, web.plain and web.hosts mean something with web.listen only");
  if (web.plain && !web.allow.empty())
    table.problem("plain", "web.allow asks for TLS and web.plain goes without; say one of them");
}

void read_nbd(TomlTable& table, NbdConfig& nbd) {
  static constexpr std::array<std::string_view, 3> modes{"off", "on", "require"};
  table.texts("listen", nbd.listen);
  if (const auto mode = table.word("tls", modes)) nbd.tls = static_cast<NbdConfig::Tls>(*mode);
  absolute_path(table, "certificates", nbd.certificates);
  absolute_path(table, "psk-file", nbd.psk_file);
  table.flag("verify-peer", nbd.verify_peer);
  table.texts("allow", nbd.allow);
  table.number("connections", nbd.connections_max, 1, 100'000);
  if (nbd.tls == NbdConfig::Tls::off && !(nbd.allow.empty() && nbd.psk_file.empty()))
    table.problem("", "nbd.allow and nbd.psk-file protect nothing while nbd.tls is off");
}

void read_log(TomlTable& table, LogConfig& log) {
  static constexpr std::array<std::string_view, 5> levels{"error", "warn", "info", "debug", "trace"};
  static constexpr std::array<std::string_view, 2> formats{"text", "json"};
  if (const auto level = table.word("level", levels)) log.level = levels[*level];
  if (const auto format = table.word("format", formats)) log.format = formats[*format];
}

void read_move(TomlTable& table, MoveConfig& move) {
  constexpr std::uint64_t window_min = 1u << 20;
  constexpr std::uint64_t window_max = 1u << 30;
  table.bytes("window", move.window_bytes);
  if (move.window_bytes < window_min || move.window_bytes > window_max)
    table.problem("window", "move.window must be from 1M to 1G");
  table.number("connections", move.connections, 1, 16);
  table.duration("max-pause", move.max_pause);
  table.bytes("rate", move.rate_bytes_per_s);
  table.text("qemu-user", move.qemu_user);
  table.text("qemu-group", move.qemu_group);
  absolute_path(table, "run-folder", move.run_folder);
  absolute_path(table, "qmp-sockets", move.qmp_sockets);
}

/// Of the machines' disks that the gateway serves libvirt's QEMU driver alone knows how to change.
void read_hypervisor(TomlTable& table, HypervisorConfig& hypervisor) {
  table.text("uri", hypervisor.uri);
  const auto end = hypervisor.uri.find("://");
  const bool is_qemu = hypervisor.uri.starts_with("qemu:") || hypervisor.uri.starts_with("qemu+");
  if (end == std::string::npos || !is_qemu)
    table.problem("uri", "hypervisor.uri is libvirt's URI of this host's QEMU, such as qemu:///system");
}

void read_evacuate(TomlTable& table, EvacuateConfig& evacuate) {
  constexpr std::chrono::milliseconds timeout_max = std::chrono::minutes(10);
  table.texts("fence", evacuate.fence);
  table.duration("fence-timeout", evacuate.fence_timeout);
  table.texts("hosts", evacuate.hosts);
  if (!evacuate.fence.empty() && !evacuate.fence.front().starts_with('/'))
    table.problem("fence", "evacuate.fence begins with the absolute path of a program");
  if (evacuate.fence_timeout.count() == 0 || evacuate.fence_timeout > timeout_max)
    table.problem("fence-timeout", "evacuate.fence-timeout must be from 1ms to 10m");
}

void read_export(TomlTable& table, ExportConfig& one) {
  one.where = table.where();
  table.text("name", one.name);
  table.text("image", one.image);
  table.text("format", one.format);
  table.text("description", one.description);
  table.flag("writable", one.writable);
  table.flag("require-tls", one.require_tls);
  table.texts("allow", one.allow);
  if (one.name.empty() || one.name.size() > name_bytes_max)
    table.problem("name", fmt::format("an export needs a name of 1 to {} bytes", name_bytes_max));
  if (one.image.empty()) return table.problem("image", "an export needs an image");
  const auto uri = ImageUri::parse(one.image);
  if (!uri) return table.problem("image", uri.error().message());
  if (uri->is_file() && !uri->path().starts_with('/'))
    table.problem("image", "the image of an export is an absolute path or a URI");
}

void read_root(TomlTable& root, Config& config) {
  root.text("name", config.name);
  root.table("control", [&](TomlTable& table) { read_control(table, config.control); });
  root.table("web", [&](TomlTable& table) { read_web(table, config.web); });
  root.table("nbd", [&](TomlTable& table) { read_nbd(table, config.nbd); });
  root.table("state", [&](TomlTable& table) { absolute_path(table, "folder", config.state.folder); });
  root.table("log", [&](TomlTable& table) { read_log(table, config.log); });
  root.table("move", [&](TomlTable& table) { read_move(table, config.move); });
  root.table("hypervisor", [&](TomlTable& table) { read_hypervisor(table, config.hypervisor); });
  root.table("evacuate", [&](TomlTable& table) { read_evacuate(table, config.evacuate); });
  root.tables("export", [&](TomlTable& table) { read_export(table, config.exports.emplace_back()); });
}

Error wrong(const std::string& where, std::string why) {
  return fail(ErrorKind::invalid_argument, "read configuration", printable(where)).why(std::move(why));
}

/// What one section alone cannot tell.
Result<void> check(const Config& config, const std::string& name) {
  if (config.state.folder.empty()) return unexpected(wrong(name, "state.folder must not be empty"));
  if (config.move.run_folder.empty()) return unexpected(wrong(name, "move.run-folder must not be empty"));
  std::set<std::string> names;
  for (const ExportConfig& one : config.exports) {
    if (!names.insert(one.name).second)
      return unexpected(
          wrong(one.where, fmt::format("there are two exports named '{}'", printable(one.name))));
    if (config.nbd.tls == NbdConfig::Tls::off && (one.require_tls || !one.allow.empty()))
      return unexpected(wrong(one.where, "the export is to be protected, but nbd.tls is off"));
    if (!one.allow.empty() && !config.nbd.verify_peer && config.nbd.psk_file.empty())
      return unexpected(wrong(one.where, "a list of allowed clients needs nbd.verify-peer or nbd.psk-file"));
  }
  return {};
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& name) {
  Config config;
  DISKFERRY_CHECK(read_toml(text, name, [&](TomlTable& root) { read_root(root, config); }));
  DISKFERRY_CHECK(check(config, name));
  if (config.nbd.listen.empty()) config.nbd.listen.push_back({.text = "unix:/run/diskferry/nbd.sock"});
  if (config.nbd.certificates.empty() && config.nbd.psk_file.empty())
    config.nbd.certificates = config.control.certificates;
  return config;
}

Result<Config> load_config(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) != 0)
    return unexpected(errno_error(errno, "read configuration", printable(path)));
  std::ifstream file(path, std::ios::binary);
  if (S_ISDIR(status.st_mode) || !file)
    return unexpected(
        errno_error(S_ISDIR(status.st_mode) ? EISDIR : EACCES, "read configuration", printable(path)));
  std::string text(file_bytes_max + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > file_bytes_max)
    return unexpected(fail(ErrorKind::too_large, "read configuration", printable(path))
                          .why(fmt::format("a configuration has at most {} bytes", file_bytes_max)));
  return parse_config(text, path);
}

}  // namespace diskferry
