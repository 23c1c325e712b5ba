// A bounded set of threads for calls that block: fsync, fallocate, opening a file on a slow server,
// inflating. A task awaits the call here and goes on on its own executor.
#pragma once

#include "diskferry/task.hpp"
#include "drivers/support/abandonable_call.hpp"

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry {

/// Thread: run() from any executor thread. Lifetime: outlives every task that awaits it.
class BlockingPool {
 public:
  /// Threads are started when there is a call for them. 0: run() calls right where it is awaited, for
  /// simulations in which one thread does everything.
  explicit BlockingPool(std::size_t threads_max) : threads_max_(threads_max) {}
  ~BlockingPool() {
    work_.reset();
    for (std::thread& thread : threads_) thread.join();
  }
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;

  /// Calls `work()` on a thread of the pool and returns what it returns. `work` must not throw.
  /// Cancel: not possible once it runs; the task completes when the call returns.
  template <class Work>
  Task<std::invoke_result_t<Work>> run(Work work) {
    using Value = std::invoke_result_t<Work>;
    if (!has_thread()) co_return work();
    const CallEnd end(*this);
    const Executor executor = co_await boost::asio::this_coro::executor;
    co_return co_await boost::asio::async_initiate<const boost::asio::use_awaitable_t<Executor>, void(Value)>(
        [this, &work, &executor](auto&& handler) {
          // By value: the task may have ended, and its frame be gone, before the inner post returns.
          boost::asio::post(calls_, [executor, work = std::move(work),
                                     handler = std::forward<decltype(handler)>(handler)]() mutable {
            boost::asio::post(executor, [handler = std::move(handler), value = work()]() mutable {
              std::move(handler)(std::move(value));
            });
          });
        },
        boost::asio::use_awaitable_t<Executor>{});
  }

  /// The same for calls whose end nobody may want to wait for: opening something far away.
  /// Cancel: at once, nullopt; the call goes on, and what it returns is destroyed on the pool's thread.
  /// Lifetime: `work` owns all that it touches.
  template <class Work>
  Task<std::optional<std::invoke_result_t<Work>>> run_or_give_up(Work work) {
    const auto call = std::make_shared<AbandonableCall<std::invoke_result_t<Work>>>();
    if (has_thread()) {
      boost::asio::post(calls_, [this, call, work = std::move(work)]() mutable {
        const CallEnd end(*this);
        call->finish(work());
      });
    } else {
      call->finish(work());
    }
    co_return co_await call->wait();
  }

 private:
  struct CallEnd {
    BlockingPool& pool;
    explicit CallEnd(BlockingPool& of) : pool(of) {}
    ~CallEnd() {
      std::lock_guard lock(pool.guard_);
      --pool.under_way_;
    }
    CallEnd(const CallEnd&) = delete;
    CallEnd& operator=(const CallEnd&) = delete;
  };
  /// For one more call, which ends by CallEnd. False: there is none, nor can one be started.
  bool has_thread() {
    std::lock_guard lock(guard_);
    const bool wants_one = under_way_ >= threads_.size() && threads_.size() < threads_max_;
    const bool is_started = wants_one && start_thread();
    if (!is_started && threads_.empty()) return false;
    ++under_way_;
    return true;
  }
  /// guard_ is held. False: the limit of the system on threads.
  bool start_thread() {
    try {
      threads_.emplace_back([this] { calls_.run(); });
      return true;
    } catch (const std::system_error&) {
      return false;
    }
  }

  const std::size_t threads_max_;
  boost::asio::io_context calls_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_ =
      boost::asio::make_work_guard(calls_);
  std::mutex guard_;
  std::vector<std::thread> threads_;
  std::size_t under_way_ = 0;
};

}  // namespace diskferry
