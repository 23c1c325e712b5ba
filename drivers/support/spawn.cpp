// See the header.
#include "drivers/support/spawn.hpp"

#include "diskferry/image_uri.hpp"

#include <csignal>
#include <fcntl.h>
#include <spawn.h>
#include <unistd.h>

extern char** environ;

namespace diskferry {
namespace {

void connect(posix_spawn_file_actions_t& actions, int ours, int theirs) {
  if (ours >= 0)
    posix_spawn_file_actions_adddup2(&actions, ours, theirs);
  else
    posix_spawn_file_actions_addopen(&actions, theirs, "/dev/null",
                                     theirs == STDIN_FILENO ? O_RDONLY : O_WRONLY, 0);
}

}  // namespace

Result<pid_t> spawn_program(const std::vector<std::string>& words, ProgramFiles files, std::string step) {
  posix_spawn_file_actions_t actions{};
  posix_spawn_file_actions_init(&actions);
  connect(actions, files.in, STDIN_FILENO);
  connect(actions, files.out, STDOUT_FILENO);
  connect(actions, files.err, STDERR_FILENO);
  posix_spawnattr_t attributes{};
  posix_spawnattr_init(&attributes);
  sigset_t none{};
  sigset_t defaults{};
  sigemptyset(&none);
  sigfillset(&defaults);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<char*> arguments;
  for (const std::string& word : words)
    arguments.push_back(const_cast<char*>(word.c_str()));  // as execv wants it
  arguments.push_back(nullptr);
  pid_t pid = -1;
  const int failed = posix_spawnp(&pid, arguments.front(), &actions, &attributes, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (failed != 0) return unexpected(errno_error(failed, std::move(step), printable(words.front())));
  return pid;
}

}  // namespace diskferry
