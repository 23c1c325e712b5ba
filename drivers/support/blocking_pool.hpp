// A bounded set of threads for calls that block: fsync, fallocate, opening a file on a slow server,
// inflating. A task awaits the call here and goes on on its own executor.
#pragma once

#include "diskferry/task.hpp"
#include "drivers/support/abandonable_call.hpp"

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry {

/// Thread: run() from any executor thread. Lifetime: outlives every task that awaits it.
class BlockingPool {
 public:
  /// 0: run() calls right where it is awaited, for simulations in which one thread does everything.
  explicit BlockingPool(std::size_t threads) : is_inline_(threads == 0), pool_(threads) {}
  ~BlockingPool() { pool_.join(); }
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;

  /// Calls `work()` on a thread of the pool and returns what it returns. `work` must not throw.
  /// Cancel: not possible once it runs; the task completes when the call returns.
  template <class Work>
  Task<std::invoke_result_t<Work>> run(Work work) {
    using Value = std::invoke_result_t<Work>;
    if (is_inline_) co_return work();
    const Executor executor = co_await boost::asio::this_coro::executor;
    co_return co_await boost::asio::async_initiate<const boost::asio::use_awaitable_t<Executor>, void(Value)>(
        [this, &work, &executor](auto&& handler) {
          // By value: the task may have ended, and its frame be gone, before the inner post returns.
          boost::asio::post(pool_, [executor, work = std::move(work),
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
    boost::asio::post(pool_, [call, work = std::move(work)]() mutable { call->finish(work()); });
    co_return co_await call->wait();
  }

 private:
  const bool is_inline_;
  boost::asio::thread_pool pool_;
};

}  // namespace diskferry
