// spawn(): starts a program that the kernel ends when the test process ends, however it ends. ChildProcess
// and run_program() stand on it; tests use those.
#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

namespace diskferry::test {

/// Where a program's stdin, stdout and stderr lead; -1 is nowhere. The descriptors stay the caller's.
struct Streams {
  int in = -1;
  int out = -1;
  int err = -1;
};

/// Not a shell. Throws std::runtime_error where the program cannot be started. The caller waits for it.
pid_t spawn(const std::vector<std::string>& arguments, Streams streams);
/// Of what waitpid() said: the exit code, or 128 + the signal.
int exit_code_of(int wait_status);

}  // namespace diskferry::test
