#include "drivers/foreign/listener.hpp"

#include "drivers/foreign/temporary_folder.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace diskferry::foreign {
namespace {

constexpr const char* socket_name = "nbd";

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // "/proc/self/fd/..." always fits.
  std::copy_n(path.begin(), std::min(path.size(), sizeof address.sun_path - 1), address.sun_path);
  return address;
}

/// By its descriptor, because the path of a folder for temporary files may be too long for a socket.
int bind_below(int folder, int socket) {
  const sockaddr_un address = address_of(fmt::format("/proc/self/fd/{}/{}", folder, socket_name));
  return ::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

}  // namespace

Result<Listener> Listener::make() {
  const auto failed = [] { return unexpected(errno_error(errno, "make a socket for qemu-nbd")); };
  Listener made;
  DISKFERRY_TRY(const std::string folder, make_temporary_folder());
  const FileDescriptor in(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  made.socket_ = FileDescriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const bool is_bound = in.get() >= 0 && made.socket() >= 0 && bind_below(in.get(), made.socket()) == 0 &&
                        ::listen(made.socket(), SOMAXCONN) == 0;
  if (is_bound) made.name_ = FileDescriptor(::openat(in.get(), socket_name, O_PATH | O_CLOEXEC));
  const int error_number = errno;
  if (in.get() >= 0) ::unlinkat(in.get(), socket_name, 0);
  ::rmdir(folder.c_str());
  errno = error_number;
  if (made.name_.get() < 0) return failed();
  return made;
}

std::string Listener::path() const {
  return fmt::format("/proc/self/fd/{}", name_.get());
}

Result<FileDescriptor> connect_to(const Listener& listener) {
  FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = address_of(listener.path());
  if (socket.get() < 0 ||
      ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return unexpected(errno_error(errno, "connect to qemu-nbd"));
  return socket;
}

Result<FileDescriptor> memory_file(std::string_view content) {
  FileDescriptor file(::memfd_create("diskferry", MFD_CLOEXEC));
  if (file.get() < 0) return unexpected(errno_error(errno, "make a file in memory"));
  while (!content.empty()) {
    const ssize_t written = ::write(file.get(), content.data(), content.size());
    if (written <= 0) return unexpected(errno_error(errno, "write a file in memory"));
    content.remove_prefix(static_cast<std::size_t>(written));
  }
  return file;
}

}  // namespace diskferry::foreign
