// Files that appear whole or not at all. For this room.
#pragma once

#include "diskferry/error.hpp"

#include <string>
#include <vector>

namespace diskferry::pki {

struct PemFile {
  std::string name;
  std::string text;
  bool is_secret = false;  ///< mode 0600; else 0644
};

/// Writes all of them beside their places, then gives them their names; makes the folder (0700) where it is
/// missing. Without `replace` nothing is touched when one is there. Errors: already_exists, permission,
/// no_space, io.
Result<void> write_files(const std::string& folder, const std::vector<PemFile>& files, bool replace);
/// Errors: not_found, permission, too_large.
Result<std::string> read_file(const std::string& path);
bool is_there(const std::string& path);

}  // namespace diskferry::pki
