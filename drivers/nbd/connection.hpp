// Connection: one libnbd handle on one reactor. It sends requests within its bounds, resumes whoever waits
// for one, and says when it is lost; what happens then is the pool's business. libnbd holds its handle's lock
// while it calls us, so a callback of libnbd only notes what happened: everything else is done when libnbd
// has returned.
#pragma once

#include "diskferry/driver.hpp"
#include "drivers/nbd/handshake.hpp"
#include "drivers/nbd/request.hpp"
#include "drivers/support/fd_watcher.hpp"
#include "drivers/support/session_pool.hpp"

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

/// Thread: perform() and covers_unflushed() from any, too.
class Connection final : public Session, public std::enable_shared_from_this<Connection> {
 public:
  Connection(Executor executor, const Endpoint& endpoint, Clock& clock, WriteCount& writes);
  ~Connection() override;

  /// Connects and negotiates within the endpoint's limit. The connection is not used before go_up().
  /// Errors: as Driver::open. Cancel: gives up and closes.
  Task<Result<ServerInfo>> connect(BlockingPool& blocking_pool);
  bool go_up() override;
  Task<Result<void>> wait_until_down() override;
  /// Finishes with NBD_CMD_DISC.
  Task<void> disconnect(Duration limit) override;

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

  /// True where this connection has stood since before the first write that is not flushed yet was
  /// acknowledged: the server at its other end is the one that took them, and a flush through it covers them.
  bool covers_unflushed() const noexcept { return established_.load() <= writes_.flushed.load(); }

  void check_progress() override;
  std::string loss_reason() const override;

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

  std::atomic<std::uint64_t> established_ = 0;
  std::atomic<std::uint64_t> next_id_ = 1;

  mutable std::mutex guard_;
  WaitQueue settled_;
  WaitQueue down_;
  std::string loss_reason_;
};

}  // namespace diskferry::nbd
