// Threads for calls that may never return. A call to a hypervisor can hang for as long as the machine behind
// it hangs, and nothing can end it from here; on the shared blocking pool such calls would in the end keep
// storage from being served. So each runs on a thread of its own, the waiting task goes on when its time is
// over, and the thread is left behind: a few at most, then further calls are refused until one has returned.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/task.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace diskferry {

/// What a call is, for errors, and how long it may take.
struct CallTerms {
  std::string operation;
  std::string object{};
  Duration limit = std::chrono::seconds(60);
  /// Whether the peer is known to be lost; asked once a second, on the waiting task's thread, so it must not
  /// block. A call that does not return then is left behind. (libvirt, where several calls wait, tells only
  /// one of them.)
  std::function<bool()> is_lost{};
};

/// The threads of one connection.
/// Thread: any. Lifetime: may end while threads that were left behind still run.
class CallThreads {
 public:
  /// Threads that may be left behind in calls that hang.
  static constexpr unsigned stuck_max = 4;

  explicit CallThreads(Clock& clock) : clock_(clock) {}

  /// Runs `work` on a thread of its own. It may outlive this task, so it owns (or shares) all it touches; it
  /// throws nothing but std::bad_alloc.
  /// Errors: those of `work`; gone when the connection was lost and the call did not return; timed_out when
  /// the limit passed: the call may still take effect later; gone when too many earlier calls hang; too_large
  /// when the system has no thread. Cancel: has no effect; the call is waited for, within its limit, so that
  /// it is known what it did.
  Task<Result<void>> run(CallTerms terms, std::function<Result<void>()> work);

  /// The same for a call that returns something.
  template <class T>
  Task<Result<T>> run_for(CallTerms terms, std::function<Result<T>()> work) {
    auto value = std::make_shared<std::optional<T>>();
    DISKFERRY_CO_CHECK(co_await run(std::move(terms), [value, work = std::move(work)]() -> Result<void> {
      DISKFERRY_TRY(*value, work());
      return {};
    }));
    co_return *std::move(*value);
  }

  /// Calls that hang at this moment, beyond their limits.
  unsigned stuck() const noexcept { return stuck_->load(); }

 private:
  Clock& clock_;
  std::shared_ptr<std::atomic<unsigned>> stuck_ = std::make_shared<std::atomic<unsigned>>(0);
};

}  // namespace diskferry
