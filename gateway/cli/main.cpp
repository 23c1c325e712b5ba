// The diskferry program. Everything is in command_line.cpp, where tests reach it.
#include "gateway/cli/command.hpp"

#include <fcntl.h>
#include <iostream>
#include <unistd.h>

namespace {

/// A standard descriptor that is closed would be given to the next file that is opened, and what is printed
/// would go into a disk. Opened the wrong way round, so that using it fails as if it were still closed.
bool fill_standard_descriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) != -1) continue;
    if (::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) return false;
  }
  return true;
}

}  // namespace

int main(int argument_count, char** arguments) {
  if (!fill_standard_descriptors()) return static_cast<int>(diskferry::ExitCode::failed);
  return diskferry::cli::run_command_line(argument_count, arguments, std::cout, std::cerr);
}
