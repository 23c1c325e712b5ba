// See the header.
#include "gateway/copy/world_wide_name.hpp"

#include "drivers/support/world_wide_names.hpp"
#include "gateway/copy/sysfs.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <vector>

namespace diskferry {
namespace fs = std::filesystem;
namespace {

/// Of a whole disk; empty where it has none that tells it from every other one.
std::string makers_name(const std::string& folder) {
  for (const char* file : {"/device/wwid", "/wwid"})
    if (std::string name = sysfs_line(folder + file); is_unique_in_the_world(name)) return name;
  return {};
}

std::string name_of_disk(const std::string& folder) {
  if (std::string name = makers_name(folder); !name.empty()) return name;
  // Of several paths to one disk: multipath takes the name over, with the digit of its kind in front (3:
  // naa).
  const std::string mapped = sysfs_line(folder + "/dm/uuid");
  if (!mapped.starts_with("mpath-3")) return {};
  std::string name = "naa." + mapped.substr(7);
  return is_unique_in_the_world(name) ? name : std::string();
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
