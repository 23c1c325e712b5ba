// Storage: one file on an NFS server, through several sessions. It sends again what was lost or asked to come
// later, and knows by the server's verifier which writes were not made durable before it was restarted.
#pragma once

#include "diskferry/driver.hpp"
#include "diskferry/sync.hpp"
#include "drivers/nfs/session.hpp"
#include "drivers/support/unflushed.hpp"

namespace diskferry::nfs {

/// Thread: the verbs from any, many at once; open() and close() once.
class Storage {
 public:
  Storage(DriverContext& context, Endpoint endpoint, Purpose purpose);

  /// `wanted`: the operator's bound of connections, 0: none. Errors: as Driver::open.
  Task<Result<void>> open(unsigned wanted);
  Task<void> close() { return sessions_.close(); }

  /// What is more than the server takes at once goes there in parts, all of them together. `fua`: it is
  /// durable before the task completes.
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into);
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, bool fua);
  Task<Result<void>> flush();

  const Endpoint& endpoint() const noexcept { return endpoint_; }
  const FileFacts& facts() const noexcept { return facts_; }
  unsigned connections() const noexcept { return sessions_.size(); }
  /// Grows with what is written past the end.
  std::uint64_t size_bytes() const noexcept { return size_bytes_.load(); }
  std::uint64_t repeated_requests() const noexcept { return repeated_.load(std::memory_order_relaxed); }
  void stop_waiting() noexcept { sessions_.stop_waiting(); }

 private:
  Task<Result<void>> connect(std::shared_ptr<Session> session);
  /// At most what the server takes at once. It may do less: then it is asked for the rest.
  Task<Result<void>> read_part(std::uint64_t offset, std::span<std::byte> into);
  Task<Result<void>> write_part(Verb verb, std::uint64_t offset, std::span<const std::byte> from);
  /// Until it is answered with yes, or no for good.
  Task<Result<Answer>> perform(std::shared_ptr<Request> request);
  Error refusal(const Request& request, const Answer& answer) const;
  Error lost_writes() const;

  DriverContext& context_;
  const Endpoint endpoint_;
  const Purpose purpose_;
  FileFacts facts_{};
  std::atomic<std::uint64_t> size_bytes_ = 0;
  SessionPool sessions_;
  std::atomic<std::uint64_t> repeated_ = 0;
  Unflushed unflushed_{};
  AsyncMutex flushing_{};
};

}  // namespace diskferry::nfs
