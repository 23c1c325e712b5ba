// The daemon with a configuration made here; a thread waits for the end of stdin and then asks for the end as
// a signal would.
#include "gateway/daemon/one_move.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/daemon/daemon.hpp"
#include "gateway/daemon/settings.hpp"
#include "gateway/daemon/users.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <poll.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

namespace diskferry::daemon {
namespace {

/// Debian's and Ubuntu's user of QEMU; elsewhere "qemu". Where neither is, QEMU runs as whoever we are.
std::string hypervisor_user() {
  for (const char* name : {"libvirt-qemu", "qemu"})
    if (find_user(name, {})) return name;
  return {};
}

Config configuration(const std::string& folder, const std::string& run_folder) {
  Config config;
  config.control.socket = folder + "/control.sock";
  config.nbd.listen = {{.text = "unix:" + folder + "/nbd.sock", .where = "--for-one-move"}};
  config.state.folder = folder + "/state";
  config.log.level = "warn";
  config.move.run_folder = run_folder;
  config.move.qemu_user = hypervisor_user();
  return config;
}

/// Ends when stdin does, or when `stop` can be read.
void wait_for_end_of_stdin(int stop) {
  std::array<pollfd, 2> watched{{{STDIN_FILENO, POLLIN, 0}, {stop, POLLIN, 0}}};
  std::array<char, 256> ignored{};
  while (true) {
    if (::poll(watched.data(), watched.size(), -1) < 0 && errno != EINTR) break;
    if (watched[1].revents != 0) return;
    if (watched[0].revents != 0 && ::read(STDIN_FILENO, ignored.data(), ignored.size()) <= 0) break;
  }
  (void)::kill(::getpid(), SIGTERM);
}

}  // namespace

Result<void> run_for_one_move(const std::string& folder, const std::string& run_folder) {
  if (::mkdir(folder.c_str(), 0700) != 0)
    return unexpected(errno_error(errno, "make the folder", printable(folder)));
  std::error_code ignored;
  std::filesystem::create_directories(run_folder, ignored);
  const Config config = configuration(folder, run_folder);
  start_logging(log_options(config));
  std::array<int, 2> stop{};
  if (::pipe(stop.data()) != 0) return unexpected(errno_error(errno, "wait for stdin"));
  Result<void> result;
  {
    Runtime runtime;
    std::thread watcher(wait_for_end_of_stdin, stop[0]);
    result = runtime.run_until_signal(run_daemon(runtime.context(), config, std::cout));
    ::close(stop[1]);
    watcher.join();
  }
  ::close(stop[0]);
  std::filesystem::remove_all(folder, ignored);
  return result;
}

}  // namespace diskferry::daemon
