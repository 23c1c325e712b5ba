// Has QEMU wait for this gateway (domain_disk.hpp) again where a machine whose disk is an export was started
// anew: libvirt 9.0 forgets that with the machine. Without such exports it does nothing at all.
#pragma once

#include "diskferry/driver.hpp"
#include "diskferry/task_group.hpp"
#include "gateway/hypervisor/libvirt.hpp"
#include "gateway/move/disk_exports.hpp"

#include <atomic>
#include <memory>
#include <string>
#include <vector>

namespace diskferry {

/// Thread: start() and stop() once each. Lifetime: stop() before destruction; what it is given outlives it.
class DiskKeeper {
 public:
  DiskKeeper(DriverContext& context, DiskExports& exports, std::string libvirt_uri);
  DiskKeeper(const DiskKeeper&) = delete;
  DiskKeeper& operator=(const DiskKeeper&) = delete;

  void start();
  Task<void> stop();

 private:
  Task<Result<void>> keep();
  Task<Result<void>> look();
  Task<Result<void>> have_connection();
  Task<Result<void>> have_waiting(std::string export_name);
  Task<void> disconnect();

  DriverContext& context_;
  DiskExports& exports_;
  const std::string libvirt_uri_;
  std::unique_ptr<Libvirt> libvirt_{};
  std::vector<std::string> known_{};       // exports that were looked at
  std::atomic<bool> has_started_ = false;  // some machine, since the last look
  std::string last_trouble_{};             // told once
  TaskGroup group_;
};

}  // namespace diskferry
