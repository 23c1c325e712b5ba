// See the header.
#include "tests/support/child_process.hpp"

#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <netinet/in.h>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>

namespace diskferry::test {

namespace {
pid_t spawn_with_log(const std::vector<std::string>& arguments, const std::string& log_path) {
  if (log_path.empty()) return spawn(arguments, {});
  const int log = open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) throw std::runtime_error("cannot open " + log_path + ": " + std::strerror(errno));
  try {
    const pid_t pid = spawn(arguments, {.out = log, .err = log});
    close(log);
    return pid;
  } catch (...) {
    close(log);
    throw;
  }
}
}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& arguments, const std::string& log_path)
    : pid_(spawn_with_log(arguments, log_path)) {}
ChildProcess::ChildProcess(const std::vector<std::string>& arguments, Streams streams)
    : pid_(spawn(arguments, streams)) {}
ChildProcess::~ChildProcess() {
  kill();
}
ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), exit_code_(other.exit_code_) {}
ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this != &other) {
    kill();
    pid_ = std::exchange(other.pid_, -1);
    exit_code_ = other.exit_code_;
  }
  return *this;
}

bool ChildProcess::is_running() {
  if (pid_ < 0) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == 0) return true;
  exit_code_ = exit_code_of(status);
  pid_ = -1;
  return false;
}
void ChildProcess::signal(int number) const {
  if (pid_ > 0) ::kill(pid_, number);
}
void ChildProcess::kill() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  int status = 0;
  waitpid(pid_, &status, 0);
  exit_code_ = exit_code_of(status);
  pid_ = -1;
}
void ChildProcess::stop(Duration limit) {
  signal(SIGTERM);
  wait(limit);
}
int ChildProcess::wait(Duration limit) {
  if (!wait_until([this] { return !is_running(); }, limit)) kill();
  return exit_code_;
}

bool is_alive(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  // The state follows the name, which may hold anything but ends with the last bracket.
  return std::getline(file, line) && line.substr(line.rfind(')')).find(" Z ") != 1;
}

bool wait_until(const std::function<bool()>& condition, Duration limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

namespace {
bool can_connect(const sockaddr* address, socklen_t length) {
  const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const bool connected = connect(fd, address, length) == 0;
  close(fd);
  return connected;
}
}  // namespace

bool accepts_connections(const std::string& unix_socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, unix_socket_path.c_str(), sizeof address.sun_path - 1);
  return can_connect(reinterpret_cast<const sockaddr*>(&address), sizeof address);
}
bool accepts_connections(std::uint16_t tcp_port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(tcp_port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return can_connect(reinterpret_cast<const sockaddr*>(&address), sizeof address);
}
bool is_listening(const std::string& unix_socket_path) {
  std::ifstream lines("/proc/net/unix");
  for (std::string line; std::getline(lines, line);) {
    // Num RefCount Protocol Flags Type St Inode Path; the flag is the kernel's __SO_ACCEPTCON.
    if (line.ends_with(" " + unix_socket_path) && line.find(" 00010000 ") != std::string::npos) return true;
  }
  return false;
}
bool is_listening(std::uint16_t tcp_port) {
  std::array<char, 16> mark{};
  std::snprintf(mark.data(), mark.size(), ":%04X ", tcp_port);
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream lines(table);
    for (std::string line; std::getline(lines, line);) {
      const auto at = line.find(mark.data());
      // The local address comes first; 0A is LISTEN.
      if (at != std::string::npos && at < 50 && line.find(" 0A ", at) != std::string::npos) return true;
    }
  }
  return false;
}
std::uint16_t free_tcp_port() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  const bool bound = fd >= 0 && bind(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  if (fd >= 0) close(fd);
  if (!bound) throw std::runtime_error("no free TCP port");
  return ntohs(address.sin_port);
}

}  // namespace diskferry::test
