// The current device is a Session with a number. A call uses the session that is current when its attempt
// begins; the one that finds it gone opens the next, the others wait for that. A session that was replaced is
// closed by the last call that leaves it. What is kept (KeptWrites) changes when a call has succeeded and
// before it leaves its session: who has waited for all to leave finds everything there.
#include "drivers/filters/retry.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/error_kinds.hpp"
#include "drivers/filters/kept_writes.hpp"
#include "drivers/support/range_lock.hpp"

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
  bool is_closed = false;
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
    // What grows would have to be compared with what it had grown to, and what is not kept may be missing.
    if (policy_.keep_bytes_max == 0) info_.can_grow = false;
  }

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    // What is kept when the read begins: newer than what the storage has, or the same.
    const auto kept = kept_of({offset, into.size()});
    std::size_t kept_bytes = 0;
    for (const KeptWrites::Piece& piece : kept) kept_bytes += piece.range.length;
    if (kept_bytes != into.size()) DISKFERRY_CO_CHECK(co_await read_storage(offset, into));
    for (const KeptWrites::Piece& piece : kept) {
      const auto part = into.subspan(piece.range.offset - offset, piece.range.length);
      if (piece.content) {
        std::ranges::copy(piece.bytes(), part.begin());
      } else {
        std::ranges::fill(part, std::byte{0});
      }
    }
    co_return Result<void>{};
  }

  Task<Result<void>> read_storage(std::uint64_t offset, std::span<std::byte> into) {
    Attempts attempts(*this);
    while (true) {
      DISKFERRY_CO_TRY(Use use, co_await begin(attempts));
      auto done = co_await use.device().read(offset, into);
      DISKFERRY_CO_TRY(const bool again, co_await end(std::move(use), attempts, done));
      if (!again) co_return Result<void>{};
    }
  }

  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    const Range range{offset, from.size()};
    RangeLock::Hold hold;
    KeptWrites::Content content;
    if (keeps()) {
      DISKFERRY_CO_CHECK(co_await prepare_change(hold, range));
      if (!flags.fua) content = KeptWrites::copy_of(from);
    }
    Attempts attempts(*this);
    while (true) {
      DISKFERRY_CO_TRY(Use use, co_await begin(attempts));
      auto done = co_await use.device().write(offset, from, flags);
      if (done) {
        changed(use, range, flags.fua, [&](KeptWrites& kept) { kept.put(offset, std::move(content)); });
      }
      DISKFERRY_CO_TRY(const bool again, co_await end(std::move(use), attempts, done));
      if (!again) co_return Result<void>{};
    }
  }

  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    RangeLock::Hold hold;
    if (keeps()) DISKFERRY_CO_CHECK(co_await prepare_change(hold, range));
    Attempts attempts(*this);
    while (true) {
      DISKFERRY_CO_TRY(Use use, co_await begin(attempts));
      auto done = co_await use.device().write_zeroes(range, flags);
      if (done) {
        changed(use, range, flags.fua, [&](KeptWrites& kept) { kept.put_zeros(range, flags.may_unmap); });
      }
      DISKFERRY_CO_TRY(const bool again, co_await end(std::move(use), attempts, done));
      if (!again) co_return Result<void>{};
    }
  }

  Task<Result<void>> discard(Range range) override {
    RangeLock::Hold hold;
    if (keeps()) DISKFERRY_CO_CHECK(co_await prepare_change(hold, range));
    Attempts attempts(*this);
    while (true) {
      DISKFERRY_CO_TRY(Use use, co_await begin(attempts));
      auto done = co_await use.device().discard(range);
      if (done && keeps()) forget(range);
      DISKFERRY_CO_TRY(const bool again, co_await end(std::move(use), attempts, done));
      if (!again) co_return Result<void>{};
    }
  }

  Task<Result<void>> flush() override {
    Attempts attempts(*this);
    while (true) {
      DISKFERRY_CO_TRY(Use use, co_await begin(attempts));
      const Covered covers = covered_now();
      auto done = co_await use.device().flush();
      DISKFERRY_CO_CHECK(flushed(use, covers, done));
      DISKFERRY_CO_TRY(const bool again, co_await end(std::move(use), attempts, done));
      if (!again) co_return Result<void>{};
    }
  }

  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    if (const auto first = first_kept_of(range)) {
      // The storage may say of it what was there before.
      if (first->range.offset == range.offset)
        co_return std::vector<Extent>{
            {.offset = range.offset, .length = first->range.length, .reads_zero = first->content == nullptr}};
      range.length = first->range.offset - range.offset;
    }
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
    if (!current_->is_closing) current_->device->stop_waiting();
  }

  // At once or not at all: what fails here is taken again the long way.
  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override {
    if (first_kept_of({offset, into.size()})) return std::nullopt;
    Use use = try_begin();
    if (!use) return std::nullopt;
    auto done = use.device().try_read(offset, into);
    const bool counts = leave_quickly(std::move(use));
    return done && *done && counts ? std::move(done) : std::nullopt;
  }
  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from) override {
    if (keeps()) return std::nullopt;
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
    bool has_met_loss = false;
    bool has_failed = false;   // otherwise than by a loss, and was repeated
    bool is_hopeless = false;  // the storage is there again, and does not take what is kept
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
    left(*use.session());
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
      if (attempts.is_hopeless || !may_open_later(opened.error().kind()))
        co_return unexpected(std::move(opened).error());
      DISKFERRY_CO_CHECK(co_await pause(attempts, opened.error()));
    }
  }

  bool needs_opening() {
    std::lock_guard lock(guard_);
    return current_->is_retired;
  }

  /// Under `opening_`.
  Task<Result<void>> open_next(Attempts& attempts) {
    co_await close_when_left(current_session());
    if (keeps())
      DISKFERRY_CO_CHECK(co_await with_deadline<void>(clock_, time_left(attempts),
                                                      "wait for what is under way on the lost connection",
                                                      until_closed(current_session())));
    DISKFERRY_CO_TRY(auto device,
                     co_await with_deadline<DevicePtr>(clock_, time_left(attempts), "open again", reopen_()));
    std::uint64_t given_bytes = 0;
    Result<void> usable = check_same(*device);
    if (usable && keeps()) {
      usable = co_await give_what_is_kept(*device, given_bytes);
      attempts.is_hopeless = !usable && !policy_.repeats_failures && usable.error().kind() != ErrorKind::gone;
    }
    if (!usable) {
      (void)co_await device->close();  // the difference, or the failure, is what matters
      co_return usable;
    }
    if (policy_.on_reopened) policy_.on_reopened(given_bytes);
    std::lock_guard lock(guard_);
    if (is_ending_) device->stop_waiting();
    std::erase_if(unclosed_, [](const SessionPtr& session) { return session->is_closing; });
    if (!current_->is_closing) unclosed_.push_back(current_);
    current_ = std::make_shared<Session>(std::move(device), current_->number + 1);
    co_return Result<void>{};
  }

  Duration time_left(const Attempts& attempts) const {
    const Duration left = std::max(attempts.ends - clock_.now(), Duration(1));
    std::lock_guard lock(guard_);
    return is_ending_ ? std::min<Duration>(left, std::chrono::seconds(1)) : left;
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
    if (device.size_bytes() != size_bytes_ && !info_.can_grow)
      return differs(fmt::format("it had {} bytes and has {} now", size_bytes(), device.size_bytes()));
    if (now.block_bytes > info_.block_bytes)
      return differs(fmt::format("it took blocks of {} bytes and takes blocks of {} now", info_.block_bytes,
                                 now.block_bytes));
    if (now.is_read_only && !info_.is_read_only) return differs("it was writable and is read-only now");
    return {};
  }

  Task<void> leave(Use use, const Result<void>& done) {
    {
      std::lock_guard lock(guard_);
      left(*use.session());
      if (!done && done.error().kind() == ErrorKind::gone) retire(*use.session());
    }
    co_await close_when_left(use.session());
  }

  /// After an attempt: false when it is done, true when to try again, else the error that stays.
  Task<Result<bool>> end(Use use, Attempts& attempts, const Result<void>& done) {
    const SessionPtr session = use.session();
    co_await leave(std::move(use), done);
    if (done) co_return false;
    if (!repeats(*session, attempts, done.error().kind())) co_return unexpected(done.error());
    // A driver may have waited for long until it said so.
    if (keeps() && !std::exchange(attempts.has_met_loss, true))
      attempts.ends = Clock::after(clock_.now(), policy_.limit);
    DISKFERRY_CO_CHECK(co_await pause(attempts, done.error()));
    co_return true;
  }

  bool repeats(const Session& session, Attempts& attempts, ErrorKind kind) {
    if (!is_on() || !row_of(kind).may_retry) return false;
    if (policy_.repeats_failures || kind == ErrorKind::gone) return true;
    // On a connection that was given up meanwhile it says little; that once, on the next one, is enough.
    std::lock_guard lock(guard_);
    return session.is_retired && !std::exchange(attempts.has_failed, true);
  }

  /// guard_ is held.
  void left(Session& session) {
    --session.calls;
    if (session.calls == 0) left_.wake_all();
  }
  /// guard_ is held.
  void retire(Session& session) {
    if (!is_on()) return;
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
    std::lock_guard lock(guard_);
    session->is_closed = true;
    left_.wake_all();
  }
  /// Of a retired session.
  Task<Result<void>> until_closed(SessionPtr session) {
    std::unique_lock lock(guard_);
    while (!session->is_closed) {
      if (!co_await left_.wait(lock)) co_return unexpected(fail(ErrorKind::cancelled, "open again"));
      lock.lock();
    }
    co_return Result<void>{};
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

  // What is kept.

  bool is_on() const noexcept { return !policy_.is_on || *policy_.is_on; }
  bool keeps() const noexcept { return policy_.keep_bytes_max != 0 && is_on(); }
  std::vector<KeptWrites::Piece> kept_of(Range range) {
    if (policy_.keep_bytes_max == 0) return {};
    std::lock_guard lock(guard_);
    return kept_.within(range);
  }
  std::optional<KeptWrites::Piece> first_kept_of(Range range) {
    if (policy_.keep_bytes_max == 0) return std::nullopt;
    std::lock_guard lock(guard_);
    return kept_.first_within(range);
  }
  void forget(Range range) {
    std::lock_guard lock(guard_);
    kept_.forget(range);
  }
  std::uint64_t kept_bytes() {
    std::lock_guard lock(guard_);
    return kept_.used_bytes();
  }

  /// Before a change of that range: nobody else changes any of it while `hold` is held, and there is room.
  Task<Result<void>> prepare_change(RangeLock::Hold& hold, Range range) {
    // Whoever comes first past the half flushes, and the others need not wait for that.
    if (kept_bytes() > policy_.keep_bytes_max / 2) {
      auto turn = making_room_.try_lock();
      if (!turn && kept_bytes() + range.length > policy_.keep_bytes_max) {
        DISKFERRY_CO_TRY(turn, co_await making_room_.lock());
      }
      if (turn && kept_bytes() > policy_.keep_bytes_max / 2) DISKFERRY_CO_CHECK(co_await flush());
    }
    co_return co_await changing_.lock(hold, range, RangeLock::Mode::exclusive);
  }

  /// A change was acknowledged; `put` keeps it, where it has to be kept.
  template <class Put>
  void changed(const Use& use, Range range, bool is_durable, Put put) {
    std::lock_guard lock(guard_);
    if (info_.can_grow && range.end() > size_bytes_) size_bytes_ = range.end();
    if (keeps()) {
      if (is_durable) {
        kept_.forget(range);
      } else {
        put(kept_);
      }
    } else if (!is_durable) {
      acknowledged_on(*use.session());
    }
  }

  /// To storage that was opened again, before anybody else reaches it.
  Task<Result<void>> give_what_is_kept(BlockDevice& device, std::uint64_t& given_bytes) {
    std::vector<KeptWrites::Piece> kept;
    {
      std::lock_guard lock(guard_);
      kept = kept_.all();
    }
    for (const KeptWrites::Piece& piece : kept) {
      DISKFERRY_CO_CHECK(co_await give(device, piece));
      given_bytes += piece.range.length;
    }
    if (!kept.empty()) DISKFERRY_CO_CHECK(co_await device.flush());
    if (device.size_bytes() < size_bytes_)
      co_return unexpected(
          fail(ErrorKind::mismatch, "open again", info_.name)
              .why(fmt::format("it had {} bytes and has {} now", size_bytes(), device.size_bytes())));
    std::lock_guard lock(guard_);
    kept_.forget_until(kept_.newest());
    repeated_ += kept.size();
    co_return Result<void>{};
  }
  static Task<Result<void>> give(BlockDevice& device, const KeptWrites::Piece& piece) {
    if (!piece.content) co_return co_await device.write_zeroes(piece.range, {.may_unmap = piece.may_unmap});
    const std::size_t step = device.info().request_bytes_max;
    for (std::size_t at = 0; at < piece.range.length; at += step) {
      const auto part = piece.bytes().subspan(at, std::min(step, piece.range.length - at));
      DISKFERRY_CO_CHECK(co_await device.write(piece.range.offset + at, part, {}));
    }
    co_return Result<void>{};
  }

  // What is durable, where it is not kept. Numbers count acknowledged changes; all up to durable_ were
  // covered by a flush.

  void acknowledged(const Use& use) {
    std::lock_guard lock(guard_);
    acknowledged_on(*use.session());
  }
  /// guard_ is held.
  void acknowledged_on(const Session& session) {
    if (!is_on()) return;
    ++acknowledged_;
    // Answered by a session that was lost since: no flush to come can cover it.
    if (session.is_retired) is_lost_ = true;
  }
  struct Covered {
    std::uint64_t acknowledged;
    std::uint64_t kept;
  };
  Covered covered_now() {
    std::lock_guard lock(guard_);
    return {acknowledged_, kept_.newest()};
  }
  /// Takes note of a flush; an error where it must fail for good.
  Result<void> flushed(Use& use, Covered covers, const Result<void>& done) {
    std::lock_guard lock(guard_);
    const bool failed = !done && done.error().kind() != ErrorKind::cancelled;
    if (done) kept_.forget_until(covers.kept);
    // Storage that failed a flush may say yes to the next one: it must have everything again.
    if (failed && !kept_.empty()) retire(*use.session());
    if (failed && acknowledged_ > durable_) is_lost_ = true;
    if (is_lost_) {
      left(*use.session());
      if (failed && done.error().kind() == ErrorKind::gone) retire(*use.session());
      auto error = fail(ErrorKind::io, "flush", info_.name)
                       .why(
                           "writes that were acknowledged may be lost: the connection to the storage, or a "
                           "flush, failed before they were durable")
                       .remedy("open it again and write again what was written since the last flush");
      return unexpected(done ? std::move(error) : std::move(error).cause(done.error().cause()));
    }
    if (done) durable_ = std::max(durable_, covers.acknowledged);
    return {};
  }

  const Reopen reopen_;
  const RetryPolicy policy_;
  Clock& clock_;
  DeviceInfo info_;
  std::atomic<std::uint64_t> size_bytes_;
  AsyncMutex opening_;
  AsyncMutex making_room_;
  RangeLock changing_;
  mutable std::mutex guard_;
  KeptWrites kept_{};
  WaitQueue left_;          // a session has no calls any more, or is closed
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
