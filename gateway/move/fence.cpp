// A file for what it prints, and waitpid without waiting.
#include "gateway/move/fence.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/support/spawn.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace diskferry {
namespace {

constexpr Duration look_pause = std::chrono::milliseconds(50);
constexpr std::size_t output_bytes_max = 4096;  ///< of the end of what it printed
constexpr std::size_t words_max = 64;
constexpr std::size_t host_bytes_max = 255;

std::vector<std::string> split_at_spaces(const std::string& text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : text + " ") {
    if (c != ' ') {
      word += c;
    } else if (!word.empty()) {
      words.push_back(std::exchange(word, {}));
    }
  }
  return words;
}

std::string_view last_line(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' '))
    text.remove_suffix(1);
  const auto line = text.rfind('\n');
  return line == std::string_view::npos ? text : text.substr(line + 1);
}

bool has_word(std::string_view text, std::string_view wanted) {
  std::string word;
  for (std::size_t at = 0; at <= text.size(); ++at) {
    const bool is_letter = at < text.size() && std::isalnum(static_cast<unsigned char>(text[at])) != 0;
    if (is_letter) {
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(text[at])));
    } else {
      if (word == wanted) return true;
      word.clear();
    }
  }
  return false;
}

void kill_all(pid_t pid) {
  (void)::kill(-pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
}

/// Its wait status. Whoever is cancelled or out of time leaves no process behind.
Task<Result<int>> wait_for(Clock& clock, pid_t pid, Duration limit, const std::string& program) {
  const TimePoint end = Clock::after(clock.now(), limit);
  while (true) {
    int status = 0;
    if (::waitpid(pid, &status, WNOHANG) == pid) co_return status;
    if (clock.now() >= end) {
      kill_all(pid);
      co_return unexpected(fail(ErrorKind::timed_out, "fence", printable(program))
                               .why("it did not end in time and was killed")
                               .remedy("look at the host yourself, and say --i-have-fenced once it is off"));
    }
    if (!co_await clock.sleep_for(look_pause)) {
      kill_all(pid);
      co_return unexpected(cancelled_error("fence", printable(program)));
    }
  }
}

std::string end_of(int file) {
  const off_t size = ::lseek(file, 0, SEEK_END);
  const auto wanted = std::min<std::size_t>(size < 0 ? 0 : static_cast<std::size_t>(size), output_bytes_max);
  std::string text(wanted, '\0');
  const ssize_t got = ::pread(file, text.data(), wanted, size - static_cast<off_t>(wanted));
  text.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
  return text;
}

Result<std::string> judge(int status, const std::string& output, const std::string& program) {
  std::string said = printable(std::string(last_line(output)));
  const bool has_succeeded = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (has_succeeded && says_off(output)) return said;
  const std::string how = has_succeeded       ? "it succeeded, but does not say that the host is off"
                          : WIFEXITED(status) ? fmt::format("it failed with status {}", WEXITSTATUS(status))
                                              : fmt::format("signal {} ended it", WTERMSIG(status));
  return unexpected(fail(ErrorKind::io, "fence", printable(program))
                        .why(said.empty() ? how : how + ": " + said)
                        .remedy("switch the host off yourself, and say --i-have-fenced"));
}

}  // namespace

Result<std::vector<std::string>> fence_words(const FenceCommand& command, const std::string& host) {
  const auto wrong = [](std::string what, std::string why) {
    return unexpected(fail(ErrorKind::invalid_argument, "fence", printable(what)).why(std::move(why)));
  };
  std::vector<std::string> words =
      command.words.size() == 1 ? split_at_spaces(command.words.front()) : command.words;
  if (words.empty() || !words.front().starts_with('/'))
    return wrong("evacuate.fence", "its first word must be the absolute path of a program");
  if (words.size() > words_max) return wrong("evacuate.fence", "it has more than 64 words");
  const bool is_name =
      !host.empty() && host.size() <= host_bytes_max && !host.starts_with('-') &&
      host.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:") ==
          std::string::npos;
  if (!is_name) return wrong(host, "this cannot be a host's name");
  for (std::size_t i = 1; i < words.size(); ++i)
    for (auto at = words[i].find("%h"); at != std::string::npos; at = words[i].find("%h", at + host.size()))
      words[i].replace(at, 2, host);
  return words;
}

bool says_off(std::string_view output) {
  const std::string_view line = last_line(output);
  return has_word(line, "off") && !has_word(line, "on");
}

Task<Result<std::string>> fence_host(DriverContext& context, FenceCommand command, std::string host) {
  DISKFERRY_CO_TRY(const std::vector<std::string> words, fence_words(command, host));
  const int output = ::memfd_create("fence", MFD_CLOEXEC);
  if (output < 0) co_return unexpected(errno_error(errno, "fence", printable(words.front())));
  Result<std::string> said;
  if (auto pid = spawn_program(words, {.out = output, .err = output}, "fence"); !pid) {
    said = unexpected(std::move(pid).error());
  } else if (auto status = co_await wait_for(context.clock, *pid, command.limit, words.front()); !status) {
    said = unexpected(std::move(status).error());
  } else {
    said = judge(*status, end_of(output), words.front());
  }
  ::close(output);
  co_return said;
}

}  // namespace diskferry
