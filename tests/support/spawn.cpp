// See the header. The kernel's promise (PR_SET_PDEATHSIG) counts from the end of the thread that started the
// child, not of the process: one thread that never ends starts them all.
#include "tests/support/spawn.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <future>
#include <stdexcept>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>

namespace diskferry::test {
namespace {

struct Program {
  std::vector<char*> argv;
  Streams streams;
  int failure_fd;  // takes the error number where the program cannot be run
  pid_t parent;
};

/// Between vfork and exec, in the memory of the process with its other threads: system calls only.
[[noreturn]] void become(const Program& program) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != program.parent) _exit(127);
  const int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
  const std::array<int, 3> wanted{program.streams.in, program.streams.out, program.streams.err};
  std::array<int, 3> above{};  // so that no descriptor is overwritten before it was used
  for (std::size_t i = 0; i < 3; ++i)
    above[i] = fcntl(wanted[i] < 0 ? nowhere : wanted[i], F_DUPFD_CLOEXEC, 3);
  for (std::size_t i = 0; i < 3; ++i) dup2(above[i], static_cast<int>(i));
  execvp(program.argv[0], program.argv.data());
  const int error = errno;
  (void)!write(program.failure_fd, &error, sizeof error);
  _exit(127);
}

std::pair<pid_t, int> start(Program program) {
  std::array<int, 2> failure{};
  if (pipe2(failure.data(), O_CLOEXEC) != 0) return {-1, errno};
  program.failure_fd = failure[1];
  program.parent = getpid();
  // Not fork(): copying the page tables of a process with AddressSanitizer takes longer than the program
  // runs.
  const pid_t pid = vfork();
  if (pid == 0) become(program);
  int error = pid < 0 ? errno : 0;
  close(failure[1]);
  if (pid > 0 && read(failure[0], &error, sizeof error) > 0) waitpid(pid, nullptr, 0);
  close(failure[0]);
  return {pid, error};
}

class Starter {
 public:
  Starter() {
    std::thread([this] { serve(); }).detach();
  }
  std::pair<pid_t, int> run(Program program) {
    std::packaged_task<std::pair<pid_t, int>()> job([&] { return start(std::move(program)); });
    auto started = job.get_future();
    {
      std::lock_guard lock(guard_);
      jobs_.push_back(std::move(job));
    }
    wake_.notify_one();
    return started.get();
  }

 private:
  void serve() {
    for (;;) {
      std::unique_lock lock(guard_);
      wake_.wait(lock, [this] { return !jobs_.empty(); });
      auto job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
    }
  }
  std::mutex guard_;
  std::condition_variable wake_;
  std::deque<std::packaged_task<std::pair<pid_t, int>()>> jobs_;
};

}  // namespace

pid_t spawn(const std::vector<std::string>& arguments, Streams streams) {
  static Starter& starter = *new Starter;  // its thread ends with the process
  Program program{.argv = {}, .streams = streams, .failure_fd = -1, .parent = -1};
  for (const auto& one : arguments) program.argv.push_back(const_cast<char*>(one.c_str()));
  program.argv.push_back(nullptr);
  const auto [pid, error] = starter.run(std::move(program));
  if (error != 0) throw std::runtime_error("cannot start " + arguments.front() + ": " + std::strerror(error));
  return pid;
}

int exit_code_of(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

}  // namespace diskferry::test
