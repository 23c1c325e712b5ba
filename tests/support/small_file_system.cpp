#include "tests/support/small_file_system.hpp"

#include <sys/mount.h>

namespace diskferry::test {

SmallFileSystem::SmallFileSystem(const std::string& size)
    : is_mounted_(::mount("none", folder_.path().c_str(), "tmpfs", MS_NODEV | MS_NOSUID,
                          ("size=" + size).c_str()) == 0) {}

SmallFileSystem::~SmallFileSystem() {
  if (is_mounted_) ::umount2(folder_.path().c_str(), MNT_DETACH);
}

}  // namespace diskferry::test
