// See the header.
#include "tests/support/nbd_server.hpp"

#include <filesystem>
#include <stdexcept>

namespace diskferry::test {

NbdServer::NbdServer(std::vector<std::string> arguments) {
  start(std::move(arguments));
}

void NbdServer::start(std::vector<std::string> arguments) {
  arguments_ = std::move(arguments);
  for (auto& one : arguments_) {
    if (const auto at = one.find("{socket}"); at != std::string::npos) one.replace(at, 8, socket());
    if (const auto at = one.find("{folder}"); at != std::string::npos) one.replace(at, 8, folder_.path());
  }
  start();
}

void NbdServer::start() {
  std::filesystem::remove(socket());  // a killed server leaves it behind
  process_ = std::make_unique<ChildProcess>(arguments_, folder_ / "log");
  // Connecting would use up a place of qemu-nbd's client count.
  const bool is_up = wait_until([this] { return is_listening(socket()) || !process_->is_running(); });
  if (!is_up || !process_->is_running()) throw std::runtime_error(arguments_.front() + " did not start");
}

}  // namespace diskferry::test
