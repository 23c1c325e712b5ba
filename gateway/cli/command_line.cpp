// From the command line to an exit code: parses with CLI11, runs one command, prints its error as one line.
// The only place that decides what a command line that does not parse looks like.
#include "gateway/cli/command.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/runtime/logging.hpp"

#include <algorithm>
#include <csignal>
#include <exception>
#include <fmt/format.h>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

namespace diskferry::cli {
namespace {

struct GlobalOptions {
  LogOptions log;
};

constexpr std::string_view description =
    "Moves virtual machine disks between storages and formats, checks them, and serves them over NBD.";
constexpr std::string_view footer =
    "IMAGE is a path or a URI: disk.qcow2, /dev/vg0/vm1, nbd://host/export, "
    "nbd+unix:///export?socket=/path.\n"
    "'diskferry COMMAND --help' shows options and examples; the manual is 'man diskferry'.\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused before anything was changed, 4 content "
    "differs,\n"
    "5 cancelled.";

/// "diskferry: copy: " or "diskferry: " when no command was chosen.
std::string line_prefix(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  return chosen.empty() ? "diskferry: " : "diskferry: " + chosen.front()->get_name() + ": ";
}

int report_usage(const CLI::App& app, const CLI::ParseError& error, std::ostream& err) {
  const auto chosen = app.get_subcommands();
  const std::string command = chosen.empty() ? "diskferry" : "diskferry " + chosen.front()->get_name();
  std::string text = error.what();
  if (chosen.empty() && dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
    const auto unknown = app.remaining();
    text = unknown.empty() ? "a command is missing" : "there is no command '" + unknown.front() + "'";
    std::string known;
    for (const Command* one : all_commands()) known += (known.empty() ? "" : ", ") + std::string(one->name);
    text += "; there are " + known;
  }
  err << line_prefix(app) << printable(text) << "; see '" << command << " --help'\n";
  return static_cast<int>(ExitCode::usage);
}

void add_global_options(CLI::App& app, GlobalOptions& options) {
  app.set_version_flag("--version", std::string("diskferry ") + DISKFERRY_VERSION, "print the version");
  app.set_help_flag("-h,--help", "print this help");
  add_choice(app, "--log-level", options.log.level, log_levels, "LEVEL",
             "what to log on stderr: error, warn, info, debug, trace (default: warn)");
  add_choice(app, "--log-format", options.log.format, log_formats, "FORMAT",
             "text for people or json for machines (default: text)");
}

Result<ExitCode> run_body(const CommandBody& body, std::ostream& out, std::ostream& err) {
  Runtime runtime;
  Invocation invocation{runtime, out, err};
  return body(invocation);
}

/// The command's name once, also where the error is about the command as a whole: "copy: vm.raw: copy: ...".
std::string message_after(const std::string& prefix, const Error& error) {
  std::string message = printable(error.message());
  const std::string command = prefix.substr(std::min(prefix.size(), std::string_view("diskferry: ").size()));
  if (command.empty() || error.operation() + ": " != command || !error.steps().empty()) return message;
  const std::string object = error.object().empty() ? std::string() : printable(error.object()) + ": ";
  if (message.starts_with(object + command)) message.erase(object.size(), command.size());
  return message;
}

int report(const std::string& prefix, const Result<ExitCode>& result, std::ostream& out, std::ostream& err) {
  out.flush();
  if (result && !out.good()) {
    err << prefix << "write the result to standard output: failed\n";
    return static_cast<int>(ExitCode::failed);
  }
  if (result) return static_cast<int>(*result);
  err << prefix << message_after(prefix, result.error()) << "\n";
  return static_cast<int>(row_of(result.error().kind()).exit);
}

}  // namespace

int run_command_line(int argument_count, const char* const* arguments, std::ostream& out, std::ostream& err) {
  std::signal(SIGPIPE, SIG_IGN);  // a reader of ours that went away is an error of a write
  CLI::App app{std::string(description), "diskferry"};
  GlobalOptions global;
  add_global_options(app, global);
  app.footer(std::string(footer));
  app.require_subcommand(1);
  app.fallthrough();

  std::vector<std::pair<const CLI::App*, CommandBody>> bodies;
  for (const Command* command : all_commands()) {
    CLI::App* sub = app.add_subcommand(std::string(command->name), std::string(command->summary));
    sub->footer("Examples:\n" + std::string(command->examples));
    sub->set_help_flag("-h,--help", "print this help");
    bodies.emplace_back(sub, command->declare(*sub));
  }

  try {
    app.parse(argument_count, arguments);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked, out, err);
  } catch (const CLI::ParseError& error) {
    return report_usage(app, error, err);
  }

  start_logging(global.log);
  const std::string prefix = line_prefix(app);
  try {
    for (const auto& [sub, body] : bodies) {
      if (sub->parsed()) return report(prefix, run_body(body, out, err), out, err);
    }
  } catch (const std::exception& error) {
    err << prefix << "internal error: " << printable(error.what()) << "\n";
  }
  return static_cast<int>(ExitCode::failed);
}

}  // namespace diskferry::cli
