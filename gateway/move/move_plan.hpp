// What a move would do and what speaks against it. Changes nothing. The coordinator refuses by the same
// findings.
#pragma once

#include "gateway/move/move_environment.hpp"
#include "gateway/move/move_state.hpp"
#include "gateway/move/prediction.hpp"
#include "gateway/move/preflight.hpp"

#include <optional>
#include <string>
#include <vector>

namespace diskferry {

struct MovePlan {
  std::vector<Finding> findings{};
  std::vector<MoveDiskState> disks{};
  std::string way{};     ///< "intercept", "through", "qmp", "cold"
  std::string reason{};  ///< why this one, for people
  std::string definition_diff{};
  std::optional<Prediction> prediction{};
  std::string gateway_name{};              ///< as the other gateway calls itself
  std::string gateway_certificate_name{};  ///< empty: it showed none
};
/// {"way", "reason", "disks", "findings", ...}: for `diskferry plan migrate`.
std::string to_json(const MovePlan& plan);

/// `watch_seconds`: how long the running machine is watched for a prediction; 0: none. Errors: those of the
/// hypervisor here; what else cannot be asked is a finding.
Task<Result<MovePlan>> plan_move(MoveEnvironment& environment, MoveRequest request, unsigned watch_seconds);

}  // namespace diskferry
