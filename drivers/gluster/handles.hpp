// The library's objects with an owner, and the lock on a file. For .cpp files that call the library, on a
// thread of the volume.
#pragma once

#include "drivers/gluster/file.hpp"

#include <glusterfs/api/glfs-handles.h>
#include <glusterfs/api/glfs.h>
#include <memory>

namespace diskferry::gluster {

struct ObjectCloser {
  void operator()(glfs_object* object) const noexcept { (void)glfs_h_close(object); }
};
struct FdCloser {
  void operator()(glfs_fd* fd) const noexcept { (void)glfs_close(fd); }
};
using Object = std::unique_ptr<glfs_object, ObjectCloser>;
using Fd = std::unique_ptr<glfs_fd, FdCloser>;

/// The lock goes with the opening, or with its connection. Waits for two seconds: that of a process that was
/// killed just now goes when the brick notices. Errors: in_use, read_only.
Result<void> lock_file(glfs_fd* fd, Purpose purpose, const std::string& name);

}  // namespace diskferry::gluster
