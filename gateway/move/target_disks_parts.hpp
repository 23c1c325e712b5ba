// What the parts of TargetDisks share. Internal to target_disks*.cpp.
#pragma once

#include "gateway/move/target_disks.hpp"

#include <string>

namespace diskferry {
namespace nbd = nbd_server;

/// One disk, offered or not. `record` is what is written down of it.
struct TargetDisks::Disk {
  TargetDiskRecord record;
  bool was_left = false;     ///< by an earlier attempt: it may be used although it is there
  bool is_taken_up = false;  ///< and nobody wrote to it since
  bool is_fresh = false;     ///< made by this process for this move, and offered to nobody yet
  std::shared_ptr<BlockDevice> device{};
  nbd::ExportPtr offered{};
};
struct TargetDisks::Move {
  std::map<std::string, Disk> disks;
};

inline std::string export_name(const TargetDiskRequest& request) {
  return request.move + "-" + request.disk;
}

}  // namespace diskferry
