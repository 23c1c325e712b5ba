// See image_lock.hpp. Locks are taken first and conflicts looked for afterwards: of two that start at the
// same moment one or both give up, never none.
#include "drivers/file/image_lock.hpp"

#include "diskferry/image_uri.hpp"

#include <cerrno>
#include <cstdlib>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <memory>
#include <sys/stat.h>
#include <unistd.h>

namespace diskferry {
namespace {

// QEMU's permissions and where their bytes are.
constexpr unsigned consistent_read = 0;
constexpr unsigned write_content = 1;
constexpr unsigned resize_image = 3;
constexpr unsigned permissions = 4;  // byte 4 ("graph-mod") is not used by QEMU any more
constexpr off_t used_base = 100;
constexpr off_t unshared_base = 200;

struct LockBits {
  unsigned used = 0;
  unsigned unshared = 0;
};
constexpr unsigned bit(unsigned permission) {
  return 1u << permission;
}
constexpr LockBits bits_of(ImageLock lock) {
  const unsigned changes = bit(write_content) | bit(resize_image);
  if (lock == ImageLock::shared) return {.used = bit(consistent_read), .unshared = changes};
  return {.used = bit(consistent_read) | changes, .unshared = changes};
}

struct flock byte_lock(short type, off_t at) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return lock;
}

bool has_no_locks(int error_number) {
  return error_number == ENOLCK || error_number == ENOSYS || error_number == EOPNOTSUPP ||
         error_number == EINVAL;
}

/// 0, or the errno of taking the byte shared.
int take(int fd, off_t at) {
  struct flock lock = byte_lock(F_RDLCK, at);
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}
/// True when somebody else holds the byte.
bool is_held_by_others(int fd, off_t at) {
  struct flock lock = byte_lock(F_WRLCK, at);
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}
void release_all(int fd) {
  struct flock lock = byte_lock(F_UNLCK, used_base);
  lock.l_len = unshared_base + permissions - used_base;
  (void)::fcntl(fd, F_OFD_SETLK, &lock);
}

// --- Who holds it: for the message only. An OFD lock has no process id, but /proc/PID/fdinfo lists the locks
// and the inode of each descriptor. The files themselves are not touched: one may be on a dead server.

using Folder = std::unique_ptr<DIR, decltype(&::closedir)>;
constexpr unsigned descriptors_looked_at_max = 20000;  // bounds the search on a busy host to some 100 ms

/// True when the descriptor that `fdinfo` describes is of that inode and holds an OFD lock.
bool holds_lock(const std::string& fdinfo, ino_t inode) {
  std::ifstream lines(fdinfo);
  bool is_wanted = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("ino:")) is_wanted = std::strtoull(line.c_str() + 4, nullptr, 10) == inode;
    if (is_wanted && line.starts_with("lock:") && line.find("OFDLCK") != std::string::npos) return true;
  }
  return false;
}

std::string name_of_process(const std::string& process) {
  std::ifstream comm("/proc/" + process + "/comm");
  std::string program;
  std::getline(comm, program);
  return fmt::format("{} (process {})", program.empty() ? "a program" : printable(program), process);
}

/// "qemu-system-x86 (process 4711)", or empty when it cannot be seen.
std::string find_holder(int fd) {
  struct stat wanted{};
  if (::fstat(fd, &wanted) != 0) return {};
  const Folder processes(::opendir("/proc"), &::closedir);
  if (!processes) return {};
  unsigned looked_at = 0;
  while (const dirent* process = ::readdir(processes.get())) {
    const std::string id = process->d_name;
    if (id.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string described = "/proc/" + id + "/fdinfo";
    const Folder open_files(::opendir(described.c_str()), &::closedir);
    if (!open_files) continue;
    while (const dirent* one = ::readdir(open_files.get())) {
      if (++looked_at > descriptors_looked_at_max) return {};
      const std::string number = one->d_name;
      if (number.starts_with('.') || (id == std::to_string(::getpid()) && number == std::to_string(fd)))
        continue;
      if (holds_lock(fmt::format("{}/{}", described, number), wanted.st_ino)) return name_of_process(id);
    }
  }
  return {};
}

Error conflict(int fd, ImageLock lock, const std::string& name, const char* doing) {
  const std::string holder = find_holder(fd);
  if (holder.ends_with(fmt::format("(process {})", ::getpid())))
    return fail(ErrorKind::in_use, "lock", name)
        .why("this program uses the same image already, under another name or as a part of another image")
        .remedy("name another image");
  return fail(ErrorKind::in_use, "lock", name)
      .why(fmt::format("{} {}", holder.empty() ? "another program" : holder, doing))
      .remedy(lock == ImageLock::shared
                  ? "stop it first, or use --force-share to read the image while it changes"
                  : "stop it first");
}

}  // namespace

Result<void> lock_image(int fd, ImageLock lock, const std::string& name) {
  const LockBits bits = bits_of(lock);
  for (unsigned permission = 0; permission < permissions; ++permission) {
    for (const off_t at : {(bits.used & bit(permission)) != 0 ? used_base + permission : -1,
                           (bits.unshared & bit(permission)) != 0 ? unshared_base + permission : -1}) {
      if (at < 0) continue;
      const int failed = take(fd, at);
      if (failed == 0) continue;
      release_all(fd);
      if (has_no_locks(failed)) return {};
      // A lock of another kind (flock over NFS, a POSIX write lock) is in the way.
      if (failed == EAGAIN || failed == EACCES)
        return unexpected(conflict(fd, lock, name, "has locked the image"));
      return unexpected(errno_error(failed, "lock", name));
    }
  }
  for (unsigned permission = 0; permission < permissions; ++permission) {
    const char* doing = nullptr;
    if ((bits.used & bit(permission)) != 0 && is_held_by_others(fd, unshared_base + permission))
      doing = permission == consistent_read ? "does not let others read the image"
                                            : "uses the image and does not let others write to it";
    if ((bits.unshared & bit(permission)) != 0 && is_held_by_others(fd, used_base + permission))
      doing = "has the image open for writing";
    if (doing == nullptr) continue;
    Error error = conflict(fd, lock, name, doing);
    release_all(fd);
    return unexpected(std::move(error));
  }
  return {};
}

}  // namespace diskferry
