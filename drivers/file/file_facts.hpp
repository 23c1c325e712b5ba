// What is found out about an open file or block device before it is used: size, block size, what it can do.
// The file driver asks once, on a blocking thread, when it opens a device. Nothing here changes content.
#pragma once

#include "diskferry/block_device.hpp"
#include "drivers/file/open_file.hpp"

#include <cstdint>

namespace diskferry {

struct FileFacts {
  DeviceInfo info;
  std::uint64_t size_bytes = 0;
  bool is_block_device = false;
  bool is_in_memory = false;  ///< tmpfs: a read or write never waits for storage
  bool is_far = false;        ///< by way of a server or another process, which may be away for long
  bool can_read_now = false;  ///< preadv2(RWF_NOWAIT) works
  bool use_rings = true;      ///< io_uring for what waits for storage
  bool has_punch = false;  ///< fallocate(PUNCH_HOLE) works: on a block device it zeroes without falling back
  bool zeroes_in_place = false;    ///< a block device that zeroes by itself, fast
  std::uint32_t direct_bytes = 0;  ///< what O_DIRECT needs memory and offsets aligned to; 0: not in use
};

/// Errors: those of asking for the size; what cannot be found out counts as absent.
Result<FileFacts> find_facts(const OpenedFile& file, const std::string& name, OpenFileOptions options);

}  // namespace diskferry
