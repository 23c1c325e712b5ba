// NBD servers that users have, as what stands below a device under test.
#pragma once

#include "tests/support/child_process.hpp"
#include "tests/support/test_runtime.hpp"

#include <memory>
#include <string>
#include <vector>

namespace diskferry::test {

/// A server program on a UNIX socket in a folder of its own. qemu-nbd and nbdkit take the socket's path in
/// their arguments: write {socket}. Ready when the constructor returns.
class NbdServer {
 public:
  explicit NbdServer(std::vector<std::string> arguments);
  std::string socket() const { return folder_ / "socket"; }
  std::string uri(const std::string& export_name = {}, const std::string& more = {}) const {
    return "nbd+unix:///" + export_name + "?socket=" + socket() + more;
  }
  const TemporaryFolder& folder() const { return folder_; }
  ChildProcess& process() { return *process_; }
  /// Starts it again where it was stopped or killed, with the same or with other arguments.
  void start();
  void start(std::vector<std::string> arguments);

 private:
  TemporaryFolder folder_;
  std::vector<std::string> arguments_;
  std::unique_ptr<ChildProcess> process_;
};

inline NbdServer nbdkit(std::vector<std::string> arguments) {
  std::vector<std::string> all{"nbdkit", "-f", "-U", "{socket}"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return NbdServer(std::move(all));
}
inline NbdServer qemu_nbd(std::vector<std::string> arguments) {
  std::vector<std::string> all{"qemu-nbd", "-t", "-k", "{socket}"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return NbdServer(std::move(all));
}

}  // namespace diskferry::test
