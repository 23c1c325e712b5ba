// A server of ours on a UNIX socket, with devices in memory.
#pragma once

#include "drivers/checked_device.hpp"
#include "drivers/memory/memory_device.hpp"
#include "gateway/nbd/server.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/test_runtime.hpp"

#include <map>
#include <memory>
#include <string>

namespace diskferry::test {

class TestServer {
 public:
  explicit TestServer(nbd_server::ServerOptions options = {}) {
    options.listen.push_back(
        {.kind = nbd_server::ListenAddress::Kind::unix_socket, .host = {}, .path = path()});
    server = std::make_unique<nbd_server::Server>(runtime().context(), std::move(options));
  }
  ~TestServer() { (void)stop(); }
  std::string path() const { return folder / "socket"; }
  std::string uri(std::string_view name = {}) const {
    return "nbd+unix:///" + std::string(name) + "?socket=" + path();
  }
  /// Adds an export over `device`, which is closed at the end.
  nbd_server::ExportPtr add(nbd_server::ExportOptions options, DevicePtr device) {
    std::shared_ptr<BlockDevice> shared = checked(std::move(device));
    devices.push_back(shared);
    auto made = must(nbd_server::Export::make(std::move(options), shared));
    must(server->exports().add(made));
    return made;
  }
  nbd_server::ExportPtr add(nbd_server::ExportOptions options, MemoryOptions memory) {
    return add(std::move(options), make_memory_device(memory));
  }
  void start() {
    must(run(server->start()));
    started = true;
  }
  Result<void> stop() {
    Result<void> result;
    if (started) result = run(server->stop());
    started = false;
    server.reset();
    for (auto& device : devices) must(run(device->close()));
    devices.clear();
    return result;
  }

  TemporaryFolder folder;
  std::unique_ptr<nbd_server::Server> server;
  std::vector<std::shared_ptr<BlockDevice>> devices;
  bool started = false;
};

}  // namespace diskferry::test
