// SessionPool: the connections of one device to its server, kept standing. A lost one is brought back, a
// request that has none waits, and there is an end to waiting. What a request is, and whether it may be sent
// again, is the driver's business: NBD, NFS and iSCSI have that each their own way.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/sync.hpp"
#include "diskferry/task_group.hpp"

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace diskferry {

/// How many connections a device is to have.
struct ConnectionCounts {
  unsigned in_uri = 0;        ///< the key `connections`; 0: not given
  unsigned bound = 0;         ///< OpenOptions::connections; 0: none
  std::size_t otherwise = 1;  ///< the driver's choice
};
constexpr std::size_t wanted_connections(const ConnectionCounts& counts) noexcept {
  const std::size_t wanted = counts.in_uri == 0 ? counts.otherwise : counts.in_uri;
  return counts.bound == 0 ? wanted : std::min<std::size_t>(wanted, counts.bound);
}

/// To a server over a network, where a driver knows no better: two for each thread that works, and as many as
/// nbdcopy's at least.
constexpr std::size_t usual_connections(std::size_t reactors, std::size_t connections_max) noexcept {
  constexpr std::size_t connections_min = 4;
  return std::clamp(2 * reactors, connections_min, connections_max);
}

/// One connection on one reactor. Thread: is_up() and load() from any; all else on executor()'s thread.
class Session {
 public:
  explicit Session(Executor executor) : executor_(std::move(executor)) {}
  virtual ~Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Executor& executor() const noexcept { return executor_; }
  bool is_up() const noexcept { return is_up_.load(std::memory_order_acquire); }
  /// Requests in flight and queued.
  unsigned load() const noexcept { return load_.load(std::memory_order_relaxed); }

  /// Lets requests in, once it is connected. False where the server has gone away since.
  virtual bool go_up() = 0;
  /// Errors: cancelled.
  virtual Task<Result<void>> wait_until_down() = 0;
  /// Finishes in order where it is up, within `limit`. No request may be in flight.
  virtual Task<void> disconnect(Duration limit) = 0;
  /// Looks for requests without progress, or cancelled and not let go. Called about once a second.
  virtual void check_progress() = 0;
  /// Why the connection was lost the last time; empty: it was not.
  virtual std::string loss_reason() const = 0;

 protected:
  std::atomic<bool> is_up_ = false;
  std::atomic<unsigned> load_ = 0;

 private:
  const Executor executor_;
};

struct SessionPoolOptions {
  std::string name{};          ///< of the storage, for messages
  Duration reconnect_limit{};  ///< how long a request waits for a connection before the storage is gone
  Duration stall_limit{};  ///< without a sign of life; how often check_progress() is called follows from it
  /// A server that refuses us (`permission`) for so long means it, and the storage is gone. Before, it may
  /// have been started just now, and be without its users, rights or exports yet, or have ended in a TLS
  /// handshake.
  Duration refusal_limit = std::chrono::seconds(10);
  /// Connects a session that is down, and refuses with `mismatch` where the server came back as another. On
  /// the session's thread. Of what it fails with, `mismatch`, `read_only`, `unsupported` and a lasting
  /// `permission` end the waiting for the server; all else is tried again.
  std::function<Task<Result<void>>(std::shared_ptr<Session>)> connect{};
};

/// Thread: any, but add(), start() and close(), which are called once each.
class SessionPool {
 public:
  /// Lifetime: `reactors` and `clock` outlive the pool.
  SessionPool(std::span<const Executor> reactors, Clock& clock, SessionPoolOptions options);

  /// Before start(). One that has been connected is kept so; the others are tried for as long as it takes, as
  /// a server may allow fewer than we would like.
  void add(std::shared_ptr<Session> session, bool is_connected);
  void start();
  /// No request may be running.
  Task<void> close();

  /// The reactor that `executor` is; their number where it is none.
  std::size_t reactor_of(const Executor& executor) const noexcept;
  /// The session that is up, fits, and costs a request from `reactor` least; nullptr: none.
  template <class Fits>
  Session* choose(std::size_t reactor, Fits fits) const noexcept {
    Session* best = nullptr;
    unsigned best_cost = 0;
    for (const Entry& one : sessions_) {
      if (!one.session->is_up() || !fits(*one.session)) continue;
      const unsigned cost = one.session->load() + (one.reactor == reactor ? 0 : hop_cost_requests);
      if (best == nullptr || cost < best_cost) {
        best = one.session.get();
        best_cost = cost;
      }
    }
    return best;
  }
  unsigned size() const noexcept { return static_cast<unsigned>(sessions_.size()); }
  unsigned count_up() const noexcept;

  /// Waits until a session is up, and declares the storage gone where none is at `until`. Errors: gone,
  /// cancelled, and whatever the storage was declared gone with.
  Task<Result<void>> wait_for_session(TimePoint until);
  TimePoint give_up_time() const { return Clock::after(clock_.now(), options_.reconnect_limit); }
  /// The error that the storage was declared gone with.
  Result<void> check_gone() const;
  /// " (why)" of a session that was lost; empty when none was.
  std::string loss_reason() const;
  /// From now on a request waits for a lost connection for a second at most.
  void stop_waiting() noexcept { is_ending_.store(true, std::memory_order_relaxed); }

 private:
  /// A thread hop there and back costs about as much as waiting behind this many requests.
  static constexpr unsigned hop_cost_requests = 8;
  struct Entry {
    std::shared_ptr<Session> session;
    std::size_t reactor;
    bool is_connected;
  };

  Task<Result<void>> establish(std::shared_ptr<Session> session);
  /// Tries until it stands. Errors: cancelled; what ends the trying.
  Task<Result<void>> bring_back(std::shared_ptr<Session> session, bool has_stood);
  bool is_last_word(ErrorKind kind, std::optional<TimePoint>& refused_since) const;
  Task<Result<void>> keep(std::shared_ptr<Session> session, bool is_connected);
  Task<Result<void>> watch_progress(std::shared_ptr<Session> session);
  Task<Result<void>> wait_until_up();
  void declare_gone(Error error);

  const std::span<const Executor> reactors_;
  Clock& clock_;
  const SessionPoolOptions options_;
  std::vector<Entry> sessions_;
  TaskGroup keepers_;

  std::atomic<bool> is_ending_ = false;
  std::atomic<bool> is_gone_ = false;
  mutable std::mutex guard_;
  std::optional<Error> gone_;
  std::string last_failure_;  // of an attempt to reconnect
  WaitQueue waiting_;         // for a session to come up, or for the end
};

}  // namespace diskferry
