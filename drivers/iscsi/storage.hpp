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
  /// Any length. `may_unmap`: only where the LUN says that what is unmapped reads as zeros.
  Task<Result<void>> zero(Range range, bool may_unmap);
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
    std::optional<TimePoint> lost_until{};
    TimePoint busy_until{};
    Duration pause{};
    unsigned at_once = 0;
    IscsiSession* only = nullptr;  ///< which may still do it, until it is logged in again
  };

  std::shared_ptr<IscsiSession> make_session(std::size_t number) const;
  Task<Result<LunFacts>> establish(std::shared_ptr<IscsiSession> session);
  Task<Result<void>> connect(std::shared_ptr<Session> session);
  /// Until it is answered with yes, or with no for good.
  Task<Result<Answer>> perform(Command command, Memory memory);
  Task<Result<IscsiSession*>> choose(std::size_t reactor, Attempts& attempts);
  Task<Result<void>> wait_to_try_again(Verdict verdict, const Answer& answer, const Command& command,
                                       Attempts& attempts);
  Task<Result<void>> change(Command command, Memory memory);
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
  std::atomic<bool> is_ending_ = false;
  std::atomic<bool> is_preempted_ = false;  // and nothing is done any more
  std::atomic<std::uint64_t> repeated_ = 0;
  Unflushed unflushed_{};
  AsyncMutex flushing_{};
};

}  // namespace diskferry::iscsi
