// QEMU's image locks, so that no disk is written by two programs: by QEMU and by us, or by two of ours. The
// file driver takes them when it opens an image. They are advisory byte locks (OFD, fcntl(2)) far outside any
// meaning of the content: whoever uses a permission n holds byte 100+n shared, and whoever does not let
// others use it holds byte 200+n shared; a conflict is found by asking whether the opposite byte could be
// locked exclusively. Source: the locks that QEMU 7.2 shows in /proc/locks
// (tests/unit/drivers/file_lock_test.cpp).
#pragma once

#include "diskferry/error.hpp"

#include <string>

namespace diskferry {

enum class ImageLock {
  shared,    ///< reads; others may read, nobody may write or resize
  exclusive  ///< reads and writes; others may neither write nor rely on what they read
};

/// Takes the locks on `fd`, which holds them until its last copy is closed. Never waits. Where the file
/// system has no locks (ENOLCK, ENOSYS, EOPNOTSUPP) it succeeds without. Errors: in_use, naming the holder
/// where /proc shows it.
Result<void> lock_image(int fd, ImageLock lock, const std::string& name);

}  // namespace diskferry
