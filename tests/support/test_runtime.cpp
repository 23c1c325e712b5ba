// Shared by all tests; see the header.
#include "tests/support/test_runtime.hpp"

#include "tests/support/spawn.hpp"

#include <array>
#include <atomic>
#include <fcntl.h>
#include <filesystem>
#include <poll.h>
#include <signal.h>
#include <stdexcept>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace diskferry::test {

Runtime& runtime() {
  static Runtime instance(RuntimeOptions{.reactors = 2, .blocking_threads = 4, .buffer_bytes = 64u << 20});
  return instance;
}

namespace {
struct Pipe {
  int read_end = -1;
  int write_end = -1;
  Pipe() {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) throw std::system_error(errno, std::system_category(), "pipe");
    read_end = ends[0];
    write_end = ends[1];
  }
  ~Pipe() {
    if (read_end >= 0) close(read_end);
    if (write_end >= 0) close(write_end);
  }
};

/// Removes `folder` once this process has ended, also by a signal that nobody can catch: a shell holds the
/// other end of a pipe of ours. It leaves our family, for who ends a test that took too long ends its
/// children too. It tries again because our servers end just after us, and may still make a file.
void remove_at_our_end(const std::string& folder) {
  Pipe pipe;
  const pid_t shell = spawn({"sh", "-c",
                             "exec 3<&0; { trap '' INT TERM HUP; cat >/dev/null; "
                             "for try in 1 2 3 4 5 6 7 8 9; do "
                             "rm -rf --one-file-system -- \"$1\" && break; sleep 0.1; done; } <&3 3<&- &",
                             "sh", folder},
                            {.in = pipe.read_end});
  waitpid(shell, nullptr, 0);
  pipe.write_end = -1;  // stays open as long as we live
}

/// The folder that holds all temporary folders of this process.
const std::string& process_folder() {
  static const std::string path = [] {
    std::string name = (std::filesystem::temp_directory_path() / "diskferry-test-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::system_error(errno, std::system_category(), name);
    remove_at_our_end(name);
    return name;
  }();
  return path;
}
}  // namespace

TemporaryFolder::TemporaryFolder() {
  static std::atomic<unsigned> made = 0;
  path_ = process_folder() + "/" + std::to_string(++made);
  if (mkdir(path_.c_str(), 0700) != 0) throw std::system_error(errno, std::system_category(), path_);
}
TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

ProgramResult run_program(const std::vector<std::string>& arguments, Duration limit) {
  Pipe out;
  Pipe err;
  ProgramResult result;
  pid_t pid = -1;
  try {
    pid = spawn(arguments, {.out = out.write_end, .err = err.write_end});
  } catch (const std::runtime_error& error) {
    result.err = error.what();
    return result;
  }
  for (Pipe* one : {&out, &err}) {
    close(one->write_end);
    one->write_end = -1;
  }
  const auto deadline = std::chrono::steady_clock::now() + limit;
  std::array<pollfd, 2> fds{{{out.read_end, POLLIN, 0}, {err.read_end, POLLIN, 0}}};
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0 || poll(fds.data(), fds.size(), static_cast<int>(left.count())) == 0) {
      kill(pid, SIGKILL);
      result.err += "\nended by the test: it took too long";
      break;
    }
    for (std::size_t i = 0; i < fds.size(); ++i) {
      if (fds[i].fd < 0 || fds[i].revents == 0) continue;
      std::array<char, 65536> chunk;
      const ssize_t got = read(fds[i].fd, chunk.data(), chunk.size());
      if (got <= 0) {
        fds[i].fd = -1;
      } else {
        (i == 0 ? result.out : result.err).append(chunk.data(), static_cast<std::size_t>(got));
      }
    }
  }
  int status = 0;
  waitpid(pid, &status, 0);
  result.exit_code = exit_code_of(status);
  return result;
}

}  // namespace diskferry::test
