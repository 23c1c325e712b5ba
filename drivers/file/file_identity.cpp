// See file_identity.hpp.
#include "drivers/file/file_identity.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/file/file_descriptor.hpp"

#include <cerrno>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

namespace diskferry {

Error no_disk(mode_t mode, const std::string& name) {
  const char* const what = S_ISDIR(mode)    ? "it is a folder"
                           : S_ISFIFO(mode) ? "it is a FIFO"
                           : S_ISSOCK(mode) ? "it is a socket"
                           : S_ISCHR(mode)  ? "it is a character device"
                                            : "it is neither a regular file nor a block device";
  return fail(ErrorKind::unsupported, "open", name).why(what).remedy("name a regular file or a block device");
}

Result<FileIdentity> file_identity(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return unexpected(errno_error(errno, "open", printable(path)));
  FileIdentity identity;
  if (S_ISREG(status.st_mode)) {
    identity.device = status.st_dev;
    identity.inode = status.st_ino;
    identity.size_bytes = static_cast<std::uint64_t>(status.st_size);
    identity.modified_ns = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
    identity.allocated_bytes = static_cast<std::uint64_t>(status.st_blocks) * 512;
    return identity;
  }
  if (!S_ISBLK(status.st_mode)) return unexpected(no_disk(status.st_mode, printable(path)));
  identity.is_block_device = true;
  identity.device = status.st_rdev;
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd || ::ioctl(fd.get(), BLKGETSIZE64, &identity.size_bytes) != 0)
    return unexpected(errno_error(errno, "open", printable(path)));
  identity.allocated_bytes = identity.size_bytes;
  return identity;
}

}  // namespace diskferry
