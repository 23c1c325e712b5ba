// What a job that replaces storage has around it.
#pragma once

#include "diskferry/driver.hpp"
#include "drivers/support/wall_clock.hpp"
#include "gateway/jobs/event_bus.hpp"
#include "gateway/jobs/job_journal.hpp"
#include "gateway/mirror/copy_pace.hpp"
#include "gateway/move/endpoints.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

namespace diskferry {

class DiskExports;

struct ReplaceEnvironment {
  DriverContext& drivers;
  JobJournal& journal;
  EventBus& bus;
  Endpoints& endpoints;
  std::string controller{};    ///< this process's name in leases
  std::string state_folder{};  ///< files of what differs are made there
  std::uint64_t window_bytes = 64ull << 20;
  std::shared_ptr<CopyPace> pace =
      std::make_shared<CopyPace>(std::thread::hardware_concurrency());  ///< of all copies beside guests
  unsigned connections = 4;
  /// Milliseconds since 1970.
  std::function<std::int64_t()> now_ms = &diskferry::now_ms;
  /// For tests: the phase at whose record this process ends as if it were killed, right after that is
  /// written, or right before it where "before:" precedes.
  std::string dies_at{};
  DiskExports* disk_exports = nullptr;  ///< of disks of machines here; nullptr: none are brought here
  std::string libvirt_uri = "qemu:///system";
};

}  // namespace diskferry
