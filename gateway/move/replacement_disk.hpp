// A disk of a replacement with what steers it. Internal to replacement*.cpp.
#pragma once

#include "gateway/mirror/convergence.hpp"
#include "gateway/move/replacement.hpp"

namespace diskferry {

struct Replacement::Disk {
  Disk(ReplaceEnvironment& environment, ReplaceDiskState& state, ReplacedDiskOptions options,
       const ConvergenceLimits& limits)
      : disk(environment.drivers, environment.endpoints, state, std::move(options)), control(limits) {}

  ReplacedDisk disk;
  ConvergenceController control;
  ConvergenceStep step{};
  std::string why{};           ///< of the last change of mode, for those who watch
  ReplacedDiskStats before{};  ///< a second ago
  bool is_begun = false;
};

/// That the job rests.
NewJobEvent paused_event(const Error& why);

}  // namespace diskferry
