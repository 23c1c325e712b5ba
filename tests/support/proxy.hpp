// Proxy: stands between a client, on a UNIX socket or TCP, and a UNIX-socket server and breaks what real
// servers do not break on demand: one connection of several, or all of them going silent.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <span>
#include <string>
#include <thread>

namespace diskferry::test {

class Proxy {
 public:
  /// Listens at `listen_path` and forwards each connection to `server_path`.
  Proxy(std::string listen_path, std::string server_path);
  /// Listens at port() of loopback.
  struct OnTcp {};
  Proxy(OnTcp on_tcp, std::string server_path);
  ~Proxy();
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  /// 0 where it listens at a path.
  std::uint16_t port() const { return listener_.port; }
  /// Connections made so far.
  std::size_t connections() const { return made_.load(); }
  /// Bytes forwarded for a connection, both ways together.
  std::uint64_t forwarded(std::size_t connection);
  /// Ends the connection of that number (from 0) both ways.
  void cut(std::size_t connection);
  void cut_all();
  /// From now on nothing is forwarded, in either direction; new connections are accepted and stay silent.
  void silence(bool silent) { silent_.store(silent); }
  /// Told the type of each NBD request before it is forwarded; true: silence, from that request on. Set
  /// before clients connect. Thread: each connection's.
  std::function<bool(std::uint16_t type)> is_silent_from{};

 private:
  struct Pair {
    int client = -1;
    int server = -1;
    std::atomic<std::uint64_t> bytes = 0;
    std::thread thread;
  };
  void accept_all();
  void forward(Pair& pair);
  bool falls_silent(std::span<const std::byte> from_client) const;

  struct Listener {
    int fd = -1;
    std::uint16_t port = 0;
  };
  static Listener listen_at(const std::string& path);
  static Listener listen_on_loopback();
  Proxy(Listener listener, std::string server_path);

  const std::string server_path_;
  const Listener listener_;
  std::atomic<bool> silent_ = false;
  std::atomic<bool> ended_ = false;
  std::atomic<std::size_t> made_ = 0;
  std::mutex guard_;
  std::list<Pair> pairs_;
  std::thread thread_;
};

}  // namespace diskferry::test
