// FdWatcher: drives a descriptor that belongs to a foreign library from one of our reactors. A driver whose
// library has an fd loop (libnbd; libiscsi and libnfs alike) owns one per handle: it says which directions
// the library waits for, and is told when one is ready. It never touches the library's own descriptor: it
// watches a duplicate, so the library may close or replace its own at any moment, even inside the callback.
#pragma once

#include "diskferry/task.hpp"

#include <functional>
#include <memory>

namespace diskferry {

/// Thread: every member on the executor's thread only. Lifetime: may be destroyed at any time on that thread,
/// also inside the callback.
class FdWatcher {
 public:
  struct Ready {
    bool readable = false;
    bool writable = false;
  };
  /// `on_ready` is called on `executor` with what is ready now and was wanted, and never without cause:
  /// libnbd, told to read where there is nothing, stops sending until there is. It must not throw.
  FdWatcher(Executor executor, std::function<void(Ready)> on_ready);
  ~FdWatcher();
  FdWatcher(const FdWatcher&) = delete;
  FdWatcher& operator=(const FdWatcher&) = delete;

  /// Watches the file behind `fd` from now on. Does nothing where that file is watched already; a library
  /// that connects to a second address gets a new file under the same number, hence the question is asked
  /// again whenever that may have happened. Nothing is wanted at first. Errors: those of dup and epoll.
  Result<void> watch(int fd);
  /// Which directions the library waits for now. Each stays wanted until the next call.
  void want(bool read, bool write);
  /// Forgets the descriptor: no callback comes after this. The file itself stays open for as long as the
  /// library keeps it.
  void stop();
  bool is_watching() const noexcept;
  /// Asks the system whether there is something to read at this moment.
  bool is_readable() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace diskferry
