// Gathers what preflight judges, from both hypervisors, the other gateway and the disks here. Changes nothing
// anywhere. What does not answer becomes a fact of its own, so that one plan tells of everything at once.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/hypervisor/libvirt.hpp"
#include "gateway/move/disk_exports.hpp"
#include "gateway/move/prediction.hpp"
#include "gateway/move/preflight.hpp"
#include "gateway/move/target_gateway.hpp"

#include <optional>

namespace diskferry {

/// Whom to ask. Lifetime: until the collecting task has ended.
struct PreflightPeers {
  Libvirt& source;
  Libvirt* target = nullptr;               ///< null: see `target_problem`
  std::optional<Error> target_problem{};   ///< why there is no connection
  TargetGateway* gateway = nullptr;        ///< null: see `gateway_problem`
  std::optional<Error> gateway_problem{};  ///< why there is no connection
  GatewayFacts here{};                     ///< what this gateway says of itself
  std::string gateway_certificate_name{};  ///< whom the other gateway's certificate names; empty: as it says
  const DiskExports* disk_exports = nullptr;  ///< of this gateway; null: it has none
  std::string address_here{};  ///< where other hosts reach this gateway: "https://host:port"; empty: nowhere
};

/// How long each answer is waited for. The hypervisors' calls have a limit of their own, which is 60 s.
inline constexpr Duration preflight_answer_limit = std::chrono::seconds(15);

/// `is_cold`: the machine is to be moved while it is shut off.
/// Errors: those of the hypervisor here, which alone can say what the machine is; cancelled. That there is no
/// such machine is a fact.
Task<Result<PreflightFacts>> collect_preflight(DriverContext& context, PreflightPeers peers,
                                               MoveRequest request, bool is_cold);

/// What the host libvirt tells of is as facts; capabilities that cannot be read are left out.
HostFacts host_facts_of(const LibvirtHost& host);

/// What compare_cpu() said of the machine's CPU.
void note_cpu(const Result<std::string>& answer, PreflightFacts& facts);

/// Watches the running machine for `seconds` (1 to 60) to learn how fast it changes its memory and its disks.
/// `link_bytes_per_s`: what the network can carry; 0: not known.
/// Errors: cancelled. What could not be measured counts as nothing changed, and is said in `unmeasured`.
struct MeasuredPrediction {
  PredictionInput input{};
  std::vector<UnknownFact> unmeasured{};
};
Task<Result<MeasuredPrediction>> measure_for_prediction(DriverContext& context, Libvirt& source,
                                                        const PreflightFacts& facts, unsigned seconds,
                                                        std::uint64_t link_bytes_per_s);

}  // namespace diskferry
