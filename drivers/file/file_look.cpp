#include "drivers/file/file_look.hpp"

#include "drivers/file/file_calls.hpp"
#include "drivers/file/file_facts.hpp"
#include "drivers/file/file_identity.hpp"
#include "drivers/file/image_lock.hpp"
#include "drivers/file/open_file.hpp"

#include <cerrno>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace diskferry {
namespace {

constexpr std::uint64_t stat_block_bytes = 512;  // of st_blocks, whatever the file system's are

std::string folder_of(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  return folder.empty() ? std::string(".") : folder.string();
}

std::optional<std::uint64_t> free_bytes_at(const std::string& path) {
  struct statvfs space{};
  if (::statvfs(path.c_str(), &space) != 0) return std::nullopt;
  return static_cast<std::uint64_t>(space.f_bavail) * space.f_frsize;
}

void look_for_obstacles(const std::string& path, const std::string& name, VolumeFacts& facts) {
  if (!facts.exists) {
    const std::string folder = folder_of(path);
    struct stat status{};
    if (::stat(folder.c_str(), &status) != 0) {
      facts.obstacles.push_back(errno_error(errno, "create", name).in("look into " + printable(folder)));
    } else if (::access(folder.c_str(), W_OK | X_OK) != 0) {
      facts.obstacles.push_back(
          call_error(errno, "create", name).why("nothing can be made in " + printable(folder)));
    }
    return;
  }
  if (::access(path.c_str(), W_OK) != 0) facts.obstacles.push_back(call_error(errno, "write to", name));
  // For reading, and the locks go with it: QEMU and we ourselves take them only as locks for reading.
  auto file = open_existing(path, name, {.use_rings = false, .force_share = true});
  if (!file) return;  // who may not read it may still write it
  auto locked = lock_image(file->fd.get(), ImageLock::exclusive, name);
  if (!locked) facts.obstacles.push_back(std::move(locked).error());
}

/// 1 where it cannot be learnt: who may not read it may still write it.
std::uint32_t block_bytes_of(const std::string& path, const std::string& name) {
  const OpenFileOptions options{.use_rings = false, .force_share = true};
  const auto file = open_existing(path, name, options);
  const auto facts = file ? find_facts(*file, name, options) : Result<FileFacts>(unexpected(file.error()));
  return facts ? facts->info.block_bytes : 1;
}

}  // namespace

Result<VolumeFacts> look_at_file(const ImageUri& uri, LookOptions options) {
  const std::string& path = uri.path();
  const std::string name = uri.to_string();
  VolumeFacts facts;
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) {
    if (errno != ENOENT) return unexpected(errno_error(errno, "look at", name));
    facts.free_bytes = free_bytes_at(folder_of(path));
  } else {
    DISKFERRY_TRY(const FileIdentity file, file_identity(path));
    facts.exists = true;
    facts.can_be_emptied = !file.is_block_device;
    facts.size_bytes = file.size_bytes;
    facts.modified_ns = file.modified_ns;
    facts.identity = fmt::format("file|{}|{}", file.device, file.inode);
    if (file.is_block_device) {
      facts.block_bytes = block_bytes_of(path, name);
    } else if (const auto free = free_bytes_at(path)) {
      facts.free_bytes = *free + static_cast<std::uint64_t>(status.st_blocks) * stat_block_bytes;
    }
  }
  if (options.for_writing) look_for_obstacles(path, name, facts);
  return facts;
}

}  // namespace diskferry
