// The QEMUs on this host that wait for machines of other hosts: what a gateway does when another one's
// coordinator calls (target_machine.hpp). It opens only monitors in the folder that its configuration names,
// and lets a move touch only the one that was named when its disks were prepared, by the client that did it.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/hypervisor/qmp_destination.hpp"
#include "gateway/move/target_disks.hpp"
#include "gateway/move/target_machine.hpp"

#include <string>

namespace diskferry {

struct TargetMachinesOptions {
  std::string sockets_folder{};  ///< of the monitors that may be opened; empty: none may
  std::string move_folder{};     ///< as TargetDisksOptions
};

/// Thread: any. Lifetime: context and disks outlive it.
class TargetMachines {
 public:
  TargetMachines(DriverContext& context, TargetDisks& disks, TargetMachinesOptions options)
      : context_(context), disks_(disks), options_(std::move(options)) {}

  /// May be repeated, but for `receive`. Errors: permission (another folder, monitor, move or client),
  /// invalid_argument, those of QmpDestination and of reaching the monitor. That no QEMU has the monitor is
  /// the answer to `state`, and what `end` wants.
  Task<Result<TargetMachineAnswer>> call(TargetMachineCall call, std::string client);

 private:
  Result<void> check_named_by_move(const TargetMachineCall& call, const std::string& client) const;
  Task<Result<TargetMachineAnswer>> ask(TargetMachineCall call, Qmp& monitor);
  Task<Result<QmpIncoming>> incoming(const TargetMachineCall& call, Qmp& monitor) const;

  DriverContext& context_;
  TargetDisks& disks_;
  const TargetMachinesOptions options_;
};

}  // namespace diskferry
