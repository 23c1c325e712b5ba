#include "gateway/copy/attached_storage.hpp"

#include "gateway/copy/sysfs.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <ranges>

namespace diskferry {
namespace fs = std::filesystem;
namespace {

constexpr std::uint16_t nbd_port = 10809;

/// One line of mountinfo. Fields are separated by a space; spaces and the like in them are octal.
struct Mount {
  std::string root;
  std::string point;
  std::string type;
  std::string source;
  std::string address{};  // of the server, where the file system's options say it
};

std::string unescaped(std::string_view field) {
  std::string text;
  for (std::size_t i = 0; i < field.size(); ++i) {
    const auto is_octal = [](char c) { return c >= '0' && c <= '7'; };
    if (field[i] == '\\' && i + 3 < field.size() && std::ranges::all_of(field.substr(i + 1, 3), is_octal)) {
      text += static_cast<char>((field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 + (field[i + 3] - '0'));
      i += 3;
    } else {
      text += field[i];
    }
  }
  return text;
}

std::vector<std::string> fields_of(std::string_view line) {
  std::vector<std::string> fields;
  for (const auto field : line | std::views::split(' '))
    fields.emplace_back(unescaped(std::string_view(field)));
  return fields;
}

/// "addr=10.0.0.5" of "rw,vers=4.2,addr=10.0.0.5,..."
std::string address_in(std::string_view options) {
  for (const auto option : options | std::views::split(',')) {
    std::string_view one(option);
    if (!one.starts_with("addr=")) continue;
    one.remove_prefix(5);
    return std::string(one);
  }
  return {};
}

/// "36 35 0:99 / /mnt rw shared:1 - nfs4 server:/export rw,..."
bool take_mount(std::string_view line, Mount& mount) {
  const auto fields = fields_of(line);
  const auto dash = std::ranges::find(fields, "-");
  if (fields.size() < 6 || fields.end() - dash < 3) return false;
  mount = {.root = fields[3], .point = fields[4], .type = dash[1], .source = dash[2]};
  if (fields.end() - dash > 3) mount.address = address_in(dash[3]);
  return true;
}

bool is_below(const std::string& path, const std::string& folder) {
  return folder == "/" || path == folder || path.starts_with(folder + "/");
}

/// "a", "/b/", "c" -> "a/b/c"
std::string joined(std::initializer_list<std::string_view> parts) {
  std::string path;
  for (std::string_view part : parts) {
    while (part.starts_with('/')) part.remove_prefix(1);
    while (part.ends_with('/')) part.remove_suffix(1);
    if (!part.empty()) path += (path.empty() ? "" : "/") + std::string(part);
  }
  return path;
}

std::string host_text(std::string host) {
  std::ranges::transform(host, host.begin(), [](unsigned char c) { return std::tolower(c); });
  return host == "localhost" || host == "::1" ? "127.0.0.1" : host;
}

}  // namespace

std::string network_name(const ImageUri& uri) {
  return network_name(uri, uri.host());
}

std::string network_name(const ImageUri& uri, std::string host) {
  std::string scheme = uri.scheme();
  // TLS or not, it is the same disk.
  if (scheme == "nbds") scheme = "nbd";
  if (scheme == "nbds+unix") scheme = "nbd+unix";
  std::string socket;
  if (const auto path = uri.query("socket")) {
    std::error_code failed;
    const auto canonical = fs::canonical(std::string(*path), failed);
    socket = failed ? std::string(*path) : canonical.string();
  }
  std::string_view name = uri.path();
  while (name.starts_with('/')) name.remove_prefix(1);
  // A server of NFS has one port for all its exports, and the kernel's mounts do not name it.
  const std::uint16_t port = scheme == "nfs" ? 0 : uri.port().value_or(scheme == "nbd" ? nbd_port : 0);
  return fmt::format("{}|{}|{}|{}|{}", scheme, host_text(std::move(host)), port, socket, name);
}

std::vector<std::string> nfs_names(std::string_view mountinfo, const std::string& path) {
  Mount best;
  for (const auto line : mountinfo | std::views::split('\n')) {
    Mount mount;
    // The last of several at one place hides the others.
    if (take_mount(std::string_view(line), mount) && is_below(path, mount.point) &&
        mount.point.size() >= best.point.size())
      best = std::move(mount);
  }
  if (best.type != "nfs" && best.type != "nfs4") return {};
  const std::size_t colon = best.source.rfind(":/");
  if (colon == std::string::npos) return {};
  std::string host = best.source.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const std::string rest = best.point == "/" ? path : path.substr(best.point.size());
  const std::string file = joined({best.source.substr(colon + 1), best.root, rest});
  std::vector<std::string> names{fmt::format("nfs|{}|0||{}", host_text(std::move(host)), file)};
  if (!best.address.empty()) {
    std::string by_address = fmt::format("nfs|{}|0||{}", host_text(best.address), file);
    if (by_address != names.front()) names.push_back(std::move(by_address));
  }
  return names;
}

std::string mapped_rbd_name(const std::string& devices, const std::string& folder) {
  std::error_code failed;
  const std::string name = fs::canonical(folder, failed).filename().string();
  const std::string number = name.starts_with("rbd") ? name.substr(3) : std::string();
  if (failed || number.empty() ||
      !std::ranges::all_of(number, [](unsigned char c) { return std::isdigit(c); }))
    return {};
  const fs::path device = fs::path(devices) / number;
  const std::string snapshot = sysfs_line(device / "current_snap");
  const std::string cluster = sysfs_line(device / "cluster_fsid");
  const std::string pool = sysfs_line(device / "pool_id");
  const std::string image = sysfs_line(device / "image_id");
  if (cluster.empty() || pool.empty() || image.empty() || (!snapshot.empty() && snapshot != "-")) return {};
  return fmt::format("rbd|{}|{}|{}|{}", cluster, pool, sysfs_line(device / "pool_ns"), image);
}

}  // namespace diskferry
