// The current device is a Session with a number. A call uses the session that is current when its attempt
// begins; the one that finds it gone opens the next, the others wait for that. A session that was replaced is
// closed by the last call that leaves it.
#include "drivers/filters/retry.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/error_kinds.hpp"

#include <algorithm>
#include <atomic>
#include <fmt/format.h>
#include <mutex>

namespace diskferry {

Duration retry_delay(const RetryPolicy& policy, unsigned attempt) noexcept {
  Duration delay = policy.first_delay;
  for (unsigned i = 1; i < attempt && delay < policy.delay_max; ++i) delay *= 2;
  return std::min(delay, policy.delay_max);
}

namespace {

struct Session {
  Session(DevicePtr opened, std::uint64_t session_number)
      : device(std::move(opened)), number(session_number) {}
  DevicePtr device;
  const std::uint64_t number;
  unsigned calls = 0;       // under RetryDevice::guard_, as all below
  bool is_retired = false;  // no new calls; closed by the last one
  bool is_closing = false;
};
using SessionPtr = std::shared_ptr<Session>;

/// While a server restarts, its socket may be missing or its image still locked by the process that ends.
bool may_open_later(ErrorKind kind) noexcept {
  return row_of(kind).may_retry || kind == ErrorKind::not_found || kind == ErrorKind::in_use;
}

class RetryDevice final : public BlockDevice {
 public:
  RetryDevice(DevicePtr device, Reopen reopen, RetryPolicy policy, Clock& clock)
      : reopen_(std::move(reopen)),
        policy_(policy),
        clock_(clock),
        info_(device->info()),
        size_bytes_(device->size_bytes()),
        current_(std::make_shared<Session>(std::move(device), 1)) {
    // What grows would have to be compared with what it had grown to; nobody needs it over a lossy
    // connection.
    info_.can_grow = false;
  }

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    Attempts attempts(*this);
    while (true) {
      DISKFERRY_CO_TRY(Use use, co_await begin(attempts));
      auto done = co_await use.device().read(offset, into);
      DISKFERRY_CO_TRY(const bool again, co_await end(std::move(use), attempts, done));
      if (!again) co_return Result<void>{};
    }
  }

  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    Attempts attempts(*this);
    while (true) {
      DISKFERRY_CO_TRY(Use use, co_await begin(attempts));
      auto done = co_await use.device().write(offset, from, flags);
      if (done && !flags.fua) acknowledged(use);
      DISKFERRY_CO_TRY(const bool again, co_await end(std::move(use), attempts, done));
      if (!again) co_return Result<void>{};
    }
  }

  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    Attempts attempts(*this);
    while (true) {
      DISKFERRY_CO_TRY(Use use, co_await begin(attempts));
      auto done = co_await use.device().write_zeroes(range, flags);
      if (done && !flags.fua) acknowledged(use);
      DISKFERRY_CO_TRY(const bool again, co_await end(std::move(use), attempts, done));
      if (!again) co_return Result<void>{};
    }
  }

  Task<Result<void>> discard(Range range) override {
    Attempts attempts(*this);
    while (true) {
      DISKFERRY_CO_TRY(Use use, co_await begin(attempts));
      auto done = co_await use.device().discard(range);
      DISKFERRY_CO_TRY(const bool again, co_await end(std::move(use), attempts, done));
      if (!again) co_return Result<void>{};
    }
  }

  Task<Result<void>> flush() override {
    Attempts attempts(*this);
    while (true) {
      DISKFERRY_CO_TRY(Use use, co_await begin(attempts));
      const std::uint64_t covers = acknowledged_now();
      auto done = co_await use.device().flush();
      DISKFERRY_CO_CHECK(flushed(use, covers, done));
      DISKFERRY_CO_TRY(const bool again, co_await end(std::move(use), attempts, done));
      if (!again) co_return Result<void>{};
    }
  }

  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    Attempts attempts(*this);
    while (true) {
      DISKFERRY_CO_TRY(Use use, co_await begin(attempts));
      auto found = co_await use.device().extents(range, extents_max);
      Result<void> done;
      if (!found) done = unexpected(found.error());
      DISKFERRY_CO_TRY(const bool again, co_await end(std::move(use), attempts, done));
      if (!again) co_return found;
    }
  }

  Task<Result<void>> close() override {
    std::vector<SessionPtr> sessions;
    {
      std::lock_guard lock(guard_);
      sessions = std::move(unclosed_);
      sessions.push_back(current_);
      // What was found gone is closed already; what was not is closed now.
      std::erase_if(sessions,
                    [](const SessionPtr& session) { return std::exchange(session->is_closing, true); });
    }
    Result<void> closed;
    for (const SessionPtr& session : sessions) closed = co_await session->device->close();
    co_return closed;
  }

  // Hints: once, and what comes of them does not matter.
  Task<Result<void>> prefetch(Range range) override {
    if (Use use = try_begin()) {
      const auto done = co_await use.device().prefetch(range);
      co_await leave(std::move(use), done);
    }
    co_return Result<void>{};
  }
  Task<Result<void>> start_writeback(Range range) override {
    if (Use use = try_begin()) {
      const auto done = co_await use.device().start_writeback(range);
      co_await leave(std::move(use), done);
    }
    co_return Result<void>{};
  }

  std::uint64_t repeated_requests() const noexcept override {
    std::lock_guard lock(guard_);
    return repeated_ + current_->device->repeated_requests();
  }
  void stop_waiting() noexcept override {
    std::lock_guard lock(guard_);
    is_ending_ = true;
    current_->device->stop_waiting();
  }

  // At once or not at all: what fails here is taken again the long way.
  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override {
    Use use = try_begin();
    if (!use) return std::nullopt;
    auto done = use.device().try_read(offset, into);
    const bool counts = leave_quickly(std::move(use));
    return done && *done && counts ? std::move(done) : std::nullopt;
  }
  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from) override {
    Use use = try_begin();
    if (!use) return std::nullopt;
    auto done = use.device().try_write(offset, from);
    if (done && *done) acknowledged(use);
    const bool counts = leave_quickly(std::move(use));
    return done && *done && counts ? std::move(done) : std::nullopt;
  }

 private:
  /// A call's hold on a session. Given back by end() or leave_quickly(); never by the destructor, because the
  /// last one out has a device to close.
  class Use {
   public:
    Use() = default;
    explicit Use(SessionPtr session) : session_(std::move(session)) {}
    explicit operator bool() const noexcept { return session_ != nullptr; }
    BlockDevice& device() const { return *session_->device; }
    const SessionPtr& session() const { return session_; }

   private:
    SessionPtr session_;
  };

  /// How far one call has come.
  struct Attempts {
    explicit Attempts(const RetryDevice& retry)
        : ends(Clock::after(retry.clock_.now(), retry.policy_.limit)) {}
    TimePoint ends;
    unsigned made = 0;
  };

  Use try_begin() {
    std::lock_guard lock(guard_);
    if (current_->is_retired) return {};
    ++current_->calls;
    return Use(current_);
  }

  /// False when the session was retired meanwhile: then it may have to be closed, which cannot be done
  /// without waiting, and is left to the task that opens the next one.
  bool leave_quickly(Use use) {
    std::lock_guard lock(guard_);
    --use.session()->calls;
    return !use.session()->is_retired;
  }

  /// The session for the next attempt; opens a new one where the last was found gone.
  Task<Result<Use>> begin(Attempts& attempts) {
    while (true) {
      if (Use use = try_begin()) {
        ++attempts.made;
        co_return use;
      }
      // Whoever has the turn keeps it while it waits between its attempts; our own limit still holds.
      DISKFERRY_CO_TRY(
          const AsyncMutex::Lock turn,
          co_await with_deadline<AsyncMutex::Lock>(
              clock_, time_left(attempts), "wait for the storage to be opened again", opening_.lock()));
      if (!needs_opening()) continue;
      ++attempts.made;
      auto opened = co_await open_next(attempts);
      if (opened) {
        --attempts.made;  // opening and the call that it is for are one attempt
        continue;
      }
      if (!may_open_later(opened.error().kind())) co_return unexpected(std::move(opened).error());
      DISKFERRY_CO_CHECK(co_await pause(attempts, opened.error()));
    }
  }

  bool needs_opening() {
    std::lock_guard lock(guard_);
    return current_->is_retired;
  }

  /// Under `opening_`.
  Task<Result<void>> open_next(const Attempts& attempts) {
    co_await close_when_left(current_session());
    DISKFERRY_CO_TRY(auto device,
                     co_await with_deadline<DevicePtr>(clock_, time_left(attempts), "open again", reopen_()));
    if (const auto same = check_same(*device); !same) {
      (void)co_await device->close();  // the difference is what matters
      co_return same;
    }
    std::lock_guard lock(guard_);
    std::erase_if(unclosed_, [](const SessionPtr& session) { return session->is_closing; });
    if (!current_->is_closing) unclosed_.push_back(current_);
    current_ = std::make_shared<Session>(std::move(device), current_->number + 1);
    co_return Result<void>{};
  }

  Duration time_left(const Attempts& attempts) const {
    return std::max(attempts.ends - clock_.now(), Duration(1));
  }
  SessionPtr current_session() {
    std::lock_guard lock(guard_);
    return current_;
  }

  Result<void> check_same(const BlockDevice& device) const {
    const DeviceInfo& now = device.info();
    const auto differs = [&](std::string why) {
      return unexpected(fail(ErrorKind::mismatch, "open again", info_.name).why(std::move(why)));
    };
    if (device.size_bytes() != size_bytes_)
      return differs(fmt::format("it had {} bytes and has {} now", size_bytes_, device.size_bytes()));
    if (now.block_bytes > info_.block_bytes)
      return differs(fmt::format("it took blocks of {} bytes and takes blocks of {} now", info_.block_bytes,
                                 now.block_bytes));
    if (now.is_read_only && !info_.is_read_only) return differs("it was writable and is read-only now");
    return {};
  }

  Task<void> leave(Use use, const Result<void>& done) {
    {
      std::lock_guard lock(guard_);
      --use.session()->calls;
      if (!done && done.error().kind() == ErrorKind::gone) retire(*use.session());
    }
    co_await close_when_left(use.session());
  }

  /// After an attempt: false when it is done, true when to try again, else the error that stays.
  Task<Result<bool>> end(Use use, Attempts& attempts, const Result<void>& done) {
    co_await leave(std::move(use), done);
    if (done) co_return false;
    if (!row_of(done.error().kind()).may_retry) co_return unexpected(done.error());
    DISKFERRY_CO_CHECK(co_await pause(attempts, done.error()));
    co_return true;
  }

  /// guard_ is held.
  void retire(Session& session) {
    session.is_retired = true;
    // What this session acknowledged and did not flush may be gone with it.
    if (&session == current_.get() && acknowledged_ > durable_) is_lost_ = true;
  }

  /// Closes a retired session when nobody uses it any more; whoever sees that first does it.
  Task<void> close_when_left(SessionPtr session) {
    {
      std::lock_guard lock(guard_);
      if (!session->is_retired || session->calls != 0 || session->is_closing) co_return;
      session->is_closing = true;
    }
    (void)co_await session->device->close();  // it is lost anyway
  }

  /// Waits before the next attempt, or gives up with the last error.
  Task<Result<void>> pause(const Attempts& attempts, const Error& last) {
    const Duration delay = retry_delay(policy_, attempts.made);
    if (!may_repeat() || attempts.made >= policy_.attempts_max ||
        Clock::after(clock_.now(), delay) >= attempts.ends)
      co_return unexpected(last.with_step(
          fmt::format("given up after {} {}", attempts.made, attempts.made == 1 ? "attempt" : "attempts")));
    co_return co_await clock_.sleep_for(delay);
  }

  bool may_repeat() {
    std::lock_guard lock(guard_);
    if (!is_ending_) ++repeated_;
    return !is_ending_;
  }

  // What is durable. Numbers count acknowledged changes; all up to durable_ were covered by a flush.

  void acknowledged(const Use& use) {
    std::lock_guard lock(guard_);
    ++acknowledged_;
    // Answered by a session that was lost since: no flush to come can cover it.
    if (use.session()->is_retired) is_lost_ = true;
  }
  std::uint64_t acknowledged_now() {
    std::lock_guard lock(guard_);
    return acknowledged_;
  }
  /// Takes note of a flush; an error where it must fail for good.
  Result<void> flushed(Use& use, std::uint64_t covers, const Result<void>& done) {
    std::lock_guard lock(guard_);
    const bool failed = !done && done.error().kind() != ErrorKind::cancelled;
    if (failed && acknowledged_ > durable_) is_lost_ = true;
    if (is_lost_) {
      --use.session()->calls;
      if (failed && done.error().kind() == ErrorKind::gone) retire(*use.session());
      auto error = fail(ErrorKind::io, "flush", info_.name)
                       .why(
                           "writes that were acknowledged may be lost: the connection to the storage, or a "
                           "flush, failed before they were durable")
                       .remedy("open it again and write again what was written since the last flush");
      return unexpected(done ? std::move(error) : std::move(error).cause(done.error().cause()));
    }
    if (done) durable_ = std::max(durable_, covers);
    return {};
  }

  const Reopen reopen_;
  const RetryPolicy policy_;
  Clock& clock_;
  DeviceInfo info_;
  const std::uint64_t size_bytes_;
  AsyncMutex opening_;
  mutable std::mutex guard_;
  bool is_ending_ = false;  // stop_waiting() was called
  std::uint64_t repeated_ = 0;
  SessionPtr current_;
  std::vector<SessionPtr> unclosed_;  // replaced while calls ran on them
  std::uint64_t acknowledged_ = 0;
  std::uint64_t durable_ = 0;
  bool is_lost_ = false;  // for good
};

}  // namespace

DevicePtr make_retry_device(DevicePtr device, Reopen reopen, RetryPolicy policy, Clock& clock) {
  DISKFERRY_ASSERT(device && reopen, "a retry device needs a device and a way to open it again");
  return std::make_unique<RetryDevice>(std::move(device), std::move(reopen), policy, clock);
}

}  // namespace diskferry
