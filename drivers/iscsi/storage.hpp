// Storage: one LUN, through several sessions. It sends again what was lost or refused for a passing reason,
// keeps the LUN reserved while it is written to, and knows which writes the target may have lost with its
// power.
#pragma once

#include "diskferry/driver.hpp"
#include "diskferry/sync.hpp"
#include "drivers/iscsi/claim.hpp"
#include "drivers/iscsi/lun.hpp"
#include "drivers/iscsi/session.hpp"
#include "drivers/support/unflushed.hpp"

namespace diskferry::iscsi {

enum class Purpose : std::uint8_t { read, write };

/// Thread: the verbs from any, many at once; open() and close() once.
class Storage {
 public:
  Storage(DriverContext& context, Endpoint endpoint, Secrets secrets, Processes processes, Purpose purpose);

  /// `wanted`: the operator's bound of connections, 0: none. Errors: as Driver::open.
  Task<Result<void>> open(unsigned wanted);
  Task<void> close() { return sessions_.close(); }

  /// At most transfer_bytes_max() at once.
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into);
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, bool fua);
  /// Any length; not durable. What a target refuses is done in another way, and not asked for again. Errors:
  /// unsupported (only with fast_only, and then nothing was changed).
  Task<Result<void>> zero(Range range, ZeroFlags flags);
  Task<Result<void>> discard(Range range);
  Task<Result<void>> flush();
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max);

  const Endpoint& endpoint() const noexcept { return endpoint_; }
  const LunFacts& facts() const noexcept { return facts_; }
  std::uint32_t transfer_bytes_max() const noexcept;
  unsigned connections() const noexcept { return sessions_.size(); }
  std::uint64_t repeated_requests() const noexcept { return repeated_.load(std::memory_order_relaxed); }
  void stop_waiting() noexcept {
    is_ending_.store(true, std::memory_order_relaxed);
    sessions_.stop_waiting();
  }

 private:
  struct Attempts {
    Attempts() = default;
    Attempts(const Attempts&) = delete;
    Attempts& operator=(const Attempts&) = delete;
    /// A change that ends with an error while `only` may still do it: later ones wait for that session.
    ~Attempts() {
      if (only != nullptr) only->logins().abandon(login);
    }

    std::optional<TimePoint> lost_until{};
    TimePoint busy_until{};
    Duration pause{};
    unsigned at_once = 0;
    IscsiSession* only = nullptr;  ///< which may still do it, until it is logged in again
    std::uint64_t login = 0;       ///< of `only`: the last one that it was sent after
  };

  std::shared_ptr<IscsiSession> make_session(std::size_t number) const;
  void add(std::shared_ptr<IscsiSession> session, bool is_connected);
  Task<Result<LunFacts>> establish(std::shared_ptr<IscsiSession> session);
  Task<Result<void>> connect(std::shared_ptr<Session> session);
  /// Until it is answered with yes, or with no for good.
  Task<Result<Answer>> perform(Command command, Memory memory);
  Task<Result<IscsiSession*>> choose(std::size_t reactor, const Command& command, Attempts& attempts);
  /// Which may still do a change that was given up; nullptr: none.
  IscsiSession* session_with_abandoned() const noexcept;
  Task<Result<void>> wait_to_try_again(Verdict verdict, const Answer& answer, const Command& command,
                                       Attempts& attempts);
  Task<Result<void>> change(Command command, Memory memory);
  /// Takes off `range` what reads as zeros then. The rest has to be zeroed in another way: the target does
  /// not take this one.
  Task<Result<void>> write_same(Range& range, bool unmaps);
  Task<Result<void>> write_zeros(Range range);
  bool may_lose_writes() const noexcept { return facts_.may_have_cache; }
  Error lost_writes(std::string verb) const;

  DriverContext& context_;
  const Endpoint endpoint_;
  const Secrets secrets_;
  const Purpose purpose_;
  const SessionId session_id_;
  Claim claim_;
  LunFacts facts_{};
  bool is_open_ = false;  // and facts_ are what the LUN has to keep to
  SessionPool sessions_;
  std::vector<IscsiSession*> all_sessions_{};  // of the pool
  std::atomic<bool> is_ending_ = false;
  std::atomic<bool> is_preempted_ = false;  // and nothing is done any more
  std::atomic<std::uint64_t> repeated_ = 0;
  // WRITE SAME with UNMAP, and without: what the LUN says, until it refuses one.
  std::atomic<bool> unmaps_same_ = false;
  std::atomic<bool> writes_same_ = false;
  Unflushed unflushed_{};
  AsyncMutex flushing_{};
};

}  // namespace diskferry::iscsi
