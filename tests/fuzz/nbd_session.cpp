// A whole session over a socket pair, on a reactor of its own: negotiation as the first byte says, then the
// input as requests. The session must end when its client has sent everything and hung up.
#include "drivers/checked_device.hpp"
#include "drivers/memory/memory_device.hpp"
#include "gateway/nbd/session.hpp"

#include <cstdlib>
#include <cstring>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>

using namespace diskferry;
using namespace diskferry::nbd_server;

namespace {
void put(std::string& to, std::uint64_t value, unsigned bytes) {
  while (bytes-- > 0) to.push_back(static_cast<char>(value >> (8 * bytes)));
}
std::string option(Option which, std::string_view data = {}) {
  std::string bytes;
  put(bytes, option_magic, 8);
  put(bytes, static_cast<std::uint32_t>(which), 4);
  put(bytes, data.size(), 4);
  return bytes.append(data);
}
std::string preamble(ReplyStyle style) {
  std::string bytes;
  put(bytes, 3, 4);
  if (style == ReplyStyle::structured) bytes += option(Option::structured_reply);
  if (style == ReplyStyle::extended) bytes += option(Option::extended_headers);
  if (style != ReplyStyle::simple) {
    std::string contexts;
    put(contexts, 0, 4);
    put(contexts, 1, 4);
    put(contexts, 15, 4);
    bytes += option(Option::set_meta_context, contexts + "base:allocation");
  }
  return bytes + option(Option::go, std::string_view("\0\0\0\0\0\0", 6));
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1 || size > 60'000) return 0;
  boost::asio::io_context reactor{1};
  const Executor executor = reactor.get_executor();
  ExportTable exports;
  auto made =
      Export::make({.name = "d", .writable = true},
                   std::shared_ptr<BlockDevice>(checked(make_memory_device({.size_bytes = 300'001}))));
  if (!made || !exports.add(*made)) std::abort();
  Limits limits;
  limits.stall_time = std::chrono::milliseconds(200);
  limits.linger_time = {};
  limits.drain_time = std::chrono::milliseconds(200);
  BufferPool buffers(8u << 20);
  SystemClock clock;
  SessionContext context{
      .exports = exports, .limits = limits, .tls = nullptr, .buffers = buffers, .clock = clock};
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  const std::string before = preamble(static_cast<ReplyStyle>(data[0] % 3));
  if (send(ends[0], before.data(), before.size(), MSG_DONTWAIT) != static_cast<ssize_t>(before.size()))
    std::abort();
  if (send(ends[0], data + 1, size - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && size > 1) std::abort();
  shutdown(ends[0], SHUT_WR);
  {
    auto stream = Stream::make(executor, ends[1], ends[1]);
    if (!stream) std::abort();
    auto session =
        std::make_shared<Session>(context, *std::move(stream), SessionOptions{.executor = executor});
    boost::asio::co_spawn(executor, top_frame(session->run()),
                          [session](std::exception_ptr thrown, const Result<void>&) {
                            if (thrown) std::abort();
                          });
    reactor.run();
  }
  close(ends[0]);
  if (buffers.leased_bytes() != 0) std::abort();
  return 0;
}
