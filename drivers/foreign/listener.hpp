// A listening UNIX socket without a name: made in a private folder, which is removed at once. Only this
// process can connect to it, and nothing is left behind, however it ends.
#pragma once

#include "diskferry/error.hpp"
#include "drivers/file/file_descriptor.hpp"

#include <string>
#include <string_view>

namespace diskferry::foreign {

class Listener {
 public:
  static Result<Listener> make();
  int socket() const noexcept { return socket_.get(); }
  /// Where this process connects to; works while the object lives.
  std::string path() const;
  /// Nobody can connect any more, and who waits to be accepted is told so, once the child is gone, too.
  void close() noexcept { socket_.reset(); }
  bool is_open() const noexcept { return socket_.get() >= 0; }

 private:
  FileDescriptor socket_{};
  FileDescriptor name_{};  // O_PATH: what is left of the name
};

/// A connection of our own, to be handed to another child. Errors: gone (nobody listens).
Result<FileDescriptor> connect_to(const Listener& listener);
/// A file in memory, to be handed to a child; it opens it as /proc/self/fd/N.
Result<FileDescriptor> memory_file(std::string_view content);

}  // namespace diskferry::foreign
