// Real NBD servers for the client's tests, and the few lines every one of them needs.
#pragma once

#include "diskferry/units.hpp"
#include "drivers/registry.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/pattern.hpp"
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

inline Result<DevicePtr> open_nbd(const std::string& uri, OpenOptions options = {}) {
  return run(open_storage(runtime().context(), must(ImageUri::parse(uri)), options));
}

/// A device that is closed at the end of the test.
class OpenDevice {
 public:
  explicit OpenDevice(const std::string& uri, OpenOptions options = {})
      : device_(must(open_nbd(uri, options))) {}
  ~OpenDevice() { must(run(device_->close())); }
  OpenDevice(const OpenDevice&) = delete;
  OpenDevice& operator=(const OpenDevice&) = delete;
  BlockDevice& operator*() { return *device_; }
  BlockDevice* operator->() { return device_.get(); }

 private:
  DevicePtr device_;
};

}  // namespace diskferry::test
