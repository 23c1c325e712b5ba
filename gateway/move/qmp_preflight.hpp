// What speaks for a move without libvirt, and against it. The facts come from both monitors and the other
// gateway; the rules are pure. A machine without libvirt has no definition to compare: the two QEMUs must
// have been started alike, and what their monitors tell of that is compared.
#pragma once

#include "gateway/move/move_state.hpp"
#include "gateway/move/preflight.hpp"
#include "gateway/move/qmp_ends.hpp"

#include <optional>
#include <vector>

namespace diskferry {

struct QmpPreflightFacts {
  MoveRequest request{};
  QmpMachine here{};
  std::optional<QmpMachine> there{};       ///< none: see `there_problem`
  std::optional<Error> there_problem{};    ///< why the QEMU or the gateway there cannot be asked
  std::vector<TargetDiskFacts> targets{};  ///< of the request's disks, in their order; empty: not asked
};

/// Errors: those of the monitor here.
Task<Result<QmpPreflightFacts>> collect_by_qmp(QmpEnds& ends, TargetGateway* gateway,
                                               std::optional<Error> gateway_problem, MoveRequest request);

/// Every finding, blockers first. Pure.
std::vector<Finding> examine_by_qmp(const QmpPreflightFacts& facts);

/// The disks of the request with their routes, sizes and exports. Errors: not_found.
Result<std::vector<MoveDiskState>> choose_disks_by_qmp(const MoveRequest& request, const QmpMachine& machine);

}  // namespace diskferry
