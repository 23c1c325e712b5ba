// Pool: the connections of one device, which SessionPool keeps standing. It sends a request again where that
// is safe, and knows a server that came back as another. What is promised across a lost connection is written
// in docs/decisions/0003-nbd-reconnect.md.
#pragma once

#include "drivers/nbd/connection.hpp"

#include <atomic>
#include <memory>

namespace diskferry::nbd {

/// Thread: execute() from any executor thread, many at once; open() and close() once.
class Pool {
 public:
  Pool(DriverContext& context, Endpoint endpoint);

  /// Connects once and starts to add the others the server allows; `wanted` is the operator's upper bound, 0:
  /// none. Errors: as Driver::open; nothing is left behind then.
  Task<Result<void>> open(unsigned wanted);
  /// Performs one request, over as many connections as it takes. Lifetime: the request until the task ends.
  /// Errors: cancelled, permission, read_only, no_space, unsupported, io, gone, mismatch (the server came
  /// back as another), protocol.
  Task<Result<void>> execute(Request& request);
  /// No request may be running.
  Task<void> close() { return sessions_.close(); }

  const ServerInfo& server() const noexcept { return server_; }
  const Endpoint& endpoint() const noexcept { return endpoint_; }
  unsigned connections_wanted() const noexcept { return sessions_.size(); }
  /// Requests that were sent again, because a connection was lost with them. Thread: any.
  std::uint64_t repeated_requests() const noexcept { return repeated_.load(std::memory_order_relaxed); }
  /// See SessionPool. Thread: any.
  void stop_waiting() noexcept { sessions_.stop_waiting(); }

 private:
  Task<Result<void>> connect(std::shared_ptr<Session> session);
  bool can_take(const Session& session, const Request& request) const noexcept;
  Error lost_for_good(const Request& request) const;
  Error flush_not_covered() const;

  DriverContext& context_;
  const Endpoint endpoint_;
  ServerInfo server_;
  WriteCount writes_;
  SessionPool sessions_;
  std::atomic<std::uint64_t> repeated_ = 0;
};

}  // namespace diskferry::nbd
