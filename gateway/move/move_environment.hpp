// What a gateway lends to its moves.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/jobs/event_bus.hpp"
#include "gateway/jobs/job_store.hpp"
#include "gateway/move/request.hpp"
#include "gateway/move/target_gateway.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace diskferry {

class DiskExports;
class ReplaceService;

struct MoveEnvironment {
  DriverContext& drivers;
  JobStore& jobs;
  EventBus& bus;
  std::string controller{};                    ///< this process's name in leases
  std::string libvirt_uri = "qemu:///system";  ///< of this host
  std::string run_folder = "/run/diskferry";   ///< each move has a folder of its own in it
  std::string state_folder = "/var/lib/diskferry";
  std::string qmp_sockets_folder{};  ///< of the monitors that may be opened; empty: none
  std::int64_t hypervisor_uid = -1;
  std::int64_t hypervisor_gid = -1;
  std::uint64_t window_bytes = 64ull << 20;
  unsigned connections = 4;
  GatewayFacts here{};
  DiskExports* disk_exports = nullptr;     ///< of disks of machines here; null: there are none
  ReplaceService* replacements = nullptr;  ///< of those exports' storage
  std::string address_here{};              ///< where other hosts reach this gateway; empty: nowhere
  /// For tests: as ReplaceEnvironment::dies_at, of moves.
  std::string dies_at{};
  /// The gateway of another host. `address`: as in MoveRequest::gateway.
  std::function<Task<Result<std::unique_ptr<TargetGateway>>>(std::string address)> connect_gateway;
};

/// "https://HOST:PORT" of the gateway beside a libvirt URI, where the request names none. Errors:
/// invalid_argument (no host).
Result<std::string> gateway_beside(std::string_view libvirt_uri);

/// The other host's gateway: the one that the request names, else that beside its destination. Errors: as
/// gateway_beside(), and those of connecting.
Task<Result<std::unique_ptr<TargetGateway>>> connect_other_gateway(MoveEnvironment& environment,
                                                                   const MoveRequest& request);

/// The URI of this host's libvirt.
std::string source_uri(const MoveEnvironment& environment, const MoveRequest& request);

}  // namespace diskferry
