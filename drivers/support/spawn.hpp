// Starting another program: no shell, a process group of its own, and signals as a program expects them.
#pragma once

#include "diskferry/error.hpp"

#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

namespace diskferry {

/// Descriptors of ours that become those of the program; -1: /dev/null. They stay open here.
struct ProgramFiles {
  int in = -1;
  int out = -1;
  int err = -1;
};

/// Starts `words`, of which the first is the program: looked for in PATH where it has no '/'. The program is
/// the leader of a new process group, so that a Ctrl-C in our terminal is ours alone and kill(-pid) reaches
/// all that it started; no signal is blocked or ignored. `step` is what errors call it.
/// Errors: those of posix_spawn, naming the program.
Result<pid_t> spawn_program(const std::vector<std::string>& words, ProgramFiles files, std::string step);

}  // namespace diskferry
