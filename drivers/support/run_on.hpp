// A task on another reactor, for what belongs to that one: its result comes back to who asked.
#pragma once

#include "diskferry/task_group.hpp"

#include <optional>
#include <utility>

namespace diskferry {
namespace detail {
template <class T>
Task<Result<void>> keep_result(Task<Result<T>> task, std::optional<Result<T>>& into) {
  into.emplace(co_await std::move(task));
  co_return Result<void>{};
}
}  // namespace detail

/// Errors: those of `task`; cancelled, where it had no chance to begin. Cancel: the task is cancelled, and
/// waited for.
template <class T>
Task<Result<T>> run_on(Executor executor, Task<Result<T>> task) {
  std::optional<Result<T>> result;
  TaskGroup group(std::move(executor));
  group.spawn(detail::keep_result<T>(std::move(task), result));
  DISKFERRY_CO_CHECK(co_await group.join());
  if (!result) co_return unexpected(cancelled_error("run on another reactor"));
  co_return *std::move(result);
}

}  // namespace diskferry
