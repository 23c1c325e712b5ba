#include "tests/support/proxy.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace diskferry::test {
namespace {
sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  return address;
}
int listening(int fd, const sockaddr* address, socklen_t length) {
  if (fd < 0 || bind(fd, address, length) != 0 || listen(fd, 16) != 0)
    throw std::runtime_error("the proxy cannot listen");
  return fd;
}
bool send_all(int fd, const std::byte* from, std::size_t length) {
  while (length != 0) {
    const ssize_t sent = send(fd, from, length, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    from += sent;
    length -= static_cast<std::size_t>(sent);
  }
  return true;
}
}  // namespace

Proxy::Listener Proxy::listen_at(const std::string& path) {
  const auto address = address_of(path);
  return {.fd = listening(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
                          reinterpret_cast<const sockaddr*>(&address), sizeof address)};
}

Proxy::Listener Proxy::listen_on_loopback() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = listening(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
                           reinterpret_cast<const sockaddr*>(&address), sizeof address);
  // Those who are accepted have it, too.
  const int at_once = 1;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
  socklen_t length = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0)
    throw std::runtime_error("the proxy has no port");
  return {.fd = fd, .port = ntohs(address.sin_port)};
}

Proxy::Proxy(std::string listen_path, std::string server_path)
    : Proxy(listen_at(listen_path), std::move(server_path)) {}

Proxy::Proxy(OnTcp, std::string server_path) : Proxy(listen_on_loopback(), std::move(server_path)) {}

Proxy::Proxy(Listener listener, std::string server_path)
    : server_path_(std::move(server_path)), listener_(listener) {
  thread_ = std::thread([this] { accept_all(); });
}

Proxy::~Proxy() {
  ended_.store(true);
  shutdown(listener_.fd, SHUT_RDWR);
  thread_.join();
  cut_all();
  for (auto& pair : pairs_) {
    pair.thread.join();
    close(pair.client);
    close(pair.server);
  }
  close(listener_.fd);
}

void Proxy::accept_all() {
  while (!ended_.load()) {
    const int client = accept4(listener_.fd, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) continue;
    const int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const auto address = address_of(server_path_);
    if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      close(server);
      close(client);
      continue;
    }
    std::lock_guard lock(guard_);
    Pair& pair = pairs_.emplace_back();
    pair.client = client;
    pair.server = server;
    pair.thread = std::thread([this, &pair] { forward(pair); });
    made_.fetch_add(1);
  }
}

/// Requests begin with a magic number that is looked for; one that lies across two chunks is not seen.
bool Proxy::falls_silent(std::span<const std::byte> from_client) const {
  if (!is_silent_from) return false;
  constexpr std::array magic{std::byte{0x25}, std::byte{0x60}, std::byte{0x95}, std::byte{0x13}};
  constexpr std::size_t type_at = 6;
  bool falls = false;
  while (true) {
    const auto found = std::ranges::search(from_client, magic);
    if (found.empty()) return falls;
    from_client = from_client.subspan(static_cast<std::size_t>(found.begin() - from_client.begin()));
    if (from_client.size() < type_at + 2) return falls;
    const auto type = std::to_integer<unsigned>(from_client[type_at]) << 8 |
                      std::to_integer<unsigned>(from_client[type_at + 1]);
    falls = is_silent_from(static_cast<std::uint16_t>(type)) || falls;
    from_client = from_client.subspan(magic.size());
  }
}

void Proxy::forward(Pair& pair) {
  std::array<std::byte, 65536> chunk;
  while (!ended_.load()) {
    if (silent_.load()) {
      poll(nullptr, 0, 5);
      continue;
    }
    std::array<pollfd, 2> fds{{{pair.client, POLLIN, 0}, {pair.server, POLLIN, 0}}};
    if (poll(fds.data(), fds.size(), 20) <= 0) continue;
    for (std::size_t i = 0; i < fds.size(); ++i) {
      if (fds[i].revents == 0 || silent_.load()) continue;
      const ssize_t got = recv(fds[i].fd, chunk.data(), chunk.size(), 0);
      if (i == 0 && got > 0 && falls_silent(std::span(chunk).first(static_cast<std::size_t>(got)))) {
        silent_.store(true);
        break;
      }
      if (got <= 0 || !send_all(fds[1 - i].fd, chunk.data(), static_cast<std::size_t>(got))) {
        shutdown(pair.client, SHUT_RDWR);
        shutdown(pair.server, SHUT_RDWR);
        return;
      }
      pair.bytes.fetch_add(static_cast<std::uint64_t>(got));
    }
  }
}

std::uint64_t Proxy::forwarded(std::size_t connection) {
  std::lock_guard lock(guard_);
  for (auto& pair : pairs_) {
    if (connection-- == 0) return pair.bytes.load();
  }
  return 0;
}

void Proxy::cut(std::size_t connection) {
  std::lock_guard lock(guard_);
  std::size_t number = 0;
  for (auto& pair : pairs_) {
    if (number++ != connection) continue;
    shutdown(pair.client, SHUT_RDWR);
    shutdown(pair.server, SHUT_RDWR);
  }
}
void Proxy::cut_all() {
  std::lock_guard lock(guard_);
  for (auto& pair : pairs_) {
    shutdown(pair.client, SHUT_RDWR);
    shutdown(pair.server, SHUT_RDWR);
  }
}

}  // namespace diskferry::test
