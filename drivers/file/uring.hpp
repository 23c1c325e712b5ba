// An io_uring that belongs to one reactor: transfers are prepared, submitted and completed on that reactor's
// thread, so there is no lock, and what one turn of the reactor prepares is submitted with one system call.
// FileDevice keeps one for each reactor it is used from. It must never complete a transfer that the kernel
// may still be working on: there is no cancelling here.
#pragma once

#include "diskferry/task.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace diskferry {

class Uring {
 public:
  struct Transfer {
    bool is_write = false;
    int fd = -1;
    std::uint64_t offset = 0;
    std::span<std::byte> memory;  ///< where to, or (never changed) where from
    int rwf_flags = 0;            ///< RWF_DSYNC
  };

  /// nullptr where the kernel has none or does not let us (ENOSYS, EPERM by seccomp or sysctl, no memory).
  /// Thread: that of `reactor`.
  static std::unique_ptr<Uring> make(const Executor& reactor);
  /// After the last transfer has completed.
  ~Uring();
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;

  /// False when so many transfers are under way that another would only wait.
  bool has_room() const noexcept;
  /// Bytes moved, which may be fewer than asked for, or a negative errno. Precondition: has_room(), and the
  /// task runs on the reactor. Cancel: has no effect. Lifetime: the memory until the task ends.
  Task<int> transfer(Transfer what);

 private:
  struct State;
  explicit Uring(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace diskferry
