// One asynchronous wait a direction, re-armed after each event while the direction is still wanted. A wait
// that ends after stop() finds another generation and does nothing.
#include "drivers/support/fd_watcher.hpp"

#include <cerrno>
#include <fcntl.h>
#include <optional>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <boost/asio/posix/basic_stream_descriptor.hpp>

namespace diskferry {
namespace asio = boost::asio;

namespace {
using Descriptor = asio::posix::basic_stream_descriptor<Executor>;

struct FileIdentity {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator==(const FileIdentity&) const = default;
};
Result<FileIdentity> identity_of(int fd) {
  struct stat status{};
  if (fstat(fd, &status) != 0) return unexpected(errno_error(errno, "watch descriptor"));
  return FileIdentity{status.st_dev, status.st_ino};
}
}  // namespace

struct FdWatcher::State : std::enable_shared_from_this<FdWatcher::State> {
  State(Executor on, std::function<void(Ready)> callback)
      : executor(std::move(on)), on_ready(std::move(callback)) {}

  const Executor executor;
  std::function<void(Ready)> on_ready;
  std::optional<Descriptor> descriptor;
  FileIdentity identity;
  std::uint64_t generation = 0;
  bool wants_read = false;
  bool wants_write = false;
  bool read_armed = false;
  bool write_armed = false;
  bool read_was_called = false;  // beside a write event, while a read event may be on its way

  bool is_readable() {
    pollfd one{descriptor->native_handle(), POLLIN, 0};
    return poll(&one, 1, 0) == 1;
  }
  void arm() {
    if (!descriptor) return;
    if (wants_read && !read_armed) {
      read_armed = true;
      descriptor->async_wait(Descriptor::wait_read,
                             [self = shared_from_this(), now = generation](const boost::system::error_code&) {
                               if (self->generation != now) return;
                               self->read_armed = false;
                               if (self->wants_read) self->call({.readable = true, .writable = false}, now);
                             });
    }
    if (wants_write && !write_armed) {
      write_armed = true;
      descriptor->async_wait(Descriptor::wait_write,
                             [self = shared_from_this(), now = generation](const boost::system::error_code&) {
                               if (self->generation != now) return;
                               self->write_armed = false;
                               if (!self->wants_write) return;
                               // A library that can do both reads first, or two peers that only send wait for
                               // each other.
                               const bool readable = self->wants_read && self->is_readable();
                               self->read_was_called = true;  // the callback may read, now or later on
                               self->call({.readable = readable, .writable = true}, now);
                             });
    }
  }
  void call(Ready ready, std::uint64_t now) {
    on_ready(ready);
    if (generation == now) arm();
  }
  void stop() {
    ++generation;
    descriptor.reset();  // leaves the reactor, then closes the duplicate
    wants_read = wants_write = read_armed = write_armed = read_was_called = false;
  }
};

FdWatcher::FdWatcher(Executor executor, std::function<void(Ready)> on_ready)
    : state_(std::make_shared<State>(std::move(executor), std::move(on_ready))) {}

FdWatcher::~FdWatcher() {
  state_->stop();
}

Result<void> FdWatcher::watch(int fd) {
  DISKFERRY_TRY(const FileIdentity identity, identity_of(fd));
  if (state_->descriptor && state_->identity == identity) return {};
  state_->stop();
  const int duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (duplicate < 0) return unexpected(errno_error(errno, "watch descriptor"));
  state_->descriptor.emplace(state_->executor);
  boost::system::error_code failed;
  state_->descriptor->assign(duplicate, failed);
  if (failed) {
    ::close(duplicate);
    state_->descriptor.reset();
    return unexpected(errno_error(failed.value(), "watch descriptor"));
  }
  state_->identity = identity;
  return {};
}

void FdWatcher::want(bool read, bool write) {
  state_->wants_read = read;
  state_->wants_write = write;
  state_->arm();
}

void FdWatcher::stop() {
  state_->stop();
}

bool FdWatcher::is_readable() const {
  return state_->descriptor && state_->is_readable();
}

bool FdWatcher::is_watching() const noexcept {
  return state_->descriptor.has_value();
}

}  // namespace diskferry
