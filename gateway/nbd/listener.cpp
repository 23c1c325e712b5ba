// Sockets that listen.
#include "gateway/nbd/listener.hpp"

#include "drivers/support/blocking_pool.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry::nbd_server {
namespace asio = boost::asio;
namespace {

constexpr int backlog = 128;

/// Closes on the way out, unless released.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

Error listen_error(int error_number, const ListenAddress& address) {
  Error error = errno_error(error_number, "listen", address.to_uri());
  if (error_number == EADDRINUSE)
    return fail(ErrorKind::in_use, "listen", address.to_uri())
        .cause(errno_code(error_number))
        .remedy("another server listens there; choose another address with --listen");
  return error;
}

ListenAddress name_of(int socket) {
  ListenAddress address;
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return address;
  if (storage.ss_family == AF_UNIX) {
    address.kind = ListenAddress::Kind::unix_socket;
    const auto& name = reinterpret_cast<const sockaddr_un&>(storage);
    const std::size_t path_bytes =
        length > offsetof(sockaddr_un, sun_path) ? length - offsetof(sockaddr_un, sun_path) : 0;
    address.path.assign(name.sun_path, strnlen(name.sun_path, path_bytes));
    return address;
  }
  char text[INET6_ADDRSTRLEN] = "";
  if (storage.ss_family == AF_INET6) {
    const auto& name = reinterpret_cast<const sockaddr_in6&>(storage);
    inet_ntop(AF_INET6, &name.sin6_addr, text, sizeof text);
    address.port = ntohs(name.sin6_port);
  } else if (storage.ss_family == AF_INET) {
    const auto& name = reinterpret_cast<const sockaddr_in&>(storage);
    inet_ntop(AF_INET, &name.sin_addr, text, sizeof text);
    address.port = ntohs(name.sin_port);
  }
  address.host = text;
  return address;
}

struct Resolved {
  int error = 0;
  std::vector<sockaddr_storage> addresses;
  std::vector<socklen_t> lengths;
};
Resolved resolve(std::string host, std::uint16_t port) {
  Resolved resolved;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  resolved.error =
      getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (resolved.error != 0) return resolved;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    sockaddr_storage storage{};
    std::memcpy(&storage, one->ai_addr, one->ai_addrlen);
    resolved.addresses.push_back(storage);
    resolved.lengths.push_back(one->ai_addrlen);
  }
  freeaddrinfo(found);
  return resolved;
}

void set_port(sockaddr_storage& address, std::uint16_t port) {
  if (address.ss_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6&>(address).sin6_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in&>(address).sin_port = htons(port);
  }
}

void set_option(int socket, int level, int option, int value) {
  (void)setsockopt(socket, level, option, &value, sizeof value);
}

/// True when a UNIX socket is there and nobody listens on it: left behind by a server that died.
bool is_stale(const sockaddr_un& name) {
  struct stat status{};
  if (lstat(name.sun_path, &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
  const Socket probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return connect(probe.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 &&
         errno == ECONNREFUSED;
}

}  // namespace

Listener::Listener(const Executor& executor, int socket, ListenAddress address)
    : descriptor_(executor, socket), socket_(socket), address_(std::move(address)) {
  const int flags = fcntl(socket, F_GETFL);
  if (flags >= 0) fcntl(socket, F_SETFL, flags | O_NONBLOCK);
}

Listener::~Listener() {
  if (!owns_path_) return;
  struct stat status{};
  if (lstat(address_.path.c_str(), &status) == 0 && status.st_dev == path_device_ &&
      status.st_ino == path_inode_)
    unlink(address_.path.c_str());
}

Result<std::unique_ptr<Listener>> Listener::adopt(const Executor& executor, int socket) {
  int listening = 0;
  socklen_t length = sizeof listening;
  if (getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0 || listening == 0) {
    close(socket);
    return unexpected(fail(ErrorKind::invalid_argument, "listen", fmt::format("descriptor {}", socket))
                          .why("it is no socket that listens"));
  }
  return std::unique_ptr<Listener>(new Listener(executor, socket, name_of(socket)));
}

Result<std::unique_ptr<Listener>> Listener::bind_unix(const Executor& executor, ListenAddress address) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, address.path.data(), std::min(address.path.size(), sizeof name.sun_path - 1));
  Socket made(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (made.get() < 0) return unexpected(listen_error(errno, address));
  const auto bind_once = [&] {
    return ::bind(made.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0 ? 0 : errno;
  };
  int failed = bind_once();
  if (failed == EADDRINUSE && is_stale(name) && unlink(name.sun_path) == 0) failed = bind_once();
  if (failed != 0) return unexpected(listen_error(failed, address));
  struct stat status{};
  const bool owns = lstat(name.sun_path, &status) == 0;
  const int fd = made.release();
  auto listener = std::unique_ptr<Listener>(new Listener(executor, fd, std::move(address)));
  listener->owns_path_ = owns;
  listener->path_device_ = status.st_dev;
  listener->path_inode_ = status.st_ino;
  if (::listen(fd, backlog) != 0) return unexpected(listen_error(errno, listener->address_));
  return listener;
}

Task<Result<std::vector<std::unique_ptr<Listener>>>> Listener::bind(DriverContext& context, Executor executor,
                                                                    ListenAddress address) {
  std::vector<std::unique_ptr<Listener>> bound;
  if (address.kind == ListenAddress::Kind::unix_socket) {
    DISKFERRY_CO_TRY(auto listener, bind_unix(executor, std::move(address)));
    bound.push_back(std::move(listener));
    co_return bound;
  }
  Resolved resolved = co_await context.blocking_pool.run(
      [host = address.host, port = address.port] { return resolve(host, port); });
  if (resolved.error != 0)
    co_return unexpected(
        fail(ErrorKind::not_found, "listen", address.to_uri()).why(gai_strerror(resolved.error)));
  int failed = 0;
  std::uint16_t port = address.port;
  for (std::size_t i = 0; i < resolved.addresses.size(); ++i) {
    sockaddr_storage name = resolved.addresses[i];
    set_port(name, port);
    Socket made(socket(name.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (made.get() < 0) {
      failed = errno;
      continue;
    }
    set_option(made.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (name.ss_family == AF_INET6) set_option(made.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (::bind(made.get(), reinterpret_cast<const sockaddr*>(&name), resolved.lengths[i]) != 0 ||
        ::listen(made.get(), backlog) != 0) {
      failed = errno;
      // A host without IPv6 still knows the address; one that is taken is an error.
      if (failed == EADDRINUSE) co_return unexpected(listen_error(failed, address));
      continue;
    }
    ListenAddress actual = name_of(made.get());
    actual.tls = address.tls;
    port = actual.port;
    bound.push_back(std::unique_ptr<Listener>(new Listener(executor, made.release(), std::move(actual))));
  }
  if (bound.empty()) co_return unexpected(listen_error(failed, address));
  co_return bound;
}

Task<Result<int>> Listener::accept() {
  while (!cancelled_) {
    const int fd = accept4(socket_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) co_return fd;
    switch (errno) {
      case EAGAIN: {
        boost::system::error_code error;
        co_await descriptor_.async_wait(asio::posix::descriptor_base::wait_read,
                                        asio::redirect_error(asio::use_awaitable_t<Executor>{}, error));
        if (error) co_return unexpected(cancelled_error("accept"));
        break;
      }
      case EMFILE:
      case ENFILE:
      case ENOBUFS:
      case ENOMEM:
        co_return unexpected(
            fail(ErrorKind::too_large, "accept", address_.to_uri()).cause(errno_code(errno)));
      case EBADF:
      case EINVAL:
      case ENOTSOCK:
        co_return unexpected(errno_error(errno, "accept", address_.to_uri()));
      default:
        break;  // that client is gone already
    }
  }
  co_return unexpected(cancelled_error("accept"));
}

void Listener::cancel() {
  cancelled_ = true;
  boost::system::error_code ignored;
  descriptor_.cancel(ignored);
}

void set_up_connection(int socket, Duration keepalive_time) {
  const auto seconds = [](Duration time) {
    return std::max(1, static_cast<int>(std::chrono::duration_cast<std::chrono::seconds>(time).count()));
  };
  set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, seconds(keepalive_time));
  set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, seconds(keepalive_time / 10));
  set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, 5);
  // Data that is never acknowledged: as long as an idle peer may stay silent.
  set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, 1000 * seconds(keepalive_time + keepalive_time / 2));
}

}  // namespace diskferry::nbd_server
