// Starting a program that is confined before its first instruction, gets nothing of ours but what it is
// handed, and does not outlive us.
#pragma once

#include "drivers/foreign/confinement.hpp"

#include <span>
#include <string>
#include <sys/types.h>
#include <vector>

namespace diskferry::foreign {

struct ConfinedProgram {
  std::string path = {};                    ///< of the program; not searched for
  std::vector<std::string> arguments = {};  ///< its name first
  /// The whole environment, to which LISTEN_PID is added (sd_listen_fds(3)).
  std::vector<std::string> environment = {};
  int errors = -1;               ///< stderr; stdin and stdout are /dev/null
  std::vector<int> passed = {};  ///< become 3, 4, ...; they stay open here
  Confinement confinement = {};
  /// Go on where the kernel cannot confine a process to files (before 5.13, or switched off).
  bool allow_unconfined = false;
};

/// The first of the descriptors that are passed.
inline constexpr int first_passed = 3;

/// Thread: the kernel ends the program when the *thread* that called this ends, so one that lives as long as
/// the program has to. Errors: those of the system calls, naming the step.
Result<pid_t> start_confined(const ConfinedProgram& program);

}  // namespace diskferry::foreign
