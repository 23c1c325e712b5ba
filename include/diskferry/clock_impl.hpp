// The template part of clock.hpp: not to be included on its own account.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/task_group.hpp"

#include <atomic>

namespace diskferry {
namespace detail {
template <class T>
Task<Result<void>> run_into(std::optional<Result<T>>& into, Task<Result<T>> task, TaskGroup& timer) {
  into.emplace(co_await std::move(task));
  timer.cancel();
  co_return Result<void>{};
}
Task<Result<void>> expire(Clock& clock, TimePoint when, TaskGroup& work, std::atomic<bool>& expired);
}  // namespace detail

template <class T>
Task<Result<T>> with_deadline(Clock& clock, Duration limit, std::string operation, Task<Result<T>> task) {
  const Executor executor = co_await boost::asio::this_coro::executor;
  TaskGroup work(executor);
  TaskGroup timer(executor);
  std::optional<Result<T>> result;
  std::atomic<bool> expired = false;
  work.spawn(detail::run_into<T>(result, std::move(task), timer));
  timer.spawn(detail::expire(clock, Clock::after(clock.now(), limit), work, expired));
  const auto joined = co_await work.join();
  timer.cancel();
  (void)co_await timer.join();
  if (expired.load() && (!result || (!*result && result->error().kind() == ErrorKind::cancelled)))
    co_return unexpected(fail(ErrorKind::timed_out, std::move(operation)));
  // No result: the task threw, or was cancelled before it began. The group knows which.
  if (!result && !joined) co_return unexpected(joined.error());
  if (!result) co_return unexpected(fail(ErrorKind::internal, std::move(operation)));
  co_return *std::move(result);
}

}  // namespace diskferry
