// The system calls of a file device, each until it is done: short transfers and EINTR are continued, and an
// errno becomes an Error that says what failed. Called by FileDevice, mostly on a blocking thread. No state.
#pragma once

#include "diskferry/error.hpp"
#include "diskferry/extent.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace diskferry {

/// A descriptor and the name its errors carry.
struct FileReference {
  int fd = -1;
  const std::string& name;
  bool is_direct = false;
};

/// Buffered writes are done in pieces of this size. One call of 1 MiB makes the kernel take page cache folios
/// of 1 MiB, which on ext4 cost more for every small write that follows (each walks the folio's block list),
/// and in a virtual machine often come from memory the host has not given yet. Measured on Linux 6.18, a new
/// file of 512 MiB: 1 MiB 0.25 GB/s, 256 KiB 0.9-4, 128 KiB 1.8-3.4, 64 KiB 2.3, 16 KiB 1.4.
/// docs/decisions/0002-file-io.md.
inline constexpr std::size_t write_piece_bytes = std::size_t{128} * 1024;

/// The error of a call that failed with `error_number`. A device that has vanished is `gone`.
Error call_error(int error_number, const char* operation, const std::string& name);
/// The same, with where it was.
Error transfer_error(int error_number, const char* operation, const std::string& name, Range range);

/// Reads all of `into`. Errors: io when the file has become shorter than that.
Result<void> read_all(FileReference file, std::uint64_t offset, std::span<std::byte> into);
/// The same with O_DIRECT, for any offset and length: whole units of `unit_bytes` go through memory of its
/// own.
Result<void> read_all_direct(FileReference file, std::uint64_t offset, std::span<std::byte> into,
                             std::uint32_t unit_bytes);
/// Writes all of `from`; `rwf_flags` as pwritev2 takes them (RWF_DSYNC).
Result<void> write_all(FileReference file, std::uint64_t offset, std::span<const std::byte> from,
                       int rwf_flags);
Result<void> sync_data(FileReference file);

/// What one attempt at a shortcut came to.
enum class Attempt : std::uint8_t {
  done,
  not_offered,  ///< this file never does it; nothing was changed
  not_here      ///< not for this range (alignment); nothing was changed
};
/// fallocate(2) with those flags, on a file or a block device.
Result<Attempt> try_fallocate(FileReference file, int mode, Range range);
/// BLKDISCARD.
Result<Attempt> try_discard_blocks(FileReference file, Range range);

/// Data and holes of a regular file, as far as `extents_max` reaches. What lies behind the end of a file that
/// has become shorter is data: reading it tells.
Result<std::vector<Extent>> list_extents(FileReference file, Range range, std::size_t extents_max);

}  // namespace diskferry
