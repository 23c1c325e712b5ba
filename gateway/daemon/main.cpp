// The program diskferryd: options, configuration, and then daemon.cpp.
#include "diskferry/error_kinds.hpp"
#include "diskferry/image_uri.hpp"
#include "gateway/daemon/connect.hpp"
#include "gateway/daemon/daemon.hpp"
#include "gateway/daemon/one_move.hpp"
#include "gateway/daemon/settings.hpp"

#include <csignal>
#include <fcntl.h>
#include <iostream>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

namespace diskferry::daemon {
namespace {

struct Options {
  std::string config_path{default_config_path};
  bool config_is_given = false;
  bool check_only = false;
  bool connect = false;
  std::string one_move_folder;
  std::string run_folder = MoveConfig{}.run_folder;
};

/// Without a file at the place where one is expected the defaults hold; one that was named must be there.
Result<Config> read_config(const Options& options) {
  struct stat status{};
  if (!options.config_is_given && stat(options.config_path.c_str(), &status) != 0 && errno == ENOENT)
    return parse_config("", options.config_path);
  return load_config(options.config_path);
}

Result<void> run(const Options& options) {
  if (!options.one_move_folder.empty()) return run_for_one_move(options.one_move_folder, options.run_folder);
  DISKFERRY_TRY(const Config config, read_config(options));
  if (options.connect) return connect_stdio(config.control.socket);
  DISKFERRY_CHECK(check_settings(config));
  if (options.check_only) {
    std::cout << options.config_path << ": good" << std::endl;
    return {};
  }
  start_logging(log_options(config));
  Runtime runtime({.notes_folder = config.state.folder});
  return runtime.run_until_signal(run_daemon(runtime.context(), config, std::cout));
}

int report(const Result<void>& result) {
  if (result) return static_cast<int>(ExitCode::done);
  std::cerr << "diskferryd: " << printable(result.error().message()) << std::endl;
  return static_cast<int>(row_of(result.error().kind()).exit);
}

int run_program(int argument_count, char** arguments) {
  CLI::App app{"The diskferry gateway: exports images over NBD, moves disks, and takes commands.",
               "diskferryd"};
  Options options;
  bool foreground = false;
  auto* config = app.add_option("--config", options.config_path,
                                "configuration file (default: " + options.config_path + ")")
                     ->type_name("FILE");
  app.add_flag("--check-config", options.check_only, "say whether the configuration is good, and end");
  app.add_flag("--foreground", foreground, "stay in the foreground (it always does)");
  app.add_flag("--connect", options.connect,
               "carry stdin and stdout to the gateway that runs here, and end with it; for use through ssh");
  app.add_option("--for-one-move", options.one_move_folder,
                 "be the gateway of one move, with everything in a new folder of that name, until stdin "
                 "ends; started "
                 "through ssh by 'diskferry migrate --via ssh'")
      ->type_name("FOLDER");
  app.add_option("--run-folder", options.run_folder, "with --for-one-move: where moves have their sockets")
      ->type_name("FOLDER");
  app.set_version_flag("--version", std::string("diskferryd ") + DISKFERRY_VERSION, "print the version");
  app.set_help_flag("-h,--help", "print this help");
  app.footer("The manual is 'man diskferryd'.");
  try {
    app.parse(argument_count, arguments);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    std::cerr << "diskferryd: " << printable(error.what()) << "; see 'diskferryd --help'" << std::endl;
    return static_cast<int>(ExitCode::usage);
  }
  options.config_is_given = config->count() != 0;
  return report(run(options));
}

}  // namespace
}  // namespace diskferry::daemon

int main(int argument_count, char** arguments) {
  // A standard descriptor that is closed would be given to the next file that is opened.
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) == -1 && ::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
      return 1;
  }
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return diskferry::daemon::run_program(argument_count, arguments);
  } catch (const std::exception& error) {
    std::cerr << "diskferryd: internal error: " << error.what() << std::endl;
    return static_cast<int>(diskferry::ExitCode::failed);
  }
}
