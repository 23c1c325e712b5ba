// TaskGroup: the owner of tasks that run side by side. Nothing is ever detached; whoever spawns also joins.
#pragma once

#include "diskferry/task.hpp"

#include <cstddef>
#include <memory>

namespace diskferry {

/// Thread: spawn, cancel and size from any thread; join once, from a task.
/// Lifetime: must be joined (or never used) before it is destroyed; the destructor asserts it.
class TaskGroup {
 public:
  /// `executor`: where spawn() runs tasks; one thread's reactor or a strand.
  explicit TaskGroup(Executor executor);
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;
  ~TaskGroup();

  /// Starts a task. Its error, if any, becomes the group's; it does not stop the others: the owner decides.
  void spawn(Task<Result<void>> task);
  /// The same on another reactor or strand.
  void spawn_on(const Executor& executor, Task<Result<void>> task);
  /// Asks every task that runs now, and every task spawned later, to stop.
  void cancel();
  /// Waits for all tasks; returns the first error that was not `cancelled`, else a `cancelled` one if there
  /// was any. When the joining task itself is cancelled, the group is cancelled and still joined; whether it
  /// was, is_cancelled() tells afterwards: the tasks may have ended well all the same.
  Task<Result<void>> join();
  /// Tasks still running.
  std::size_t size() const;
  /// True once a task has ended with an error other than `cancelled`.
  bool has_failed() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace diskferry
