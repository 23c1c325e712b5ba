// A control server over a FakeGateway on a UNIX socket, and a client that writes bytes by hand.
#pragma once

#include "gateway/control/server.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/control/fake_gateway.hpp"

#include <chrono>
#include <cstring>
#include <netinet/in.h>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace diskferry::test {

class TestControl {
 public:
  explicit TestControl(control::Limits limits = {}, control::ServerOptions options = {})
      : gateway(runtime().context().clock) {
    options.socket = socket();
    options.limits = limits;
    server.emplace(runtime().context(), gateway, std::move(options));
    must(run(server->start()));
  }
  ~TestControl() { stop(); }
  void stop() {
    if (server) must(run(server->stop()));
    server.reset();
  }
  std::string socket() const { return folder / "control"; }

  TemporaryFolder folder;
  FakeGateway gateway;
  std::optional<control::Server> server;
};

/// Bytes by hand; every wait has a bound.
class RawClient {
 public:
  explicit RawClient(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, path.data(), path.size());
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0)
      throw std::system_error(errno, std::system_category(), "connect");
  }
  /// To this host by TCP.
  explicit RawClient(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(port);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0)
      throw std::system_error(errno, std::system_category(), "connect");
  }
  ~RawClient() { close(); }
  RawClient(RawClient&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  RawClient& operator=(RawClient&&) = delete;
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  /// False when the server has closed.
  bool send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  /// What comes until `wanted` is in it, the server closes, or ten seconds have passed.
  std::string receive(std::string_view wanted = "\x01") {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (received_.find(wanted) == std::string::npos && std::chrono::steady_clock::now() < deadline) {
      pollfd one{fd_, POLLIN, 0};
      if (::poll(&one, 1, 100) == 0) continue;
      char chunk[4096];
      const ssize_t got = ::recv(fd_, chunk, sizeof chunk, 0);
      if (got <= 0) {
        closed_ = true;
        break;
      }
      received_.append(chunk, static_cast<std::size_t>(got));
    }
    return received_;
  }
  bool is_closed() const { return closed_; }
  void forget() { received_.clear(); }

 private:
  int fd_;
  std::string received_;
  bool closed_ = false;
};

}  // namespace diskferry::test
