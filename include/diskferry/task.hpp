// Task<T>: the coroutine type of everything that waits.
//
// A task starts when it is awaited (or spawned in a TaskGroup) and runs on the executor of whoever awaits it:
// one thread's reactor, or a strand. Cancellation is `terminal` and never throws here: an operation that is
// cancelled returns an error of kind `cancelled`, and a loop asks `is_cancelled()` between its steps.
#pragma once

#include "diskferry/error.hpp"

#include <concepts>
#include <exception>
#include <new>
#include <utility>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/this_coro.hpp>

namespace diskferry {

using Executor = boost::asio::any_io_executor;

template <class T>
using Task = boost::asio::awaitable<T, Executor>;

/// True once this task was asked to stop. Asio delivers a cancellation once, to the operation in flight;
/// whoever loops must ask.
inline Task<bool> is_cancelled() {
  co_return (co_await boost::asio::this_coro::cancellation_state).cancelled() !=
      boost::asio::cancellation_type::none;
}

/// The top frame of every spawned task: cancellation arrives as an error, and what is thrown (out of memory,
/// a library) becomes one too.
template <class T>
Task<Result<T>> top_frame(Task<Result<T>> task) {
  co_await boost::asio::this_coro::throw_if_cancelled(false);
  try {
    co_return co_await std::move(task);
  } catch (const std::bad_alloc&) {
    co_return unexpected(fail(ErrorKind::too_large, "allocate memory").why("out of memory"));
  } catch (const std::system_error& error) {
    co_return unexpected(fail(ErrorKind::internal, "run task").cause(error.code()).why(error.what()));
  } catch (const std::exception& error) {
    co_return unexpected(fail(ErrorKind::internal, "run task").why(error.what()));
  }
}

/// The error of a task that was asked to stop.
inline Error cancelled_error(std::string operation, std::string object = {}) {
  return fail(ErrorKind::cancelled, std::move(operation), std::move(object));
}

}  // namespace diskferry
