#include "drivers/foreign/open_files.hpp"

#include "diskferry/image_uri.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fmt/format.h>
#include <set>
#include <sys/stat.h>
#include <utility>

namespace diskferry::foreign {
namespace {
namespace fs = std::filesystem;

bool is_below(std::string_view path, std::string_view folder) {
  if (folder == "/") return true;
  return path.size() > folder.size() && path.starts_with(folder) && path[folder.size()] == '/';
}

bool is_allowed(const std::string& path, const struct stat& status, const std::vector<std::string>& folders) {
  if (!S_ISREG(status.st_mode)) return false;
  return std::ranges::any_of(folders, [&](const std::string& folder) { return is_below(path, folder); });
}

}  // namespace

Result<std::vector<std::string>> further_files(pid_t pid, const std::string& image,
                                               const std::vector<std::string>& folders) {
  struct stat top{};
  if (::stat(image.c_str(), &top) != 0) return unexpected(errno_error(errno, "open", printable(image)));
  // What cannot be looked at may be anything.
  const auto unseen = [&image](int error_number) {
    if (error_number == ENOENT)
      return unexpected(fail(ErrorKind::gone, "open", printable(image)).why("qemu-nbd has ended"));
    return unexpected(fail(ErrorKind::permission, "open", printable(image))
                          .cause(errno_code(error_number))
                          .why("which files qemu-nbd has opened cannot be seen in /proc")
                          .remedy("root needs CAP_SYS_PTRACE to look at it; else see what confines this "
                                  "process (AppArmor, SELinux, hidepid= of /proc)"));
  };
  std::error_code failed;
  fs::directory_iterator entries(fmt::format("/proc/{}/fd", pid), failed);
  if (failed) return unseen(failed.value());
  std::set<std::pair<dev_t, ino_t>> seen{{top.st_dev, top.st_ino}};
  std::vector<std::string> found;
  for (; entries != fs::directory_iterator(); entries.increment(failed)) {
    struct stat status{};
    const fs::path path = fs::read_symlink(entries->path(), failed);
    if (!failed && ::stat(entries->path().c_str(), &status) != 0) failed = errno_code(errno);
    if (failed.value() == ENOENT) continue;  // closed meanwhile
    if (failed) return unseen(failed.value());
    if (!path.is_absolute() || S_ISFIFO(status.st_mode) || path == "/dev/null") continue;
    if (!seen.emplace(status.st_dev, status.st_ino).second) continue;
    if (!is_allowed(path.string(), status, folders))
      return unexpected(fail(ErrorKind::permission, "open", printable(path.string()))
                            .why(fmt::format("{} refers to it, and it lies outside the folders that images "
                                             "may refer to",
                                             printable(image)))
                            .remedy("name its folder with --allow-backing if you trust the image"));
    found.push_back(path.string());
  }
  if (failed) return unseen(failed.value());
  std::ranges::sort(found);
  return found;
}

}  // namespace diskferry::foreign
