// See open_file.hpp. The name is resolved once, with O_PATH, which touches nothing; what was found there is
// looked at and then opened for use through /proc/self/fd, so that it cannot be exchanged in between.
#include "drivers/file/open_file.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/file/file_identity.hpp"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <memory>
#include <string_view>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

namespace diskferry {
namespace {

Error open_error(int error_number, std::string operation, const std::string& name) {
  Error error = errno_error(error_number, std::move(operation), name);
  if (error_number == EMFILE || error_number == ENFILE)
    return std::move(error).remedy("raise the limit on open files");
  if (error_number == ENAMETOOLONG || error_number == ELOOP)
    return fail(ErrorKind::invalid_argument, error.operation(), name).cause(errno_code(error_number));
  return error;
}

Result<void> check_name(const std::string& path, const char* operation, const std::string& name) {
  if (path.empty())
    return unexpected(fail(ErrorKind::invalid_argument, operation, name).why("the name is empty"));
  if (path.find('\0') != std::string::npos)
    return unexpected(
        fail(ErrorKind::invalid_argument, operation, name).why("the name has a NUL byte in it"));
  return {};
}

Error claimed_error(const std::string& name, bool writable) {
  return fail(ErrorKind::in_use, "open", name)
      .cause(errno_code(EBUSY))
      .why(
          "the system itself uses this block device: it is mounted, open for writing here, or part of LVM, "
          "RAID or multipath")
      .remedy(writable ? "unmount or release it first"
                       : "unmount or release it first, or use --force-share to read it as it is");
}

/// True when the kernel says that the block device is claimed by somebody.
bool is_claimed(const std::string& via) {
  const FileDescriptor claim(::open(via.c_str(), O_RDONLY | O_CLOEXEC | O_EXCL));
  return !claim && errno == EBUSY;
}

/// With O_PATH: nothing is read or waited for. `refuse_links`: the path has been checked as it is.
Result<FileDescriptor> find(const std::string& path, const std::string& name, bool refuse_links) {
  constexpr int flags = O_PATH | O_CLOEXEC;
  if (!refuse_links) {
    FileDescriptor found(::open(path.c_str(), flags));
    if (!found) return unexpected(open_error(errno, "open", name));
    return found;
  }
  const auto exchanged = [&] {
    return unexpected(fail(ErrorKind::permission, "open", name)
                          .why("a part of its path became a symbolic link after it had been checked"));
  };
  open_how how{.flags = flags, .mode = 0, .resolve = RESOLVE_NO_SYMLINKS};
  FileDescriptor found(static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof how)));
  if (!found && errno == ELOOP) return exchanged();
  if (found || (errno != ENOSYS && errno != EPERM)) {
    if (!found) return unexpected(open_error(errno, "open", name));
    return found;
  }
  // A kernel before 5.6, or a sandbox that does not know the call: the kernel tells where we ended up.
  found = FileDescriptor(::open(path.c_str(), flags | O_NOFOLLOW));
  if (!found) return unexpected(open_error(errno, "open", name));
  std::array<char, PATH_MAX> real{};
  const std::string via = fmt::format("/proc/self/fd/{}", found.get());
  const ssize_t length = ::readlink(via.c_str(), real.data(), real.size());
  if (length < 0 || std::string_view(real.data(), static_cast<std::size_t>(length)) != path)
    return exchanged();
  return found;
}

std::string folder_of(const std::string& path) {
  const auto slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

bool is_below(std::string_view path, std::string_view folder) {
  return path == folder || (path.starts_with(folder) && path[folder.size()] == '/');
}

}  // namespace

Result<OpenedFile> open_existing(const std::string& path, const std::string& name, OpenFileOptions options) {
  DISKFERRY_CHECK(check_name(path, "open", name));
  DISKFERRY_TRY(const FileDescriptor found, find(path, name, options.refuse_links));
  OpenedFile opened;
  if (::fstat(found.get(), &opened.status) != 0) return unexpected(open_error(errno, "open", name));
  const mode_t mode = opened.status.st_mode;
  if (!S_ISREG(mode) && !S_ISBLK(mode)) return unexpected(no_disk(mode, name));
  const std::string via = fmt::format("/proc/self/fd/{}", found.get());
  int flags = O_CLOEXEC | O_NOCTTY | (options.writable ? O_RDWR : O_RDONLY);
  if (S_ISBLK(mode)) {
    if (options.writable) flags |= O_EXCL;
    if (!options.writable && !options.force_share && is_claimed(via))
      return unexpected(claimed_error(name, false));
  }
  const int fd = ::open(via.c_str(), flags);
  if (fd < 0) {
    const int failed = errno;
    return unexpected(failed == EBUSY && S_ISBLK(mode) ? claimed_error(name, true)
                                                       : open_error(failed, "open", name));
  }
  opened.fd = FileDescriptor(fd);
  if (!options.direct) return opened;
  const int direct = ::open(via.c_str(), (flags & ~O_EXCL) | O_DIRECT);
  if (direct < 0) {
    const int failed = errno;
    if (failed != EINVAL) return unexpected(open_error(failed, "open", name));
    return unexpected(fail(ErrorKind::unsupported, "open", name)
                          .cause(errno_code(failed))
                          .why("this file system has no direct I/O")
                          .remedy("leave out cache=none"));
  }
  opened.direct = FileDescriptor(direct);
  return opened;
}

Result<OpenedFile> create_new(const std::string& path, const std::string& name) {
  DISKFERRY_CHECK(check_name(path, "create", name));
  const std::unique_ptr<char, decltype(&std::free)> folder(::realpath(folder_of(path).c_str(), nullptr),
                                                           &std::free);
  if (!folder)
    return unexpected(open_error(errno, "create", name)
                          .why("the folder " + printable(folder_of(path)) + " cannot be used"));
  const std::string_view real = folder.get();
  if (is_below(real, "/dev") && !is_below(real, "/dev/shm"))
    return unexpected(
        fail(ErrorKind::invalid_argument, "create", name)
            .why("there is no such device, and a plain file below /dev would only look like one")
            .remedy("make the volume first (lvcreate, rbd map, ...), or name a file elsewhere"));
  OpenedFile opened;
  opened.fd = FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0600));
  if (!opened.fd) return unexpected(open_error(errno, "create", name));
  if (::fstat(opened.fd.get(), &opened.status) != 0) return unexpected(open_error(errno, "create", name));
  return opened;
}

}  // namespace diskferry
