// A pipe, and waitpid without waiting.
#include "gateway/daemon/tunnel.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/image_uri.hpp"
#include "drivers/support/spawn.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <sys/wait.h>
#include <unistd.h>

namespace diskferry::daemon {
namespace {

constexpr Duration stop_limit = std::chrono::seconds(10);
constexpr Duration stop_pause = std::chrono::milliseconds(20);
constexpr std::size_t last_words_max = 500;

}  // namespace

Tunnel::~Tunnel() {
  DISKFERRY_ASSERT(pid_ < 0, "a tunnel is destroyed before stop()");
}

Result<void> Tunnel::start(const std::vector<std::string>& words, std::string log_path) {
  name_ = words.front();
  log_path_ = std::move(log_path);
  std::array<int, 2> pipe_ends{};
  if (::pipe2(pipe_ends.data(), O_CLOEXEC) != 0) return unexpected(errno_error(errno, "start", name_));
  const int log = ::open(log_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (log < 0) {
    const int failed = errno;
    ::close(pipe_ends[0]);
    ::close(pipe_ends[1]);
    return unexpected(errno_error(failed, "write", printable(log_path_)));
  }
  auto pid = spawn_program(words, {.in = pipe_ends[0], .err = log}, "start");
  ::close(pipe_ends[0]);
  ::close(log);
  if (!pid) {
    ::close(pipe_ends[1]);
    return unexpected(std::move(pid).error());
  }
  pid_ = *pid;
  input_ = pipe_ends[1];
  return {};
}

std::string Tunnel::last_words() const {
  std::ifstream log(log_path_);
  std::string text((std::istreambuf_iterator<char>(log)), std::istreambuf_iterator<char>());
  if (text.size() > last_words_max) text.erase(0, text.size() - last_words_max);
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  const auto line = text.rfind('\n');
  return printable(line == std::string::npos ? text : text.substr(line + 1));
}

std::optional<Error> Tunnel::ended() {
  if (pid_ < 0) return fail(ErrorKind::gone, "run", name_).why("it has ended");
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  pid_ = -1;
  const std::string said = last_words();
  return fail(ErrorKind::gone, "run", name_).why(said.empty() ? "it has ended" : "it has ended: " + said);
}

Task<void> Tunnel::stop(Clock& clock) {
  if (input_ >= 0) ::close(std::exchange(input_, -1));
  const TimePoint end = Clock::after(clock.now(), stop_limit);
  while (pid_ >= 0 && !ended()) {
    if (clock.now() < end && co_await clock.sleep_for(stop_pause)) continue;
    ::kill(pid_, SIGKILL);
    int status = 0;
    (void)::waitpid(pid_, &status, 0);
    pid_ = -1;
  }
}

}  // namespace diskferry::daemon
