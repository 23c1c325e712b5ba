// Which system calls a confined child does not get (seccomp). Pure: it makes the filter's program. What
// Landlock does not see is shut here: sockets, signals to others, new processes, memory shared with others,
// changes to a file that are no writing (its length, owner, mode, times, attributes), and the doors of the
// kernel that a program which reads images has no use for. Making, renaming and removing is Landlock's.
#pragma once

#include "drivers/foreign/confinement.hpp"

#include <linux/filter.h>
#include <vector>

namespace diskferry::foreign {

/// Where the filter compares with the child's own process id, known only to itself.
struct SyscallFilter {
  std::vector<sock_filter> program = {};
  std::vector<std::size_t> own_pid_at = {};  ///< instructions whose `k` is to become the child's process id
};
/// Empty program: this processor's numbers are not known here (neither x86-64 nor ARM 64).
SyscallFilter make_filter(Sockets sockets);

}  // namespace diskferry::foreign
