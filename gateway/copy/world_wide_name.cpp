// See the header.
#include "gateway/copy/world_wide_name.hpp"

#include <array>
#include <filesystem>
#include <fstream>

namespace diskferry {
namespace {

constexpr std::size_t name_bytes_max = 256;

/// The first line of a small file; empty where there is none.
std::string line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  while (!line.empty() && (line.back() == ' ' || line.back() == '\0')) line.pop_back();
  return line.size() > name_bytes_max ? std::string() : line;
}

/// Names that a registration authority stands for. Those made of a vendor's and a serial number (t10., nvme.)
/// are the same for all disks that an emulator makes.
bool is_unique(const std::string& name) {
  constexpr std::array<std::string_view, 3> kinds{"naa.", "eui.", "uuid."};
  for (const std::string_view kind : kinds)
    if (name.starts_with(kind) && name.find_first_not_of("0.-", kind.size()) != std::string::npos)
      return true;
  return false;
}

std::string name_of_disk(const std::string& folder) {
  for (const char* file : {"/device/wwid", "/wwid"})
    if (std::string name = line_of(folder + file); is_unique(name)) return name;
  // Of several paths to one disk: multipath takes the name over, with the digit of its kind in front (3:
  // naa).
  const std::string mapped = line_of(folder + "/dm/uuid");
  return mapped.starts_with("mpath-3") ? "naa." + mapped.substr(7) : std::string();
}

}  // namespace

std::string world_wide_name(const std::string& folder) {
  std::error_code failed;
  if (!std::filesystem::exists(folder + "/partition", failed)) return name_of_disk(folder);
  const std::string disk = std::filesystem::canonical(folder, failed).parent_path().string();
  if (failed) return {};
  const std::string name = name_of_disk(disk);
  const std::string start = line_of(folder + "/start");
  return name.empty() || start.empty() ? std::string() : name + "+" + start;
}

}  // namespace diskferry
