// A server that says what the test tells it to, by hand: what real ones cannot be brought to say. Each
// connection has a thread of its own; everything ends with the object.
#pragma once

#include "diskferry/units.hpp"
#include "tests/support/test_runtime.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace diskferry::test {

class ScriptedNbdServer {
 public:
  struct Request {
    std::uint16_t flags = 0;
    std::uint16_t type = 0;
    std::uint64_t cookie = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
  };
  /// One connection, as the script sees it. Every function throws once the connection is over.
  class Peer {
   public:
    Peer(int fd, std::size_t send_at_most, bool trickles)
        : fd_(fd), left_(send_at_most), trickles_(trickles) {}
    void send(const std::vector<std::byte>& bytes);
    std::vector<std::byte> receive(std::size_t count);
    void simple(const Request& request, std::uint32_t error);
    /// A chunk of a structured reply.
    void chunk(const Request& request, std::uint16_t type, const std::vector<std::byte>& payload,
               bool is_last);
    /// Until the other end goes away.
    void fall_silent();

   private:
    int fd_;
    std::size_t left_;
    bool trickles_;
  };
  struct Script {
    std::uint64_t size_bytes = 1 << 20;
    std::uint16_t flags = 0x1 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80 | 0x800;  // FLUSH FUA TRIM ZEROES DF FAST_ZERO
    std::optional<std::array<std::uint32_t, 3>> block_sizes{};
    bool is_structured = true;
    /// After so many bytes a connection is cut; the first one only where `cuts_once`.
    std::size_t send_at_most = SIZE_MAX;
    bool cuts_once = false;
    bool trickles = false;
    /// Answers a request; by default an honest disk of the pattern that has extents of 64 KiB.
    std::function<void(Peer&, const Request&)> answer{};
  };

  explicit ScriptedNbdServer(Script script);
  ~ScriptedNbdServer();
  std::string uri(const std::string& more = {}) const {
    return "nbd+unix:///disk?socket=" + (folder_ / "socket") + more;
  }
  int connections() const { return connections_; }

  static void answer_honestly(Peer& peer, const Request& request);

 private:
  void accept_all();
  void serve(int fd, bool is_first);
  void negotiate(Peer& peer);

  TemporaryFolder folder_;
  const Script script_;
  int listener_ = -1;
  std::atomic<int> connections_ = 0;
  std::mutex guard_;
  std::vector<int> open_;              // guard_
  std::vector<std::thread> sessions_;  // accept_all()'s, then the destructor's
  std::thread accepting_;
};

/// Bytes of numbers, most significant first.
template <class... T>
std::vector<std::byte> wire(T... values) {
  std::vector<std::byte> bytes((sizeof(T) + ...));
  std::byte* at = bytes.data();
  ((store_big(at, values), at += sizeof(T)), ...);
  return bytes;
}
inline std::vector<std::byte> operator+(std::vector<std::byte> first, const std::vector<std::byte>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

}  // namespace diskferry::test
