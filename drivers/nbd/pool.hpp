// Pool: the connections of one device. It chooses one for each request, brings lost ones back, sends a
// request again where that is safe, and gives up when the server stays away or comes back as another. What is
// promised across a lost connection is written in docs/decisions/0003-nbd-reconnect.md.
#pragma once

#include "diskferry/task_group.hpp"
#include "drivers/nbd/connection.hpp"

#include <memory>
#include <vector>

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
  Task<void> close();

  const ServerInfo& server() const noexcept { return server_; }
  const Endpoint& endpoint() const noexcept { return endpoint_; }
  unsigned connections_wanted() const noexcept { return static_cast<unsigned>(connections_.size()); }
  unsigned connections_up() const noexcept;
  /// Requests that were sent again, because a connection was lost with them. Thread: any.
  std::uint64_t repeated_requests() const noexcept { return repeated_.load(std::memory_order_relaxed); }
  /// From now on a request waits for a lost connection for at most `ending_limit`. Thread: any.
  void stop_waiting() noexcept { is_ending_.store(true, std::memory_order_relaxed); }

 private:
  Connection* choose(const Request& request, std::size_t reactor) const noexcept;
  std::size_t reactor_of(const Executor& executor) const noexcept;
  bool can_cover_unflushed() const noexcept;
  Task<Result<void>> establish(std::shared_ptr<Connection> connection);
  Task<Result<void>> bring_back(std::shared_ptr<Connection> connection);
  Task<Result<void>> keep(std::shared_ptr<Connection> connection, bool is_first);
  Task<Result<void>> watch_progress(std::shared_ptr<Connection> connection);
  Task<Result<void>> wait_for_connection(TimePoint until);
  Task<Result<void>> wait_until_up();
  void declare_gone(Error error);
  Result<void> check_gone() const;
  /// " (why)" of a connection that was lost; empty when none was.
  std::string loss_reason() const;
  Error lost_for_good(const Request& request) const;
  Error flush_not_covered() const;

  DriverContext& context_;
  const Endpoint endpoint_;
  ServerInfo server_;
  WriteCount writes_;
  std::vector<std::shared_ptr<Connection>> connections_;
  std::vector<std::size_t> reactor_of_connection_;
  TaskGroup keepers_;

  std::atomic<std::uint64_t> repeated_ = 0;
  std::atomic<bool> is_ending_ = false;
  std::atomic<bool> is_gone_ = false;
  mutable std::mutex guard_;
  std::optional<Error> gone_;
  std::string last_failure_;  // of an attempt to reconnect
  WaitQueue waiting_;         // for a connection to come up, or for the end
};

}  // namespace diskferry::nbd
