// See the header.
#include "gateway/copy/world_wide_name.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <vector>

namespace diskferry {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t name_bytes_max = 256;

/// Names that a registration authority stands for. Those made of a vendor's and a serial number (t10., nvme.)
/// are the same for all disks that an emulator makes.
bool is_unique(const std::string& name) {
  // "naa.", a digit for the form (3: assigned locally), and the number of a company: with 0 for that, tgt
  // gives the same names on every host.
  if (name.starts_with("naa.") && (name[4] == '3' || name.find("000000", 5) == 5)) return false;
  constexpr std::array<std::string_view, 3> kinds{"naa.", "eui.", "uuid."};
  for (const std::string_view kind : kinds)
    if (name.starts_with(kind) && name.find_first_not_of("0.-", kind.size()) != std::string::npos)
      return true;
  return false;
}

/// The first line of a small file; empty where there is none.
std::string sysfs_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  while (!line.empty() && (line.back() == ' ' || line.back() == '\0')) line.pop_back();
  return line.size() > name_bytes_max ? std::string() : line;
}

/// Of a whole disk; empty where it has none that tells it from every other one.
std::string makers_name(const std::string& folder) {
  for (const char* file : {"/device/wwid", "/wwid"})
    if (std::string name = sysfs_line(folder + file); is_unique(name)) return name;
  return {};
}

std::string name_of_disk(const std::string& folder) {
  if (std::string name = makers_name(folder); !name.empty()) return name;
  // Of several paths to one disk: multipath takes the name over, with the digit of its kind in front (3:
  // naa).
  const std::string mapped = sysfs_line(folder + "/dm/uuid");
  if (!mapped.starts_with("mpath-3")) return {};
  std::string name = "naa." + mapped.substr(7);
  return is_unique(name) ? name : std::string();
}

}  // namespace

std::string world_wide_name(const std::string& folder) {
  std::error_code failed;
  if (!fs::exists(folder + "/partition", failed)) return name_of_disk(folder);
  const std::string disk = fs::canonical(folder, failed).parent_path().string();
  if (failed) return {};
  const std::string name = name_of_disk(disk);
  const std::string start = sysfs_line(folder + "/start");
  return name.empty() || start.empty() ? std::string() : name + "+" + start;
}

std::string layered_device_name(const std::string& folder, const std::string& number) {
  std::error_code failed;
  const fs::path device = fs::canonical(folder + "/" + number, failed);
  if (failed) return {};
  if (const std::string partition = sysfs_line(device / "partition"); !partition.empty()) {
    const std::string disk = layered_device_name(folder, sysfs_line(device.parent_path() / "dev"));
    return disk.empty() ? disk : disk + "-part" + partition;
  }
  const std::string mapping = sysfs_line(device / "dm/uuid");
  if (mapping.empty()) return makers_name(device);
  // A name given by the mapper is cloned with the disk: it counts together with those it lies on.
  std::vector<std::string> below;
  for (const auto& slave : fs::directory_iterator(device / "slaves", failed)) {
    below.push_back(layered_device_name(folder, sysfs_line(slave.path() / "dev")));
    if (below.back().empty()) return {};
  }
  if (below.empty()) return {};
  std::ranges::sort(below);
  below.erase(std::ranges::unique(below).begin(), below.end());
  return fmt::format("{}({})", mapping, fmt::join(below, ","));
}

}  // namespace diskferry
