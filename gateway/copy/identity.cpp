// See identity.hpp.
#include "gateway/copy/identity.hpp"

#include "diskferry/units.hpp"
#include "drivers/file/file_identity.hpp"
#include "drivers/registry.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "drivers/support/host_lookup.hpp"
#include "gateway/copy/attached_storage.hpp"
#include "gateway/copy/world_wide_name.hpp"

#include <algorithm>
#include <array>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <xxhash.h>

namespace diskferry {
namespace {

/// Of the first 64 KiB: a header that was rewritten within the clock's resolution still shows. 0: not
/// readable.
std::uint64_t header_hash(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return 0;
  std::vector<char> bytes(64 * kib);
  const ssize_t got = ::pread(fd, bytes.data(), bytes.size(), 0);
  ::close(fd);
  return got < 0 ? 0 : XXH3_64bits(bytes.data(), static_cast<std::size_t>(got));
}

Result<LayerIdentity> identity_of_file(const std::string& path) {
  DISKFERRY_TRY(const FileIdentity file, file_identity(path));
  return LayerIdentity{.device = file.device,
                       .inode = file.inode,
                       .size_bytes = file.size_bytes,
                       .modified_ns = file.modified_ns,
                       .header_hash = header_hash(path)};
}

std::string sysfs_folder(std::uint64_t device) {
  return fmt::format("/sys/dev/block/{}:{}", major(device), minor(device));
}

std::string text_of_file(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

Result<std::vector<std::string>> keys_of_file(const std::string& path) {
  auto file = file_identity(path);
  if (!file && file.error().kind() == ErrorKind::not_found) return std::vector<std::string>();
  if (!file) return unexpected(std::move(file).error());
  std::vector<std::string> keys{fmt::format("file|{}|{}", file->device, file->inode)};
  std::vector<std::string> others;
  if (file->is_block_device) {
    const std::string folder = sysfs_folder(file->device);
    if (const std::string known = world_wide_name(folder); !known.empty()) others.push_back("disk|" + known);
    others.push_back(mapped_rbd_name("/sys/bus/rbd/devices", folder));
  } else {
    std::error_code failed;
    const auto canonical = std::filesystem::canonical(path, failed);
    if (!failed) others = nfs_names(text_of_file("/proc/self/mountinfo"), canonical.string());
  }
  for (std::string& other : others)
    if (!other.empty()) keys.push_back(std::move(other));
  return keys;
}

/// What a network storage calls the volume; empty where it does not tell.
Task<Result<std::string>> told_identity(DriverContext& context, ImageUri uri) {
  DISKFERRY_CO_TRY(VolumeFacts volume, co_await look_at_volume(context, std::move(uri), {}));
  co_return std::move(volume.identity);
}

/// What a server is called: as the URI has it, and its addresses, where a resolver knows them.
Task<std::vector<std::string>> hosts_of(DriverContext& context, ImageUri uri) {
  constexpr Duration resolver_limit = std::chrono::seconds(5);
  constexpr std::array<std::string_view, 4> schemes{"nfs", "nbd", "nbds", "gluster"};
  std::vector<std::string> hosts{uri.host()};
  if (std::ranges::find(schemes, uri.scheme()) == schemes.end() || uri.host().empty()) co_return hosts;
  auto addresses = co_await with_deadline(context.clock, resolver_limit, "look up", look_up_host(uri.host()));
  if (addresses) std::ranges::move(*addresses, std::back_inserter(hosts));
  co_return hosts;
}

struct ToldLayer {
  LedgerLayer noted{};
  std::string told{};  // what a network storage calls it
};

Task<Result<ToldLayer>> note_layer(DriverContext& context, ImageUri uri) {
  ToldLayer layer{.noted = {.uri = uri.to_string(), .identity = {}}};
  LayerIdentity& identity = layer.noted.identity;
  if (uri.is_file()) {
    DISKFERRY_CO_TRY(identity,
                     co_await context.blocking_pool.run([&uri] { return identity_of_file(uri.path()); }));
    co_return layer;
  }
  DISKFERRY_CO_TRY(VolumeFacts volume, co_await look_at_volume(context, std::move(uri), {}));
  identity = {.size_bytes = volume.size_bytes, .modified_ns = volume.modified_ns};
  if (!volume.identity.empty())
    identity.header_hash = XXH3_64bits(volume.identity.data(), volume.identity.size());
  layer.told = std::move(volume.identity);
  co_return layer;
}

}  // namespace

Task<Result<std::vector<std::string>>> storage_keys(DriverContext& context, ImageUri uri) {
  std::string told;
  if (!uri.is_file() && uri.scheme() != "memory") {
    DISKFERRY_CO_TRY(told, co_await told_identity(context, uri));
  }
  co_return co_await storage_keys(context, std::move(uri), std::move(told));
}

Task<Result<std::vector<std::string>>> storage_keys(DriverContext& context, ImageUri uri, std::string told) {
  if (uri.scheme() == "memory") co_return std::vector<std::string>();  // each opening is a disk of its own
  if (uri.is_file())
    co_return co_await context.blocking_pool.run([&uri] { return keys_of_file(uri.path()); });
  auto hosts = co_await hosts_of(context, uri);
  auto keys = co_await context.blocking_pool.run([&uri, &hosts] {
    std::vector<std::string> names;
    for (std::string& host : hosts) names.push_back(network_name(uri, std::move(host)));
    return names;
  });
  if (!told.empty()) keys.push_back(std::move(told));
  co_return keys;
}

std::string common_key(const std::vector<std::string>& one, const std::vector<std::string>& other) {
  const auto both = std::ranges::find_first_of(one, other);
  return both == one.end() ? std::string() : *both;
}

std::string network_identity(const ImageUri& uri, std::string told) {
  return told.empty() ? network_name(uri) : std::move(told);
}

Task<Result<std::string>> storage_identity(DriverContext& context, ImageUri uri) {
  if (!uri.is_file()) {
    DISKFERRY_CO_TRY(std::string told, co_await told_identity(context, uri));
    co_return network_identity(uri, std::move(told));
  }
  co_return co_await context.blocking_pool.run([&uri]() -> Result<std::string> {
    auto file = identity_of_file(uri.path());
    if (!file && file.error().kind() == ErrorKind::not_found) return std::string();
    if (!file) return unexpected(std::move(file).error());
    const std::string known = file->inode == 0 ? world_wide_name(sysfs_folder(file->device)) : std::string();
    if (!known.empty()) return fmt::format("disk|{}|{}|{:016x}", known, file->size_bytes, file->header_hash);
    // Another block device has neither inode nor time of its own: its start tells it apart.
    return fmt::format("file|{}|{}|{}|{:016x}", file->inode, file->size_bytes, file->modified_ns,
                       file->header_hash);
  });
}

Task<Result<std::vector<SourceLayer>>> look_at_layers(DriverContext& context, std::vector<ImageUri> layers) {
  std::vector<SourceLayer> found;
  for (const ImageUri& uri : layers) {
    DISKFERRY_CO_TRY(ToldLayer layer, co_await note_layer(context, uri));
    DISKFERRY_CO_TRY(auto keys, co_await storage_keys(context, uri, std::move(layer.told)));
    found.push_back({.noted = std::move(layer.noted), .keys = std::move(keys)});
  }
  co_return found;
}

Task<Result<std::vector<LedgerLayer>>> note_layers(DriverContext& context, std::vector<ImageUri> layers) {
  std::vector<LedgerLayer> noted;
  for (const ImageUri& uri : layers) {
    DISKFERRY_CO_TRY(ToldLayer layer, co_await note_layer(context, uri));
    noted.push_back(std::move(layer.noted));
  }
  co_return noted;
}

std::vector<LedgerLayer> noted_layers(std::vector<SourceLayer> layers) {
  std::vector<LedgerLayer> noted;
  noted.reserve(layers.size());
  for (SourceLayer& layer : layers) noted.push_back(std::move(layer.noted));
  return noted;
}

std::string changed_layers(const std::vector<LedgerLayer>& then, const std::vector<LedgerLayer>& now) {
  std::string names;
  for (std::size_t i = 0; i < then.size(); ++i) {
    if (i < now.size() && then[i] == now[i]) continue;
    names += (names.empty() ? "" : ", ") + then[i].uri;
  }
  return names;
}

}  // namespace diskferry
