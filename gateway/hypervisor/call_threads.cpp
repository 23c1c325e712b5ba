// One thread a call. Whoever comes first, the call's end or its limit, decides in Call::outcome how the wait
// ends.
#include "gateway/hypervisor/call_threads.hpp"

#include "diskferry/sync.hpp"
#include "diskferry/task_group.hpp"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

namespace diskferry {
namespace {
/// How often a call that waits looks whether its peer is lost.
constexpr Duration lost_interval = std::chrono::seconds(1);

enum class Outcome : std::uint8_t { undecided, returned, left_behind };

struct Call {
  std::function<Result<void>()> work;
  std::shared_ptr<std::atomic<unsigned>> stuck;
  std::mutex guard;
  WaitQueue waiting;
  Outcome outcome = Outcome::undecided;
  bool was_lost = false;
  Result<void> result{};
};

Result<void> run_work(const Call& call) {
  try {
    return call.work();
  } catch (const std::bad_alloc&) {
    return unexpected(fail(ErrorKind::too_large, "allocate memory").why("out of memory"));
  }
}

void run_on_thread(const std::shared_ptr<Call>& call) {
  auto result = run_work(*call);
  call->work = nullptr;  // what it holds is let go on this thread, where that may block
  std::lock_guard lock(call->guard);
  if (call->outcome == Outcome::left_behind) {
    call->stuck->fetch_sub(1);
    return;
  }
  call->result = std::move(result);
  call->outcome = Outcome::returned;
  call->waiting.wake_all();
}

/// Returns when `limit` has passed, or when the peer was lost for as long as it takes to look twice.
Task<Result<void>> wait_for_limit(Clock& clock, Duration limit, std::function<bool()> is_lost,
                                  bool& was_lost) {
  const auto latest = Clock::after(clock.now(), limit);
  while (clock.now() < latest && !was_lost) {
    was_lost = is_lost && is_lost();
    DISKFERRY_CO_CHECK(
        co_await clock.sleep_until(std::min(latest, Clock::after(clock.now(), lost_interval))));
  }
  co_return Result<void>{};
}

Task<Result<void>> leave_behind(Clock& clock, Duration limit, std::function<bool()> is_lost,
                                std::shared_ptr<Call> call) {
  bool was_lost = false;
  DISKFERRY_CO_CHECK(co_await wait_for_limit(clock, limit, std::move(is_lost), was_lost));
  std::lock_guard lock(call->guard);
  if (call->outcome == Outcome::undecided) {
    call->outcome = Outcome::left_behind;
    call->was_lost = was_lost;
    call->stuck->fetch_add(1);
    call->waiting.wake_all();
  }
  co_return Result<void>{};
}

Result<std::thread> start_thread(const std::shared_ptr<Call>& call) {
  try {
    return std::thread([call] { run_on_thread(call); });
  } catch (const std::system_error& error) {
    return unexpected(fail(ErrorKind::too_large, "start thread").cause(error.code()));
  }
}
}  // namespace

Task<Result<void>> CallThreads::run(CallTerms terms, std::function<Result<void>()> work) {
  if (stuck_->load() >= stuck_max) {
    co_return unexpected(fail(ErrorKind::gone, std::move(terms.operation), std::move(terms.object))
                             .why("earlier calls hang; the hypervisor does not answer"));
  }
  const auto call = std::make_shared<Call>();
  call->work = std::move(work);
  call->stuck = stuck_;
  TaskGroup timer(co_await boost::asio::this_coro::executor);
  DISKFERRY_CO_TRY(std::thread thread, start_thread(call));
  timer.spawn(leave_behind(clock_, terms.limit, terms.is_lost, call));
  {
    std::unique_lock lock(call->guard);
    if (call->outcome == Outcome::undecided) co_await call->waiting.wait_uncancelled(lock);
  }
  timer.cancel();
  (void)co_await timer.join();
  // Decided for good: nobody changes the outcome again.
  if (call->outcome == Outcome::returned) {
    thread.join();
    co_return std::move(call->result);
  }
  thread.detach();
  auto error = call->was_lost
                   ? fail(ErrorKind::gone, std::move(terms.operation), std::move(terms.object))
                         .why("the connection was lost; the call may have taken effect")
                   : fail(ErrorKind::timed_out, std::move(terms.operation), std::move(terms.object))
                         .why("the hypervisor does not answer; the call may still take effect");
  co_return unexpected(std::move(error));
}

}  // namespace diskferry
