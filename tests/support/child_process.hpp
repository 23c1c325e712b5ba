// ChildProcess: a program that runs beside a test, and ends with it. Tests start real servers with it, and
// stop, pause or kill them by the process's own number.
#pragma once

#include "diskferry/clock.hpp"
#include "tests/support/spawn.hpp"

#include <functional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace diskferry::test {

/// Not a shell. Throws where the program cannot be started. It ends with this object, and where the test
/// process itself is killed, with that.
class ChildProcess {
 public:
  /// stdout and stderr are appended to `log_path` where it is given, else go nowhere.
  explicit ChildProcess(const std::vector<std::string>& arguments, const std::string& log_path = {});
  ChildProcess(const std::vector<std::string>& arguments, Streams streams);
  /// Kills it where it still runs, and waits for it.
  ~ChildProcess();
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;

  pid_t pid() const noexcept { return pid_; }
  bool is_running();
  void signal(int number) const;
  /// Sends SIGKILL and waits until it is gone.
  void kill();
  /// Sends SIGTERM and waits; kills it after `limit`.
  void stop(Duration limit = std::chrono::seconds(10));
  /// Waits for its end: the exit code, or 128 + the signal. Kills it after `limit`.
  int wait(Duration limit = std::chrono::seconds(100));

 private:
  pid_t pid_ = -1;
  int exit_code_ = -1;
};

/// Polls `condition` until it holds; false when it did not within `limit`.
bool wait_until(const std::function<bool()>& condition, Duration limit = std::chrono::seconds(10));
/// True while that process exists and is not a zombie.
bool is_alive(pid_t pid);
/// True once somebody accepts connections there.
bool accepts_connections(const std::string& unix_socket_path);
bool accepts_connections(std::uint16_t tcp_port);
/// The same for somebody who would take a probe for a client: looks into the system's table instead.
bool is_listening(const std::string& unix_socket_path);
bool is_listening(std::uint16_t tcp_port);
/// A TCP port on loopback that was free just now. Another may take it: whoever uses it must try again.
std::uint16_t free_tcp_port();

}  // namespace diskferry::test
