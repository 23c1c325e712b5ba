// What a command of the diskferry program is: a name, its texts, and a function that declares its options and
// says what to run. command_line.cpp drives the table; commands know nothing of each other.
#pragma once

#include "diskferry/error_kinds.hpp"
#include "gateway/runtime/runtime.hpp"

#include <functional>
#include <iosfwd>
#include <span>
#include <string_view>

namespace CLI {
class App;
}

namespace diskferry::cli {

/// What a running command gets from the frame. Lifetime: the whole command.
struct Invocation {
  Runtime& runtime;
  std::ostream& out;  ///< results, and nothing but results
  std::ostream& err;  ///< progress, hints and errors
};

/// Runs after the line was parsed; owns the options it was parsed into. The error becomes the error line and
/// the exit code; ExitCode::done and ExitCode::different are results, not errors.
using CommandBody = std::function<Result<ExitCode>(Invocation&)>;

struct Command {
  std::string_view name;
  std::string_view summary;   ///< one line in `diskferry --help`
  std::string_view examples;  ///< shown at the end of `diskferry NAME --help`, one a line, ready to be pasted
  /// Declares options on `app` (which has name and summary already) and returns what to run. Called once.
  CommandBody (*declare)(CLI::App& app);
};

/// The table, in the order of --help.
std::span<const Command* const> all_commands();

/// The whole program but for main(): parses, runs, reports. Returns the exit code; never throws.
int run_command_line(int argument_count, const char* const* arguments, std::ostream& out, std::ostream& err);

}  // namespace diskferry::cli
