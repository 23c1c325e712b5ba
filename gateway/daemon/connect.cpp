// Two directions in one loop of poll(2).
#include "gateway/daemon/connect.hpp"

#include "diskferry/image_uri.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace diskferry::daemon {
namespace {

Result<int> connect_to(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof name.sun_path) return unexpected(errno_error(EINVAL, "connect", printable(path)));
  std::memcpy(name.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return unexpected(errno_error(errno, "connect", printable(path)));
  if (connect(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0) return fd;
  const int failed = errno;
  close(fd);
  if (failed != ENOENT && failed != ECONNREFUSED)
    return unexpected(errno_error(failed, "connect", printable(path)));
  return unexpected(fail(ErrorKind::not_found, "connect", printable(path))
                        .why("no gateway runs here")
                        .remedy("start it with 'systemctl start diskferryd', or 'diskferryd'"));
}

enum class Carried : std::uint8_t { some, ended, failed };

/// What can be read at `from` is written to `to`, all of it.
Carried carry(int from, int to) {
  std::array<char, 65536> buffer;
  const ssize_t got = read(from, buffer.data(), buffer.size());
  if (got < 0) return errno == EINTR || errno == EAGAIN ? Carried::some : Carried::failed;
  if (got == 0) return Carried::ended;
  for (ssize_t done = 0; done < got;) {
    const ssize_t wrote = write(to, buffer.data() + done, static_cast<std::size_t>(got - done));
    if (wrote < 0 && errno != EINTR) return Carried::failed;
    if (wrote > 0) done += wrote;
  }
  return Carried::some;
}

Result<void> carry_both(int fd) {
  std::array<pollfd, 2> watched{{{STDIN_FILENO, POLLIN, 0}, {fd, POLLIN, 0}}};
  while (true) {
    if (poll(watched.data(), watched.size(), -1) < 0 && errno != EINTR)
      return unexpected(errno_error(errno, "wait for the gateway"));
    if (watched[1].revents != 0) {
      const Carried carried = carry(fd, STDOUT_FILENO);
      if (carried == Carried::ended) return {};
      if (carried == Carried::failed) return unexpected(errno_error(errno, "carry bytes from the gateway"));
    }
    if (watched[0].fd >= 0 && watched[0].revents != 0) {
      const Carried carried = carry(STDIN_FILENO, fd);
      if (carried == Carried::failed) return unexpected(errno_error(errno, "carry bytes to the gateway"));
      if (carried == Carried::some) continue;
      (void)shutdown(fd, SHUT_WR);
      watched[0].fd = -1;
    }
  }
}

}  // namespace

Result<void> connect_stdio(const std::string& socket_path) {
  DISKFERRY_TRY(const int fd, connect_to(socket_path));
  auto result = carry_both(fd);
  close(fd);
  return result;
}

}  // namespace diskferry::daemon
