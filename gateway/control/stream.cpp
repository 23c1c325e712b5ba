// The streams of the NBD server's connections, with the waiting done here.
#include "gateway/control/stream.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "gateway/nbd/listener.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace diskferry::control {
namespace {
using Status = nbd_server::Stream::Status;

/// Whether TLS ended over who somebody is, at either end.
bool is_verdict(std::string_view problem) {
  return problem.contains("certificate") || problem.contains("unknown ca");
}
constexpr const char* verdict_remedy =
    "the certificates of both ends must be signed by one authority, see diskferryd(8)";

class SocketStream final : public ByteStream {
 public:
  explicit SocketStream(std::unique_ptr<nbd_server::Stream> stream, std::string peer_name = {})
      : stream_(std::move(stream)), peer_name_(std::move(peer_name)) {}

  Task<Result<std::size_t>> read_some(std::span<std::byte> into) override {
    while (true) {
      const auto got = stream_->read_some(into);
      switch (got.status) {
        case Status::done:
          co_return got.bytes;
        case Status::ended:
          co_return std::size_t{0};
        case Status::failed:
          co_return unexpected(broken("receive"));
        case Status::would_block:
          break;
      }
      if (co_await is_cancelled() || !co_await stream_->wait_readable())
        co_return unexpected(cancelled_error("receive"));
    }
  }

  Task<Result<void>> write(std::span<const std::byte> from) override {
    while (!from.empty() || stream_->has_pending()) {
      const iovec part{const_cast<std::byte*>(from.data()), from.size()};
      const auto sent =
          stream_->write_some(from.empty() ? std::span<const iovec>{} : std::span<const iovec>(&part, 1));
      if (sent.status == Status::failed || sent.status == Status::ended) co_return unexpected(broken("send"));
      from = from.subspan(sent.bytes);
      if (from.empty() && !stream_->has_pending()) break;
      if (sent.status == Status::done && sent.bytes != 0 && !stream_->has_pending()) continue;
      if (co_await is_cancelled() || !co_await stream_->wait_writable())
        co_return unexpected(cancelled_error("send"));
    }
    co_return Result<void>{};
  }

  bool is_disturbed() override {
    std::byte one;
    return stream_->read_some({&one, 1}).status != Status::would_block;
  }
  void say_goodbye() override { stream_->say_goodbye(); }
  std::string peer_name() const override { return peer_name_; }

 private:
  Error broken(std::string operation) const {
    const std::string& problem = stream_->problem();
    if (is_verdict(problem))
      return fail(ErrorKind::permission, std::move(operation)).why(problem).remedy(verdict_remedy);
    const bool is_tls = problem.starts_with("TLS");
    return fail(is_tls ? ErrorKind::protocol : ErrorKind::gone, std::move(operation)).why(problem);
  }
  std::unique_ptr<nbd_server::Stream> stream_;
  const std::string peer_name_;
};

struct Resolved {
  int error = 0;
  std::vector<std::pair<sockaddr_storage, socklen_t>> addresses{};
};
Resolved resolve(const std::string& host, std::uint16_t port) {
  Resolved resolved;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  resolved.error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (resolved.error != 0) return resolved;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    auto& [storage, length] = resolved.addresses.emplace_back();
    std::memcpy(&storage, one->ai_addr, one->ai_addrlen);
    length = one->ai_addrlen;
  }
  freeaddrinfo(found);
  return resolved;
}

/// One address of a host. Errors: as connect(2).
Task<Result<std::unique_ptr<nbd_server::Stream>>> connect_to(const sockaddr* address, socklen_t length) {
  const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) co_return unexpected(errno_error(errno, "connect"));
  const int failed = ::connect(fd, address, length) == 0 ? 0 : errno;
  auto stream = nbd_server::Stream::make(co_await boost::asio::this_coro::executor, fd, fd);
  if (!stream) co_return unexpected(std::move(stream).error());
  // A UNIX socket whose server is behind with accepting says EAGAIN and cannot be waited for.
  if (failed != 0 && failed != EINPROGRESS) co_return unexpected(errno_error(failed, "connect"));
  if (failed == 0) co_return std::move(*stream);
  if (co_await is_cancelled() || !co_await (*stream)->wait_writable())
    co_return unexpected(cancelled_error("connect"));
  int outcome = 0;
  socklen_t outcome_length = sizeof outcome;
  (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &outcome, &outcome_length);
  if (outcome != 0) co_return unexpected(errno_error(outcome, "connect"));
  nbd_server::set_up_connection(fd, std::chrono::seconds(60));
  co_return std::move(*stream);
}

}  // namespace

std::unique_ptr<ByteStream> make_stream(std::unique_ptr<nbd_server::Stream> stream) {
  return std::make_unique<SocketStream>(std::move(stream));
}

Result<std::unique_ptr<ByteStream>> make_stream(const Executor& executor, int in, int out) {
  DISKFERRY_TRY(auto stream, nbd_server::Stream::make(executor, in, out));
  return make_stream(std::move(stream));
}

Task<Result<std::unique_ptr<ByteStream>>> connect_unix(std::string path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof name.sun_path)
    co_return unexpected(
        fail(ErrorKind::invalid_argument, "connect", printable(path)).why("the path is too long"));
  std::memcpy(name.sun_path, path.data(), path.size());
  auto connected = co_await connect_to(reinterpret_cast<const sockaddr*>(&name), sizeof name);
  if (!connected) co_return unexpected(std::move(connected).error().object(printable(path)));
  co_return make_stream(std::move(*connected));
}

namespace {
/// What a failed handshake says of the certificates.
Error refused_tls(const Error& error, const GatewayAddress& address) {
  const std::string& why = error.why();
  if (error.kind() == ErrorKind::cancelled) return error;
  const bool is_refusal = is_verdict(why);
  return fail(is_refusal ? ErrorKind::permission : error.kind(), "connect", address.to_string())
      .why(fmt::format("TLS: {}", why.empty() ? "the gateway left" : why))
      .remedy(is_refusal ? verdict_remedy : "");
}
}  // namespace

Task<Result<std::unique_ptr<ByteStream>>> connect_tls(DriverContext& context, GatewayAddress address,
                                                      std::shared_ptr<nbd_server::TlsContext> tls) {
  const Resolved resolved = co_await context.blocking_pool.run(
      [host = address.host, port = address.port] { return resolve(host, port); });
  if (resolved.error != 0)
    co_return unexpected(
        fail(ErrorKind::not_found, "connect", address.to_string()).why(gai_strerror(resolved.error)));
  Error last = fail(ErrorKind::not_found, "connect", address.to_string()).why("the name has no address");
  for (const auto& [storage, length] : resolved.addresses) {
    auto connected = co_await connect_to(reinterpret_cast<const sockaddr*>(&storage), length);
    if (connected) {
      const auto proved = co_await (*connected)->start_tls(*tls);
      if (!proved) co_return unexpected(refused_tls(proved.error(), address));
      co_return std::make_unique<SocketStream>(std::move(*connected),
                                               proved->names.empty() ? std::string() : proved->names.front());
    }
    last = std::move(connected).error().object(address.to_string());
    if (last.kind() == ErrorKind::cancelled) break;
  }
  co_return unexpected(std::move(last));
}

}  // namespace diskferry::control
