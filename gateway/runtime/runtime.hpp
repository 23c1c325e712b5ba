// What a process of ours runs on: reactor threads, the blocking pool, the buffer pool, a clock, and an
// ordered shutdown on SIGINT and SIGTERM. Made once in main(); rooms get a DriverContext or an executor of
// it.
#pragma once

#include "diskferry/driver.hpp"

#include <functional>
#include <memory>

namespace diskferry {

struct RuntimeOptions {
  /// One reactor a core, and never more than 8: they wait in epoll, not in disks.
  unsigned reactors = 0;  // 0: by the machine
  unsigned blocking_threads = 8;
  /// Payload memory. The limit of a whole process is 256 MiB, of which half is for payload.
  std::size_t buffer_bytes = std::size_t{128} << 20;
  std::string notes_folder{};  ///< as DriverContext
};

class Runtime {
 public:
  explicit Runtime(RuntimeOptions options = {});
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  DriverContext& context() noexcept;
  Executor reactor(std::size_t index) const;
  std::size_t reactor_count() const noexcept;

  /// Runs one task on the first reactor and blocks the calling thread until it is done.
  template <class T>
  Result<T> run(Task<Result<T>> task) {
    std::optional<Result<T>> result;
    run_blocking(store(std::move(task), result));
    if (!result) return unexpected(fail(ErrorKind::internal, "run"));
    return *std::move(result);
  }
  /// As run(), but SIGINT and SIGTERM cancel the task; a second signal ends the process at once.
  template <class T>
  Result<T> run_until_signal(Task<Result<T>> task) {
    std::optional<Result<T>> result;
    run_blocking_with_signals(store(std::move(task), result));
    if (!result) return unexpected(cancelled_error("run"));
    return *std::move(result);
  }

 private:
  template <class T>
  static Task<Result<void>> store(Task<Result<T>> task, std::optional<Result<T>>& into) {
    into.emplace(co_await top_frame(std::move(task)));
    co_return Result<void>{};
  }
  void run_blocking(Task<Result<void>> task);
  void run_blocking_with_signals(Task<Result<void>> task);
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace diskferry
