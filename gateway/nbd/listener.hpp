// Sockets that listen: bound, watched, and removed again. Used by the server only.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/nbd/listen_address.hpp"

#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

#include <boost/asio/posix/stream_descriptor.hpp>

namespace diskferry::nbd_server {

/// One listening socket. Thread: the executor's.
class Listener {
 public:
  /// Takes a socket that listens already. Errors: invalid_argument.
  static Result<std::unique_ptr<Listener>> adopt(const Executor& executor, int socket);
  /// Binds every address that the name stands for. Errors: in_use, permission, not_found, invalid_argument.
  static Task<Result<std::vector<std::unique_ptr<Listener>>>> bind(DriverContext& context, Executor executor,
                                                                   ListenAddress address);
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  /// Closes; removes the path of a UNIX socket if it is still ours.
  ~Listener();

  /// A connected socket, non-blocking. Errors: cancelled (also after cancel()), too_large (no descriptors
  /// left: try again later), io.
  Task<Result<int>> accept();
  void cancel();
  /// With the port the system chose.
  const ListenAddress& address() const noexcept { return address_; }
  bool is_tcp() const noexcept { return address_.kind == ListenAddress::Kind::tcp; }

 private:
  Listener(const Executor& executor, int socket, ListenAddress address);
  static Result<std::unique_ptr<Listener>> bind_unix(const Executor& executor, ListenAddress address);

  boost::asio::posix::stream_descriptor descriptor_;
  int socket_;
  ListenAddress address_;
  bool owns_path_ = false;
  dev_t path_device_ = 0;
  ino_t path_inode_ = 0;
  bool cancelled_ = false;
};

/// No delay, and probes for peers that are gone. Does nothing to sockets that are not TCP.
void set_up_connection(int socket, Duration keepalive_time);

}  // namespace diskferry::nbd_server
