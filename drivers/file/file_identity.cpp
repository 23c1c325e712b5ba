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
  if (!S_ISBLK(status.st_mode))
    return unexpected(fail(ErrorKind::unsupported, "open", printable(path))
                          .why("it is neither a regular file nor a block device"));
  identity.is_block_device = true;
  identity.device = status.st_rdev;
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd || ::ioctl(fd.get(), BLKGETSIZE64, &identity.size_bytes) != 0)
    return unexpected(errno_error(errno, "open", printable(path)));
  identity.allocated_bytes = identity.size_bytes;
  return identity;
}

}  // namespace diskferry
