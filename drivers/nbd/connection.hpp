// Connection: one libnbd handle on one reactor. It sends requests within its bounds, resumes whoever waits
// for one, and says when it is lost; what happens then is the pool's business. libnbd holds its handle's lock
// while it calls us, so a callback of libnbd only notes what happened: everything else is done when libnbd
// has returned.
#pragma once

#include "diskferry/driver.hpp"
#include "drivers/nbd/handshake.hpp"
#include "drivers/nbd/request.hpp"
#include "drivers/support/fd_watcher.hpp"

#include <atomic>
#include <memory>
#include <mutex>

namespace diskferry::nbd {

/// Requests and payload in flight on one connection. nbdcopy's authors found 64 and 16 MiB by measuring: more
/// helps nobody and only fills the server's memory.
inline constexpr unsigned requests_in_flight_max = 64;
inline constexpr std::uint64_t payload_in_flight_max = std::uint64_t{16} << 20;

/// Which writes a flush has to cover, counted over all connections of a device.
struct WriteCount {
  std::atomic<std::uint64_t> acknowledged = 0;  ///< writes the server has answered
  std::atomic<std::uint64_t> flushed = 0;       ///< the first so many of them are durable
};

/// Thread: perform(), is_up(), load() and covers_unflushed() from any; all else on executor()'s thread.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Executor executor, const Endpoint& endpoint, Clock& clock, WriteCount& writes);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const Executor& executor() const noexcept { return executor_; }

  /// Connects and negotiates within the endpoint's limit. The connection is not used before go_up().
  /// Errors: as Driver::open. Cancel: gives up and closes.
  Task<Result<ServerInfo>> connect(BlockingPool& blocking_pool);
  /// Lets requests in. False where the server has gone away since connect().
  bool go_up();
  /// Waits until the connection is down. Errors: cancelled.
  Task<Result<void>> wait_until_down();
  /// Finishes in order (NBD_CMD_DISC) where it is up, within `limit`. No request may be in flight.
  Task<void> disconnect(Duration limit);

  /// Sends the request, or queues it where the bounds are reached, and completes with how it left. `caller`
  /// is the executor that awaits. Lifetime: the request and its memory until then. Cancel: a queued request
  /// is withdrawn; one in flight is waited for, and the connection dropped where that takes longer than a
  /// second, because libnbd cannot take back a command.
  auto perform(Request& request, const Executor& caller, bool is_local) {
    return boost::asio::async_initiate<const Request::Token, void(Outcome)>(
        [this, &request, &caller, is_local](Request::Handler handler) {
          start(request, std::move(handler), caller, is_local);
        },
        Request::Token{});
  }

  bool is_up() const noexcept { return is_up_.load(std::memory_order_acquire); }
  /// Requests in flight and queued.
  unsigned load() const noexcept { return load_.load(std::memory_order_relaxed); }
  /// True where this connection has stood since before the first write that is not flushed yet was
  /// acknowledged: the server at its other end is the one that took them, and a flush through it covers them.
  bool covers_unflushed() const noexcept { return established_.load() <= writes_.flushed.load(); }

  /// Looks for requests without progress, or cancelled and not let go. Called about once a second.
  void check_progress();
  /// Why the connection was lost the last time.
  std::string loss_reason() const;

 private:
  enum class Phase : std::uint8_t { closed, connecting, ready, closing };

  void start(Request& request, Request::Handler handler, const Executor& caller, bool is_local);
  void cancel(std::uint64_t id);
  void submit(Request& request);
  bool fits(const Request& request) const noexcept;
  void issue(Request& request);
  void pump();
  void on_ready(FdWatcher::Ready ready);
  void go_on_negotiating(bool failed);
  void settle();
  void end_round();
  void end_round_soon();
  void update_interest();
  void deliver_done();
  void deliver(Request& request);
  void retire(Request& request, Outcome outcome);
  void lose(Outcome::How how, std::string reason);
  Task<Result<void>> negotiate(BlockingPool& blocking_pool);
  Task<Result<void>> wait_until_settled();
  static int on_complete(void* user_data, int* error) noexcept;
  static int on_negotiated(void* user_data, int* error) noexcept;
  static Outcome outcome_of(Request& request, int error);

  const Executor executor_;
  const Endpoint& endpoint_;
  Clock& clock_;
  WriteCount& writes_;

  Handle handle_;
  FdWatcher watcher_;
  Phase phase_ = Phase::closed;
  std::string server_text_;
  std::optional<LibraryError> negotiation_error_;
  bool is_settled_ = false;
  bool has_asked_for_export_ = false;
  bool has_gone_up_ = false;

  RequestList queued_;
  RequestList in_flight_;
  RequestList done_;  // completed inside libnbd, not resumed yet
  unsigned in_flight_count_ = 0;
  std::uint64_t in_flight_bytes_ = 0;
  std::uint64_t completed_ = 0;
  bool in_round_ = false;
  bool round_is_posted_ = false;
  bool server_shuts_down_ = false;
  TimePoint last_progress_{};

  std::atomic<bool> is_up_ = false;
  std::atomic<unsigned> load_ = 0;
  std::atomic<std::uint64_t> established_ = 0;
  std::atomic<std::uint64_t> next_id_ = 1;

  mutable std::mutex guard_;
  WaitQueue settled_;
  WaitQueue down_;
  std::string loss_reason_;
};

}  // namespace diskferry::nbd
