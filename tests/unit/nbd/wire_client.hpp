// A client that speaks NBD by hand, so that it can break every rule: blocking, one descriptor, with a time
// limit on every receive. For tests of the server only.
#pragma once

#include "diskferry/units.hpp"
#include "gateway/nbd/codec.hpp"
#include "gateway/nbd/protocol.hpp"
#include "gateway/nbd/server.hpp"
#include "tests/support/test_runtime.hpp"

#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

namespace diskferry::test {
using namespace diskferry::nbd_server;

using Bytes = std::vector<std::byte>;

template <class T>
void put(Bytes& to, T value) {
  const std::size_t at = to.size();
  to.resize(at + sizeof value);
  store_big(to.data() + at, value);
}
inline void put_text(Bytes& to, std::string_view text) {
  for (const char c : text) to.push_back(static_cast<std::byte>(c));
}
inline Bytes option_bytes(Option option, const Bytes& data = {}) {
  Bytes bytes;
  put(bytes, option_magic);
  put(bytes, static_cast<std::uint32_t>(option));
  put(bytes, static_cast<std::uint32_t>(data.size()));
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}
inline Bytes go_data(std::string_view name, std::vector<Info> asked = {}) {
  Bytes data;
  put(data, static_cast<std::uint32_t>(name.size()));
  put_text(data, name);
  put(data, static_cast<std::uint16_t>(asked.size()));
  for (const Info info : asked) put(data, static_cast<std::uint16_t>(info));
  return data;
}
inline Bytes context_data(std::string_view name, const std::vector<std::string>& queries) {
  Bytes data;
  put(data, static_cast<std::uint32_t>(name.size()));
  put_text(data, name);
  put(data, static_cast<std::uint32_t>(queries.size()));
  for (const auto& query : queries) {
    put(data, static_cast<std::uint32_t>(query.size()));
    put_text(data, query);
  }
  return data;
}

struct OptionAnswer {
  OptionReply type{};
  Bytes data;
  std::string text() const { return {reinterpret_cast<const char*>(data.data()), data.size()}; }
};
/// A reply of any style: simple ones have is_chunk false.
struct ReplyMessage {
  bool is_chunk = false;
  std::uint64_t cookie = 0;
  std::uint32_t error = 0;  // of a simple reply or an error chunk
  std::uint16_t flags = 0;
  Chunk type = Chunk::none;
  Bytes payload;  // of a chunk
};

/// What the server closed instead of answering.
struct Disconnected : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class WireClient {
 public:
  explicit WireClient(const std::string& path) {
    fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, path.c_str(), std::min(path.size() + 1, sizeof name.sun_path));
    if (connect(fd_, reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0)
      throw std::system_error(errno, std::system_category(), path);
    limit_waits();
  }
  explicit WireClient(int connected) : fd_(connected) { limit_waits(); }
  WireClient(WireClient&& other) noexcept : style(other.style), fd_(std::exchange(other.fd_, -1)) {}
  WireClient& operator=(WireClient&&) = delete;
  ~WireClient() { hang_up(); }
  void hang_up() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  int fd() const { return fd_; }

  void send_bytes(const Bytes& bytes) {
    std::size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t sent = send(fd_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      if (sent <= 0) throw Disconnected("the server does not take what is sent");
      done += static_cast<std::size_t>(sent);
    }
  }
  Bytes receive(std::size_t count) {
    Bytes bytes(count);
    std::size_t done = 0;
    while (done < count) {
      const ssize_t got = recv(fd_, bytes.data() + done, count - done, 0);
      if (got <= 0) throw Disconnected(got == 0 ? "closed" : "no answer in time");
      done += static_cast<std::size_t>(got);
    }
    return bytes;
  }
  template <class T>
  T receive_number() {
    return load_big<T>(receive(sizeof(T)).data());
  }
  /// True when the server has closed; false when it sends something or nothing happens for a while.
  bool is_closed() {
    std::byte one{};
    const ssize_t got = recv(fd_, &one, 1, 0);
    return got == 0 || (got < 0 && errno == ECONNRESET);
  }

  void greet(std::uint32_t flags = handshake_fixed_newstyle | handshake_no_zeroes) {
    const Bytes hello = receive(18);
    if (load_big<std::uint64_t>(hello.data()) != greeting_magic) throw std::runtime_error("no greeting");
    Bytes bytes;
    put(bytes, flags);
    send_bytes(bytes);
  }
  OptionAnswer receive_answer() {
    const Bytes head = receive(option_reply_header_bytes);
    if (load_big<std::uint64_t>(head.data()) != option_reply_magic)
      throw std::runtime_error("no option reply");
    OptionAnswer answer;
    answer.type = static_cast<OptionReply>(load_big<std::uint32_t>(head.data() + 12));
    answer.data = receive(load_big<std::uint32_t>(head.data() + 16));
    return answer;
  }
  /// Sends an option and returns all answers, the last of which is ACK or an error.
  std::vector<OptionAnswer> ask(Option option, const Bytes& data = {}) {
    send_bytes(option_bytes(option, data));
    std::vector<OptionAnswer> answers;
    while (true) {
      answers.push_back(receive_answer());
      const auto type = static_cast<std::uint32_t>(answers.back().type);
      if (answers.back().type == OptionReply::ack || type >= (1u << 31)) return answers;
    }
  }
  OptionReply ask_once(Option option, const Bytes& data = {}) { return ask(option, data).back().type; }
  /// Greets, agrees on a style, selects contexts, enters; returns the transmission flags.
  std::uint16_t enter(std::string_view name, ReplyStyle wanted,
                      const std::vector<std::string>& contexts = {}) {
    greet();
    if (wanted == ReplyStyle::structured) ask_once(Option::structured_reply);
    if (wanted == ReplyStyle::extended) ask_once(Option::extended_headers);
    style = wanted;
    if (!contexts.empty()) {
      for (const auto& answer : ask(Option::set_meta_context, context_data(name, contexts))) {
        if (answer.type == OptionReply::meta_context)
          context_ids.push_back(load_big<std::uint32_t>(answer.data.data()));
      }
    }
    std::uint16_t flags = 0;
    for (const auto& answer : ask(Option::go, go_data(name, {Info::block_size}))) {
      if (answer.type == OptionReply::info && load_big<std::uint16_t>(answer.data.data()) == 0) {
        size_bytes = load_big<std::uint64_t>(answer.data.data() + 2);
        flags = load_big<std::uint16_t>(answer.data.data() + 10);
      }
    }
    return flags;
  }

  Bytes request_bytes(const Request& request) const {
    Bytes bytes;
    put(bytes, style == ReplyStyle::extended ? extended_request_magic : request_magic);
    put(bytes, request.flags);
    put(bytes, request.type);
    put(bytes, request.cookie);
    put(bytes, request.offset);
    if (style == ReplyStyle::extended) {
      put(bytes, request.length);
    } else {
      put(bytes, static_cast<std::uint32_t>(request.length));
    }
    return bytes;
  }
  void send_request(Command command, std::uint16_t flags, std::uint64_t offset, std::uint64_t length,
                    const Bytes& payload = {}) {
    if (command == Command::write && style == ReplyStyle::extended) flags |= command_payload_len;
    Bytes bytes = request_bytes({.flags = flags,
                                 .type = static_cast<std::uint16_t>(command),
                                 .cookie = ++cookie,
                                 .offset = offset,
                                 .length = length});
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    send_bytes(bytes);
  }
  /// One reply message. The data of a simple read are to be received by the caller.
  ReplyMessage receive_reply() {
    ReplyMessage reply;
    const auto magic = receive_number<std::uint32_t>();
    if (magic == simple_reply_magic) {
      reply.error = receive_number<std::uint32_t>();
      reply.cookie = receive_number<std::uint64_t>();
      return reply;
    }
    if (magic != structured_reply_magic && magic != extended_reply_magic)
      throw std::runtime_error("a reply without its magic");
    reply.is_chunk = true;
    reply.flags = receive_number<std::uint16_t>();
    reply.type = static_cast<Chunk>(receive_number<std::uint16_t>());
    reply.cookie = receive_number<std::uint64_t>();
    if (magic == extended_reply_magic) {
      reply_offset = receive_number<std::uint64_t>();
      reply.payload = receive(receive_number<std::uint64_t>());
    } else {
      reply.payload = receive(receive_number<std::uint32_t>());
    }
    if (reply.type == Chunk::error || reply.type == Chunk::error_offset)
      reply.error = load_big<std::uint32_t>(reply.payload.data());
    return reply;
  }
  std::vector<ReplyMessage> receive_replies() {
    std::vector<ReplyMessage> replies;
    do {
      replies.push_back(receive_reply());
    } while (replies.back().is_chunk && (replies.back().flags & chunk_done) == 0);
    return replies;
  }
  /// Sends a request without data in the reply and returns the error number.
  std::uint32_t call(Command command, std::uint16_t flags, std::uint64_t offset, std::uint64_t length,
                     const Bytes& payload = {}) {
    send_request(command, flags, offset, length, payload);
    return receive_replies().back().error;
  }
  /// Reads and puts the chunks together; throws std::system_error with the server's error.
  Bytes read(std::uint64_t offset, std::uint32_t length, std::uint16_t flags = 0) {
    send_request(Command::read, flags, offset, length);
    if (style == ReplyStyle::simple) {
      const auto reply = receive_reply();
      if (reply.error != 0) throw std::system_error(static_cast<int>(reply.error), std::system_category());
      return receive(length);
    }
    Bytes data(length, std::byte{0xee});
    chunks_seen = 0;
    holes_seen = 0;
    for (const auto& chunk : receive_replies()) {
      if (chunk.error != 0) throw std::system_error(static_cast<int>(chunk.error), std::system_category());
      if (chunk.type == Chunk::none) continue;
      ++chunks_seen;
      const auto at = load_big<std::uint64_t>(chunk.payload.data()) - offset;
      if (chunk.type == Chunk::offset_hole) {
        ++holes_seen;
        std::memset(data.data() + at, 0, load_big<std::uint32_t>(chunk.payload.data() + 8));
      } else {
        std::memcpy(data.data() + at, chunk.payload.data() + 8, chunk.payload.size() - 8);
      }
    }
    return data;
  }

  ReplyStyle style = ReplyStyle::simple;
  std::vector<std::uint32_t> context_ids;
  std::uint64_t size_bytes = 0;
  std::uint64_t cookie = 0;
  std::uint64_t reply_offset = 0;
  int chunks_seen = 0;
  int holes_seen = 0;

 private:
  void limit_waits() {
    const timeval limit{20, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  }
  int fd_ = -1;
};

}  // namespace diskferry::test
