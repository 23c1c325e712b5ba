// What this gateway does for the moves of others: passes their calls on to the disks that moves bring here,
// and to the QEMUs that wait for machines.
#pragma once

#include "gateway/control/api.hpp"
#include "gateway/move/target_disks.hpp"
#include "gateway/move/target_machines.hpp"
#include "gateway/nbd/server.hpp"

#include <functional>
#include <string>

namespace diskferry::daemon {

/// Thread: any. Lifetime: what it is made of outlives it.
class LocalPeers final : public control::PeerApi {
 public:
  /// Connects to a gateway and returns what it says of itself.
  using Reach = std::function<Task<Result<GatewayFacts>>(std::string address)>;

  LocalPeers(DriverContext& context, TargetDisks& disks, TargetMachines& machines, GatewayFacts facts,
             Reach reach)
      : context_(context),
        disks_(disks),
        machines_(machines),
        facts_(std::move(facts)),
        reach_(std::move(reach)) {}
  Task<Result<std::string>> peer(control::PeerCall call) override;

 private:
  DriverContext& context_;
  TargetDisks& disks_;
  TargetMachines& machines_;
  const GatewayFacts facts_;  // all but the time
  const Reach reach_;
};

}  // namespace diskferry::daemon
