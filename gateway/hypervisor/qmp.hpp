// A client of QEMU's monitor (QMP) on a UNIX socket: commands with replies, and the stream of events. The
// peer may hang, lie or vanish; every wait has a limit, and what is kept of it is bounded.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/task.hpp"
#include "gateway/hypervisor/qmp_message.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace diskferry {

struct QmpState;

/// Thread: all members on the executor of the task that connected; tasks on it may call side by side.
/// Lifetime: close() before destruction.
class Qmp {
 public:
  /// The newest events that are kept for wait_event(); of bytes as many as of one line.
  static constexpr std::size_t events_max = 4096;
  /// Commands that wait for their replies, and those given up whose replies may still come.
  static constexpr std::size_t commands_max = 64;
  static constexpr Duration command_limit = std::chrono::seconds(30);

  /// Connects and leaves the negotiation mode. Errors: not_found (no such socket), gone (nobody listens),
  /// permission, protocol, too_large, timed_out (10 s: QEMU serves one client at a time), cancelled.
  static Task<Result<std::unique_ptr<Qmp>>> connect(Clock& clock, std::string socket_path);
  ~Qmp();
  Qmp(const Qmp&) = delete;
  Qmp& operator=(const Qmp&) = delete;

  /// Runs a command and returns what it returned.
  /// Errors: QEMU's (kind by class and words, words in why()); gone and protocol when the connection is lost,
  /// and so it is from then on; timed_out, cancelled: the command may still take effect.
  Task<Result<boost::json::value>> execute(std::string command, boost::json::object arguments = {},
                                           Duration limit = command_limit);

  /// Events that came so far: where a wait begins that must not miss what comes from now on.
  std::uint64_t event_count() const;
  /// The first event from number `from` on that the predicate takes, waiting for it where it has not come.
  /// Errors: timed_out, cancelled, gone, protocol; too_large when events between were dropped because too
  /// many came.
  Task<Result<QmpEvent>> wait_event(std::uint64_t from, std::function<bool(const QmpEvent&)> predicate,
                                    std::string what, Duration limit);

  QmpVersion version() const;
  /// Ends the connection; QEMU goes on. Waiting calls end with gone.
  Task<void> close();

 private:
  explicit Qmp(std::unique_ptr<QmpState> state);
  std::unique_ptr<QmpState> state_;
};

}  // namespace diskferry
