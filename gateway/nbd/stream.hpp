// A connection's bytes, plain or through TLS: non-blocking reads and writes at once, and waits for when there
// is nothing to do. Used by one session, on its executor only.
#pragma once

#include "diskferry/task.hpp"
#include "gateway/nbd/tls.hpp"

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <sys/uio.h>

#include <boost/asio/posix/stream_descriptor.hpp>

namespace diskferry::nbd_server {

class Stream {
 public:
  enum class Status : std::uint8_t { done, would_block, ended, failed };
  struct Transfer {
    Status status = Status::done;
    std::size_t bytes = 0;
  };

  /// Owns the descriptors; equal ones are one socket. Errors: unsupported (a regular file).
  static Result<std::unique_ptr<Stream>> make(const Executor& executor, int in, int out);
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream();

  /// At least one byte, or why not.
  Transfer read_some(std::span<std::byte> into);
  /// Takes from the front of `from` what it can. With TLS, what was taken may still wait in here:
  /// has_pending().
  Transfer write_some(std::span<const iovec> from);
  /// Ciphertext that was not sent yet; write_some({}) goes on with it.
  bool has_pending() const noexcept { return tls_ && !tls_->output().empty(); }
  /// False when woken or broken; the caller looks at its own state and tries again.
  Task<bool> wait_readable();
  Task<bool> wait_writable();
  /// Ends both waits.
  void wake();

  /// Does the TLS handshake. Errors: gone, permission, protocol, cancelled.
  Task<Result<PeerIdentity>> start_tls(TlsContext& context);
  /// Tells the peer that nothing more comes; best effort.
  void say_goodbye();
  /// Something is there that nobody has read.
  bool has_unread() const;
  /// Reads what is there, as it came, and forgets it.
  Status discard_some();
  /// Why a transfer failed.
  const std::string& problem() const noexcept { return problem_; }
  bool is_encrypted() const noexcept { return tls_ != nullptr; }

 private:
  Stream(const Executor& executor, int in, int out);
  Transfer receive(std::span<std::byte> into);
  Transfer send(std::span<const iovec> from);
  Transfer send_pending();
  Transfer fail_with(int error_number);
  boost::asio::posix::stream_descriptor& out_descriptor() { return out_ ? *out_ : in_; }

  boost::asio::posix::stream_descriptor in_;
  std::optional<boost::asio::posix::stream_descriptor> out_;  // where it is not the same as in
  int in_fd_ = -1;
  int out_fd_ = -1;
  bool in_is_socket_ = false;
  bool out_is_socket_ = false;
  std::unique_ptr<TlsEngine> tls_;
  std::string problem_;
};

}  // namespace diskferry::nbd_server
