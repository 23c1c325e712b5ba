// What a replacement would do and what speaks against it, all of it at once. Changes nothing.
#pragma once

#include "gateway/move/replacement.hpp"

#include <string>
#include <vector>

namespace diskferry {

struct ReplacePlan {
  std::vector<ReplaceDiskState> disks{};
  std::vector<std::string> warnings{};
  std::vector<std::string> blockers{};
};
/// {"disks", "warnings", "blockers"}: for `diskferry plan replace`.
std::string to_json(const ReplacePlan& plan);

/// Each export is borrowed for a moment. Errors: cancelled; all else is a blocker.
Task<Result<ReplacePlan>> plan_replacement(ReplaceEnvironment& environment, ReplaceRequest request);

}  // namespace diskferry
