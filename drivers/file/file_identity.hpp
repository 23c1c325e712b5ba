// What a file is at this moment, precisely enough to notice that it was changed or exchanged. Used by
// drivers/image to note each layer of a chain. Never opens the content.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <string>
#include <sys/types.h>

namespace diskferry {

struct FileIdentity {
  std::uint64_t device = 0;  ///< st_dev; of a block device: its own number (st_rdev), the same by any name
  std::uint64_t inode = 0;   ///< st_ino; 0 for a block device
  std::uint64_t size_bytes = 0;
  std::int64_t modified_ns = 0;  ///< since the epoch; 0 for a block device, whose node says nothing of it
  std::uint64_t allocated_bytes = 0;  ///< what the storage uses; of a block device its size
  bool is_block_device = false;
  bool operator==(const FileIdentity&) const = default;
};

/// "it is a folder": what is no disk, by its st_mode. Kind: unsupported.
Error no_disk(mode_t mode, const std::string& name);

/// Blocks as stat() does: milliseconds at most on local storage; on a blocking thread where that matters.
/// Errors: not_found, permission, unsupported (neither a regular file nor a block device).
Result<FileIdentity> file_identity(const std::string& path);

}  // namespace diskferry
