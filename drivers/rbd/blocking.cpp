#include "drivers/rbd/blocking.hpp"

#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/this_coro.hpp>

namespace diskferry::rbd {
namespace {

/// Never destroyed: a call that was given up gives its turn back when the process is ending.
AsyncSemaphore& turns() {
  static AsyncSemaphore& all = *new AsyncSemaphore(calls_max);
  return all;
}
AsyncSemaphore& long_turns() {
  static AsyncSemaphore& all = *new AsyncSemaphore(long_calls_max);
  return all;
}

Task<Result<Turn>> take_turn_of(AsyncSemaphore& all) {
  DISKFERRY_CO_CHECK(co_await all.acquire(1));
  co_return Turn(&all);
}

}  // namespace

Task<Result<Turn>> take_turn() {
  return take_turn_of(turns());
}

Task<Result<void>> run_until_stopped(BlockingPool& pool, LongWork work) {
  DISKFERRY_CO_TRY(const Turn long_turn, co_await take_turn_of(long_turns()));
  DISKFERRY_CO_TRY(const Turn turn, co_await take_turn());
  std::atomic<bool> stop(co_await is_cancelled());
  // Nobody else listens to our cancellation while the pool has the call.
  boost::asio::cancellation_slot slot = (co_await boost::asio::this_coro::cancellation_state).slot();
  if (slot.is_connected()) slot.assign([&stop](boost::asio::cancellation_type) { stop = true; });
  auto done = co_await pool.run([&work, &stop] { return work(stop); });
  slot.clear();
  co_return done;
}

}  // namespace diskferry::rbd
