// The kernel's rules for what a process may open (Landlock, Linux 5.13), as a descriptor that a child puts on
// itself. Needs no privileges. What is not permitted by a rule is forbidden: opening for writing, making and
// removing everywhere, and reading outside of what the confinement names and of what a program needs to
// start. Lengths (before Linux 6.2), owners, modes, times and attributes it knows nothing of:
// syscall_filter.hpp.
#pragma once

#include "drivers/foreign/confinement.hpp"

#include <optional>

namespace diskferry::foreign {

/// The version of the kernel's interface; 0: there is none.
int landlock_version() noexcept;

/// A ruleset for the program at `program`; nullopt: this kernel has no Landlock. Its owner closes it. Errors:
/// those of the system calls.
Result<std::optional<int>> make_ruleset(const Confinement& confinement, const std::string& program);

/// Adds a folder to a ruleset; false: errno says why. Makes system calls only, so that a child may call it
/// before exec.
bool allow_reading_below(int ruleset, const char* folder) noexcept;

}  // namespace diskferry::foreign
