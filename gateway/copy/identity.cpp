// See identity.hpp.
#include "gateway/copy/identity.hpp"

#include "diskferry/units.hpp"
#include "drivers/file/file_identity.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "gateway/copy/world_wide_name.hpp"

#include <array>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
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

std::string network_key(const ImageUri& uri) {
  std::string scheme = uri.scheme();
  // TLS or not, it is the same disk.
  if (scheme == "nbds") scheme = "nbd";
  if (scheme == "nbds+unix") scheme = "nbd+unix";
  std::string socket;
  if (const auto path = uri.query("socket")) {
    std::error_code failed;
    const auto canonical = std::filesystem::canonical(std::string(*path), failed);
    socket = failed ? std::string(*path) : canonical.string();
  }
  std::string_view name = uri.path();
  while (name.starts_with('/')) name.remove_prefix(1);
  const std::uint16_t port = uri.port().value_or(scheme == "nbd" ? 10809 : 0);
  const std::string host = uri.host() == "localhost" || uri.host() == "::1" ? "127.0.0.1" : uri.host();
  return fmt::format("{}|{}|{}|{}|{}", scheme, host, port, socket, name);
}

}  // namespace

Task<Result<std::string>> storage_key(DriverContext& context, ImageUri uri) {
  if (uri.scheme() == "memory") co_return std::string();  // each opening is a disk of its own
  co_return co_await context.blocking_pool.run([&uri]() -> Result<std::string> {
    if (!uri.is_file()) return network_key(uri);
    auto file = file_identity(uri.path());
    if (!file && file.error().kind() == ErrorKind::not_found) return std::string();
    if (!file) return unexpected(std::move(file).error());
    return fmt::format("file|{}|{}", file->device, file->inode);
  });
}

Task<Result<std::string>> storage_identity(DriverContext& context, ImageUri uri) {
  if (!uri.is_file()) co_return network_key(uri);
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

Task<Result<std::vector<LedgerLayer>>> note_layers(DriverContext& context, std::vector<ImageUri> layers) {
  std::vector<LedgerLayer> noted;
  for (const ImageUri& uri : layers) {
    LedgerLayer layer{.uri = uri.to_string(), .identity = {}};
    if (uri.is_file()) {
      DISKFERRY_CO_TRY(layer.identity,
                       co_await context.blocking_pool.run([&uri] { return identity_of_file(uri.path()); }));
    }
    noted.push_back(std::move(layer));
  }
  co_return noted;
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
