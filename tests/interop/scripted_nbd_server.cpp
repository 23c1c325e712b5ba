#include "tests/interop/scripted_nbd_server.hpp"

#include "tests/support/pattern.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace diskferry::test {
namespace {
struct Over : std::runtime_error {
  Over() : std::runtime_error("the connection is over") {}
};
constexpr std::uint64_t option_magic = 0x49484156454f5054;
constexpr std::uint64_t reply_magic = 0x0003e889045565a9;

std::vector<std::byte> option_reply(std::uint32_t option, std::uint32_t type,
                                    const std::vector<std::byte>& payload = {}) {
  return wire(reply_magic, option, type, static_cast<std::uint32_t>(payload.size())) + payload;
}
std::vector<std::byte> text_bytes(std::string_view text) {
  const auto bytes = as_bytes(text);
  return {bytes.begin(), bytes.end()};
}
}  // namespace

void ScriptedNbdServer::Peer::send(const std::vector<std::byte>& bytes) {
  const std::size_t now = std::min(bytes.size(), left_);
  for (std::size_t at = 0; at < now;) {
    const ssize_t sent = ::send(fd_, bytes.data() + at, trickles_ ? 1 : now - at, MSG_NOSIGNAL);
    if (sent <= 0) throw Over();
    at += static_cast<std::size_t>(sent);
  }
  left_ -= now;
  if (left_ == 0) throw Over();
}

std::vector<std::byte> ScriptedNbdServer::Peer::receive(std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::size_t at = 0; at < count;) {
    const ssize_t got = recv(fd_, bytes.data() + at, count - at, 0);
    if (got <= 0) throw Over();
    at += static_cast<std::size_t>(got);
  }
  return bytes;
}

void ScriptedNbdServer::Peer::simple(const Request& request, std::uint32_t error) {
  send(wire(std::uint32_t{0x67446698}, error, request.cookie));
}

void ScriptedNbdServer::Peer::chunk(const Request& request, std::uint16_t type,
                                    const std::vector<std::byte>& payload, bool is_last) {
  send(wire(std::uint32_t{0x668e33ef}, std::uint16_t{is_last}, type, request.cookie,
            static_cast<std::uint32_t>(payload.size())) +
       payload);
}

void ScriptedNbdServer::Peer::fall_silent() {
  while (true) (void)receive(1);
}

void ScriptedNbdServer::answer_honestly(Peer& peer, const Request& request) {
  if (request.type == 0)
    return peer.chunk(request, 1, wire(request.offset) + pattern(request.offset, request.length), true);
  if (request.type != 7) return peer.simple(request, 0);
  auto extents = wire(std::uint32_t{1});
  const std::uint64_t end = request.offset + request.length;
  for (std::uint64_t at = request.offset; at < end;) {
    const std::uint64_t next = std::min(end, align_down(at, 64 * kib) + 64 * kib);
    extents = extents + wire(static_cast<std::uint32_t>(next - at), (at / (64 * kib)) % 2 == 0 ? 0u : 3u);
    at = next;
  }
  peer.chunk(request, 5, extents, true);
}

ScriptedNbdServer::ScriptedNbdServer(Script script) : script_(std::move(script)) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  const std::string path = folder_ / "socket";
  std::memcpy(name.sun_path, path.data(), std::min(path.size(), sizeof name.sun_path - 1));
  listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(listener_, reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 ||
      listen(listener_, 64) != 0)
    throw std::runtime_error("cannot listen on " + path);
  accepting_ = std::thread([this] { accept_all(); });
}

ScriptedNbdServer::~ScriptedNbdServer() {
  shutdown(listener_, SHUT_RDWR);
  accepting_.join();
  {
    std::lock_guard lock(guard_);
    for (const int fd : open_) shutdown(fd, SHUT_RDWR);
  }
  for (auto& session : sessions_) session.join();
  close(listener_);
}

void ScriptedNbdServer::accept_all() {
  while (true) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    const bool is_first = connections_++ == 0;
    {
      std::lock_guard lock(guard_);
      open_.push_back(fd);
    }
    sessions_.emplace_back([this, fd, is_first] { serve(fd, is_first); });
  }
}

void ScriptedNbdServer::serve(int fd, bool is_first) {
  Peer peer(fd, script_.cuts_once && !is_first ? SIZE_MAX : script_.send_at_most, script_.trickles);
  try {
    negotiate(peer);
    while (true) {
      const auto head = peer.receive(28);
      const Request request{.flags = load_big<std::uint16_t>(head.data() + 4),
                            .type = load_big<std::uint16_t>(head.data() + 6),
                            .cookie = load_big<std::uint64_t>(head.data() + 8),
                            .offset = load_big<std::uint64_t>(head.data() + 16),
                            .length = load_big<std::uint32_t>(head.data() + 24)};
      if (request.type == 1) (void)peer.receive(request.length);
      if (request.type == 2) break;
      script_.answer ? script_.answer(peer, request) : answer_honestly(peer, request);
    }
  } catch (const Over&) {
  }
  std::lock_guard lock(guard_);
  std::erase(open_, fd);
  close(fd);
}

void ScriptedNbdServer::negotiate(Peer& peer) {
  peer.send(wire(std::uint64_t{0x4e42444d41474943}, option_magic, std::uint16_t{3}));
  (void)peer.receive(4);
  while (true) {
    const auto head = peer.receive(16);
    const auto option = load_big<std::uint32_t>(head.data() + 8);
    const auto data = peer.receive(load_big<std::uint32_t>(head.data() + 12));
    if (option == 8 && script_.is_structured) {
      peer.send(option_reply(option, 1));
    } else if (option == 10 && script_.is_structured) {
      peer.send(option_reply(option, 4, wire(std::uint32_t{1}) + text_bytes("base:allocation")));
      peer.send(option_reply(option, 1));
    } else if (option == 7) {
      peer.send(option_reply(option, 3, wire(std::uint16_t{0}, script_.size_bytes, script_.flags)));
      if (script_.block_sizes) {
        const auto [minimum, preferred, maximum] = *script_.block_sizes;
        peer.send(option_reply(option, 3, wire(std::uint16_t{3}, minimum, preferred, maximum)));
      }
      return peer.send(option_reply(option, 1));
    } else {
      peer.send(option_reply(option, (1u << 31) + 1));
    }
  }
}

}  // namespace diskferry::test
