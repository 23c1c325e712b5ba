// A program that carries connections to another host for as long as this object lives: ssh with a gateway at
// its other end. Used by ssh_target.cpp.
#pragma once

#include "diskferry/driver.hpp"

#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace diskferry::daemon {

/// The program's stdin is a pipe that is held open; closing it is how the other end learns that it is over.
/// What it says on stderr is kept in a file. Thread: one task at a time. Lifetime: stop() before destruction.
class Tunnel {
 public:
  Tunnel() = default;
  ~Tunnel();
  Tunnel(const Tunnel&) = delete;
  Tunnel& operator=(const Tunnel&) = delete;

  /// Not by a shell: the words are the program and its arguments. Errors: not_found (no such program),
  /// permission.
  Result<void> start(const std::vector<std::string>& words, std::string log_path);
  /// Its end, where it has ended: what it said last, as an error of kind gone.
  std::optional<Error> ended();
  /// Closes its stdin, gives it some seconds, and kills it.
  Task<void> stop(Clock& clock);

 private:
  std::string last_words() const;
  pid_t pid_ = -1;
  int input_ = -1;
  std::string name_{};
  std::string log_path_{};
};

}  // namespace diskferry::daemon
