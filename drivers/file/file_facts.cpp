// See file_facts.hpp. Capabilities are tried where trying is harmless, and never assumed from a name.
#include "drivers/file/file_facts.hpp"

#include "diskferry/units.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

namespace diskferry {
namespace {

/// A number from the block layer, for a disk or for the disk a partition is on; 0 when there is none.
std::uint64_t queue_value(dev_t device, const char* key) {
  const std::string base = fmt::format("/sys/dev/block/{}:{}/", major(device), minor(device));
  for (const char* folder : {"queue/", "../queue/"}) {
    std::ifstream file(base + folder + key);
    std::uint64_t value = 0;
    if (file >> value) return value;
  }
  return 0;
}

/// True when every byte of a regular file was proved to read as zero: no part of it has data.
bool has_no_data(int fd) {
  return ::lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO;
}

bool can_read_now(int fd) {
  std::byte one;
  iovec into{&one, 1};
  return ::preadv2(fd, &into, 1, 0, RWF_NOWAIT) >= 0 || errno == EAGAIN;
}
/// Punches one block behind the end, where there is nothing.
bool can_punch(int fd, std::uint64_t size_bytes) {
  const auto at = static_cast<off_t>(align_up(size_bytes, 64 * kib));
  return ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, 4096) == 0;
}

bool is_far(decltype(statfs::f_type) file_system) {
  switch (static_cast<std::uint32_t>(file_system)) {
    case NFS_SUPER_MAGIC:
    case FUSE_SUPER_MAGIC:
    case SMB_SUPER_MAGIC:
    case CIFS_SUPER_MAGIC:
    case SMB2_SUPER_MAGIC:
    case CEPH_SUPER_MAGIC:
    case V9FS_MAGIC:
    case AFS_SUPER_MAGIC:
    case OCFS2_SUPER_MAGIC:
      return true;
    default:
      return false;
  }
}

/// What the kernel says O_DIRECT needs here; a page where it does not say.
std::uint32_t direct_alignment(int fd) {
  struct statx status{};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
      (status.stx_mask & STATX_DIOALIGN) != 0 && status.stx_dio_offset_align != 0)
    return std::max({512u, status.stx_dio_offset_align, status.stx_dio_mem_align});
  return 4096;
}

void find_regular(FileFacts& facts, const OpenedFile& file, bool writable) {
  const int fd = file.fd.get();
  facts.size_bytes = static_cast<std::uint64_t>(file.status.st_size);
  struct statfs system{};
  if (::fstatfs(fd, &system) == 0) {
    facts.is_in_memory = system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC;
    facts.is_far = is_far(system.f_type);
  }
  DeviceInfo& info = facts.info;
  info.block_bytes = 1;
  info.preferred_bytes = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(
      std::bit_ceil(static_cast<std::uint64_t>(file.status.st_blksize)), 4096, mib));
  info.can_report_extents = true;
  info.starts_zeroed = has_no_data(fd);
  if (!writable) return;
  info.can_grow = true;
  facts.has_punch = can_punch(fd, facts.size_bytes);
  info.can_discard = facts.has_punch;
  info.zero = facts.has_punch ? ZeroSupport::unmapping : ZeroSupport::slow;
}

Result<void> find_block(FileFacts& facts, const OpenedFile& file, const std::string& name, bool writable) {
  const int fd = file.fd.get();
  int block_bytes = 0;
  if (::ioctl(fd, BLKGETSIZE64, &facts.size_bytes) != 0 || ::ioctl(fd, BLKSSZGET, &block_bytes) != 0)
    return unexpected(errno_error(errno, "ask for the size", name));
  if (block_bytes < 1 || block_bytes > 65536 || !std::has_single_bit(static_cast<unsigned>(block_bytes)))
    return unexpected(
        fail(ErrorKind::unsupported, "open", name)
            .why(fmt::format("a logical block of {} bytes is not one we can use", block_bytes)));
  const dev_t device = file.status.st_rdev;
  facts.is_block_device = true;
  DeviceInfo& info = facts.info;
  info.block_bytes = static_cast<std::uint32_t>(block_bytes);
  unsigned physical_bytes = 0;
  if (::ioctl(fd, BLKPBSZGET, &physical_bytes) == 0 && std::has_single_bit(physical_bytes))
    info.preferred_bytes = std::clamp(physical_bytes, std::max(4096u, info.block_bytes), 1u << 20);
  info.is_rotational = queue_value(device, "rotational") == 1;
  if (!writable) return {};
  // The block layer's zeroing works on every device; only where the device does it itself is it fast.
  facts.zeroes_in_place = queue_value(device, "write_zeroes_max_bytes") > 0;
  facts.has_punch = facts.zeroes_in_place;
  info.can_discard = queue_value(device, "discard_max_bytes") > 0;
  info.zero = facts.zeroes_in_place ? (info.can_discard ? ZeroSupport::unmapping : ZeroSupport::fast)
                                    : ZeroSupport::slow;
  return {};
}

}  // namespace

Result<FileFacts> find_facts(const OpenedFile& file, const std::string& name, OpenFileOptions options) {
  FileFacts facts;
  facts.info.name = name;
  facts.info.is_read_only = !options.writable;
  facts.info.can_fua = options.writable;   // RWF_DSYNC: waits for this write alone
  facts.info.can_multi_connection = true;  // one file, one page cache: a flush covers everybody's writes
  facts.info.parallel_requests = 32;       // what keeps a flash disk busy; more only adds waiting
  if (file.is_block_device()) {
    DISKFERRY_CHECK(find_block(facts, file, name, options.writable));
  } else {
    find_regular(facts, file, options.writable);
  }
  const int fd = file.fd.get();
  facts.use_rings = options.use_rings && !facts.is_in_memory;
  if (options.direct && !facts.is_in_memory) {  // tmpfs has no storage to be direct with
    facts.direct_bytes = direct_alignment(file.direct.get());
    facts.info.preferred_bytes = std::max(facts.info.preferred_bytes, facts.direct_bytes);
  } else {
    facts.can_read_now = can_read_now(fd);
  }
  return facts;
}

}  // namespace diskferry
