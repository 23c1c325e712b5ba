// The internal snapshots of an image: the list, and where the disk of one is. Read only.
// Source: the qcow2 specification, "Snapshots".
#pragma once

#include "diskferry/block_device.hpp"
#include "drivers/image/qcow2/image_state.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace diskferry::qcow2 {

struct Snapshot {
  DiskView disk;
  std::string id;
  std::string name;
  std::uint64_t vm_state_bytes = 0;
  std::int64_t created_s = 0;
  std::uint64_t table_end = 0;  ///< bytes of the snapshot table up to the end of this entry
};

/// All snapshots of an image, in the order of the file. Reads the table once, at most 64 MiB of it.
/// Errors: corrupt; too_large (a limit); as BlockDevice::read.
Task<Result<std::vector<Snapshot>>> load_snapshots(BlockDevice& storage, const Header& header);

/// The snapshot with that id or, failing that, name, with an L1 table that can be read.
/// Errors: not_found; corrupt.
Result<Snapshot> find_snapshot(const std::vector<Snapshot>& all, std::string_view wanted,
                               const Header& header, std::uint64_t storage_bytes);

}  // namespace diskferry::qcow2
