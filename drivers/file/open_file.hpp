// Opening what an operator or an image header names, without being fooled by what is there. Called by the
// file driver on a blocking thread. It must never open a FIFO, a socket, a character device or a folder
// (opening alone can hang or have effects), and never create anything unless asked to.
#pragma once

#include "diskferry/error.hpp"
#include "drivers/file/file_descriptor.hpp"

#include <string>
#include <sys/stat.h>

namespace diskferry {

struct OpenedFile {
  FileDescriptor fd;
  FileDescriptor direct;  ///< the same with O_DIRECT, where that was asked for
  struct stat status{};   ///< taken when it was opened
  bool is_block_device() const noexcept { return S_ISBLK(status.st_mode); }
};

struct OpenFileOptions {
  bool writable = false;
  bool direct = false;       ///< also open it with O_DIRECT
  bool use_rings = true;     ///< io_uring where there is one; else blocking threads
  bool force_share = false;  ///< also read a block device that the system itself uses
  /// The path is a real one that was checked: an error of kind permission when a symbolic link is on its way.
  bool refuse_links = false;
};

/// Opens an existing regular file or block device. `name` is for messages.
/// A block device opened for writing is claimed (O_EXCL): what is mounted, or part of LVM, RAID or multipath,
/// is refused, and cannot be mounted while it is open. Errors: not_found, permission, read_only (a read-only
/// file system), in_use (a block device the system uses), unsupported (what is there is no disk),
/// invalid_argument (a name with a NUL byte or an empty one).
Result<OpenedFile> open_existing(const std::string& path, const std::string& name, OpenFileOptions options);

/// Makes a new, empty regular file, mode 0600: a disk holds its guest's secrets.
/// Errors: already_exists; invalid_argument below /dev, where a missing device would become a plain file;
/// not_found when the folder is missing; permission, no_space, read_only.
Result<OpenedFile> create_new(const std::string& path, const std::string& name);

}  // namespace diskferry
