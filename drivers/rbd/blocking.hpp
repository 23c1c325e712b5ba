// Calls of the library that block, made on threads of the BlockingPool. A cluster that hangs holds each of
// them for as long as the limits of its endpoint. They take turns, so that all that is not RBD finds a thread
// however many of them hang. Not a pool of our own: the calls that were given up must have returned before
// the process takes the library's static objects apart, and the process's pool is where that is waited for.
// Closing an image takes no turn: nobody who ends waits behind what hangs.
#pragma once

#include "diskferry/sync.hpp"
#include "drivers/support/blocking_pool.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace diskferry::rbd {

/// Calls at once: half of the threads that a process has (RuntimeOptions::blocking_threads).
inline constexpr std::uint64_t calls_max = 4;
/// Of those that take minutes, so that what takes milliseconds need not wait for them.
inline constexpr std::uint64_t long_calls_max = 2;

struct TurnEnd {
  void operator()(AsyncSemaphore* turns) const noexcept { turns->release(1); }
};
/// Ours until it is destroyed, on whatever thread.
using Turn = std::unique_ptr<AsyncSemaphore, TurnEnd>;
/// Waits for as long as the limits of those that have one let them. Errors: cancelled.
Task<Result<Turn>> take_turn();

/// Calls `work()`, which gives a Result, and waits until it returns. Cancel: not once it has its turn.
template <class Work>
Task<std::invoke_result_t<Work>> run_blocking(BlockingPool& pool, Work work) {
  DISKFERRY_CO_TRY(const Turn turn, co_await take_turn());
  co_return co_await pool.run(std::move(work));
}

/// The same. Cancel: at once, with the error `given_up` once it has its turn; the call goes on and keeps the
/// turn, and what it returns is destroyed on the pool's thread. Lifetime: `work` owns all that it touches.
template <class Work>
Task<std::invoke_result_t<Work>> run_or_give_up(BlockingPool& pool, Error given_up, Work work) {
  DISKFERRY_CO_TRY(Turn turn, co_await take_turn());
  auto done = co_await pool.run_or_give_up(
      [turn = std::move(turn), work = std::move(work)]() mutable { return work(); });
  if (!done) co_return unexpected(std::move(given_up));
  co_return *std::move(done);
}

/// What takes long, and asks between its steps whether to stop.
using LongWork = std::function<Result<void>(std::atomic<bool>& stop)>;
/// The same. Cancel: has it stop, and waits until it returns.
Task<Result<void>> run_until_stopped(BlockingPool& pool, LongWork work);

}  // namespace diskferry::rbd
