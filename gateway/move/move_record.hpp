// Small JSON files that must be there after a crash: written beside, synced and renamed. Used for what a
// gateway made for moves; internal to this room.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/move/target_disks.hpp"

#include <string>
#include <vector>

namespace diskferry {

/// Replaces the file, durably. Errors: permission, no_space, io.
Task<Result<void>> write_durably(DriverContext& context, std::string path, std::string text);
/// Errors: not_found, permission, io, too_large.
Task<Result<std::string>> read_small_file(DriverContext& context, std::string path);
/// Not an error where there is none.
Task<Result<void>> remove_durably(DriverContext& context, std::string path);

std::string to_json(const std::vector<TargetDiskRecord>& disks);
Result<std::vector<TargetDiskRecord>> parse_target_records(std::string_view json);

}  // namespace diskferry
