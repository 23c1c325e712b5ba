// A connection's bytes.
#include "gateway/nbd/stream.hpp"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry::nbd_server {
namespace asio = boost::asio;
namespace {
bool is_socket(int fd) {
  struct stat status{};
  return fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode);
}
bool is_waitable(int fd) {
  struct stat status{};
  return fstat(fd, &status) == 0 && (S_ISSOCK(status.st_mode) || S_ISFIFO(status.st_mode));
}
void make_non_blocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags >= 0) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}
}  // namespace

Result<std::unique_ptr<Stream>> Stream::make(const Executor& executor, int in, int out) {
  if (!is_waitable(in) || !is_waitable(out)) {
    close(in);
    if (out != in) close(out);
    return unexpected(
        fail(ErrorKind::unsupported, "serve connection").why("it is neither a socket nor a pair of pipes"));
  }
  return std::unique_ptr<Stream>(new Stream(executor, in, out));
}

Stream::Stream(const Executor& executor, int in, int out)
    : in_(executor, in),
      in_fd_(in),
      out_fd_(out),
      in_is_socket_(is_socket(in)),
      out_is_socket_(is_socket(out)) {
  if (out != in) out_.emplace(executor, out);
  make_non_blocking(in);
  make_non_blocking(out);
}

Stream::~Stream() = default;

Stream::Transfer Stream::fail_with(int error_number) {
  problem_ = std::system_category().message(error_number);
  return {.status = Status::failed};
}

Stream::Transfer Stream::receive(std::span<std::byte> into) {
  while (true) {
    const ssize_t got = in_is_socket_ ? recv(in_fd_, into.data(), into.size(), MSG_DONTWAIT)
                                      : ::read(in_fd_, into.data(), into.size());
    if (got > 0) return {.bytes = static_cast<std::size_t>(got)};
    if (got == 0) return {.status = Status::ended};
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return {.status = Status::would_block};
    if (errno == ECONNRESET) return {.status = Status::ended};
    return fail_with(errno);
  }
}

Stream::Transfer Stream::send(std::span<const iovec> from) {
  while (true) {
    ssize_t sent = 0;
    if (out_is_socket_) {
      msghdr message{};
      message.msg_iov = const_cast<iovec*>(from.data());
      message.msg_iovlen = from.size();
      sent = sendmsg(out_fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
      sent = writev(out_fd_, from.data(), static_cast<int>(from.size()));
    }
    if (sent >= 0) return {.bytes = static_cast<std::size_t>(sent)};
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return {.status = Status::would_block};
    return fail_with(errno);
  }
}

Stream::Transfer Stream::send_pending() {
  while (has_pending()) {
    const auto output = tls_->output();
    const iovec one{const_cast<std::byte*>(output.data()), output.size()};
    const Transfer sent = send({&one, 1});
    if (sent.status != Status::done) return sent;
    tls_->output_sent(sent.bytes);
  }
  return {};
}

Stream::Transfer Stream::read_some(std::span<std::byte> into) {
  if (!tls_) return receive(into);
  while (true) {
    std::size_t bytes = 0;
    switch (tls_->read(into, bytes)) {
      case TlsEngine::Status::done:
        return {.bytes = bytes};
      case TlsEngine::Status::ended:
        return {.status = Status::ended};
      case TlsEngine::Status::failed:
        problem_ = "TLS: " + tls_->problem();
        return {.status = Status::failed};
      case TlsEngine::Status::want_input:
        break;
    }
    // Replies stop at half of this: the rest is what TLS itself had to answer, such as to new keys.
    if (tls_->output().size() > 4 * TlsEngine::output_bytes_max) {
      problem_ = "TLS: the client asks for answers and reads none";
      return {.status = Status::failed};
    }
    const Transfer got = receive(tls_->input_space());
    if (got.status == Status::ended) {
      tls_->input_ended();
    } else if (got.status != Status::done) {
      return got;
    } else {
      tls_->input_added(got.bytes);
    }
  }
}

Stream::Transfer Stream::write_some(std::span<const iovec> from) {
  if (!tls_) return from.empty() ? Transfer{} : send(from);
  Transfer total;
  for (const iovec& one : from) {
    if (tls_->output().size() >= TlsEngine::output_bytes_max) break;
    // A part at a time, so that what waits stays within its bound.
    const std::size_t now = std::min(one.iov_len, TlsEngine::output_bytes_max);
    if (tls_->write({static_cast<const std::byte*>(one.iov_base), now}) != TlsEngine::Status::done) {
      problem_ = "TLS: " + tls_->problem();
      return {.status = Status::failed};
    }
    total.bytes += now;
    if (now != one.iov_len) break;
  }
  const Transfer sent = send_pending();
  if (sent.status == Status::failed) return sent;
  if (sent.status == Status::would_block && total.bytes == 0) return sent;
  return total;
}

bool Stream::has_unread() const {
  std::byte one;
  return in_is_socket_ && recv(in_fd_, &one, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

Stream::Status Stream::discard_some() {
  std::array<std::byte, 16384> scratch;
  return receive(scratch).status;
}

Task<bool> Stream::wait_readable() {
  boost::system::error_code error;
  co_await in_.async_wait(asio::posix::descriptor_base::wait_read,
                          asio::redirect_error(asio::use_awaitable_t<Executor>{}, error));
  co_return !error;
}

Task<bool> Stream::wait_writable() {
  boost::system::error_code error;
  co_await out_descriptor().async_wait(asio::posix::descriptor_base::wait_write,
                                       asio::redirect_error(asio::use_awaitable_t<Executor>{}, error));
  co_return !error;
}

void Stream::wake() {
  boost::system::error_code ignored;
  in_.cancel(ignored);
  if (out_) out_->cancel(ignored);
}

Task<Result<PeerIdentity>> Stream::start_tls(TlsContext& context) {
  DISKFERRY_CO_TRY(auto engine, context.make_engine());
  tls_ = std::move(engine);
  while (true) {
    const auto status = tls_->handshake();
    while (true) {
      const Transfer sent = send_pending();
      if (sent.status == Status::done) break;
      if (sent.status == Status::failed)
        co_return unexpected(fail(ErrorKind::gone, "start TLS").why(problem_));
      if (!co_await wait_writable()) co_return unexpected(cancelled_error("start TLS"));
    }
    if (status == TlsEngine::Status::done) co_return tls_->peer();
    if (status != TlsEngine::Status::want_input)
      co_return unexpected(
          fail(ErrorKind::protocol, "start TLS")
              .why(status == TlsEngine::Status::ended ? "the client left" : tls_->problem()));
    const Transfer got = receive(tls_->input_space());
    if (got.status == Status::done) {
      tls_->input_added(got.bytes);
    } else if (got.status == Status::would_block) {
      if (!co_await wait_readable()) co_return unexpected(cancelled_error("start TLS"));
    } else {
      co_return unexpected(fail(ErrorKind::gone, "start TLS").why("the client left"));
    }
  }
}

void Stream::say_goodbye() {
  if (tls_) {
    tls_->shut_down();
    (void)send_pending();
  }
  if (out_is_socket_) shutdown(out_fd_, SHUT_WR);
}

}  // namespace diskferry::nbd_server
