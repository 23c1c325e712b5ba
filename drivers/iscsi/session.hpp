// Session: one libiscsi context on one reactor, logged in to a target. It says when it is lost; what happens
// then is the business of storage.hpp. libiscsi reconnects by itself only in a way that pollers do not
// survive and that may write into other files of the process, so that is switched off: a session that is lost
// gets a new context. It has the same ISID again: for the target it is the old session that comes back, and
// whatever that had still to do is ended there before (RFC 7143, 6.3.5).
#pragma once

#include "drivers/iscsi/endpoint.hpp"
#include "drivers/iscsi/logins.hpp"
#include "drivers/iscsi/request.hpp"
#include "drivers/support/fd_watcher.hpp"
#include "drivers/support/session_pool.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

struct iscsi_context;

namespace diskferry::iscsi {

/// What both sides prove themselves with. Never in a text.
struct Secrets {
  std::string password{};
  std::string target_password{};
};

/// Tells the target which of our sessions this is: unique with the initiator's name.
struct SessionId {
  std::uint32_t random = 0;  ///< 24 bits, one for the device
  std::uint16_t number = 0;
};

SessionId new_session_id();
/// Of a login or a look that had no end, `error`: what the deadline gave.
Error no_answer(const Endpoint& endpoint, Error error);

/// Thread: perform(), wait_until_up() and logins() from any; all else on executor()'s.
class IscsiSession final : public Session, public std::enable_shared_from_this<IscsiSession> {
 public:
  /// Lifetime: the references outlive the session.
  IscsiSession(Executor executor, const Endpoint& endpoint, const Secrets& secrets, Clock& clock,
               SessionId id);
  ~IscsiSession() override;

  /// Connects and logs in. Errors: as Driver::open. Cancel: gives up; drop() is to be called where this or
  /// what follows it fails.
  Task<Result<void>> log_in();
  void drop();
  /// Until it is answered for good: what a new session is told first, and a busy target, are waited for.
  /// Before the session is up, and when it is not any more. Errors: gone; of the answer only Verdict::refused
  /// is left. Cancel: ends the session.
  Task<Result<Answer>> ask(Command command, Memory memory);
  /// Names the life of the LUN's power that answers from now on belong to.
  void set_verifier(std::uint64_t verifier) noexcept { verifier_ = verifier; }
  /// What is done before an orderly end of a session that is registered with the LUN.
  void set_farewell(std::function<Task<void>(IscsiSession&)> farewell) { farewell_ = std::move(farewell); }
  /// The target said so, at any time. Thread: any.
  bool was_preempted() const noexcept { return was_preempted_.load(std::memory_order_relaxed); }

  bool go_up() override;
  Task<Result<void>> wait_until_down() override;
  Task<void> disconnect(Duration limit) override;
  void check_progress() override;
  std::string loss_reason() const override;

  /// Sends the request and waits for its answer. Cancel: waits for the answer all the same, for two seconds
  /// at most; then the session is given up.
  Task<Answer> perform(Request& request);
  /// Errors: cancelled.
  Task<Result<void>> wait_until_up();
  Logins& logins() noexcept { return logins_; }

 private:
  friend struct Callbacks;
  /// A step of libiscsi, given as a function that starts it; negative: it was not started.
  using Start = std::function<int(iscsi_context* context)>;
  enum class StepEnd : std::uint8_t { well, badly, elsewhere };

  Task<Result<StepEnd>> step(std::string operation, Start start);
  void end_step(StepEnd end, std::string said);
  Task<Result<void>> log_in_at(Portal portal);
  Task<Result<StepEnd>> log_in_once(std::string address);
  Result<void> make_context();
  Task<void> say_goodbye();

  void begin(Request& request);
  bool send(Request& request);
  void take_answer(Request& request, int status);
  void finish(Request& request, const Answer& answer);
  void take_nop(bool is_answered);
  void on_ready(FdWatcher::Ready ready);
  void update_interest();
  bool is_sending() const;
  void finish_drained();
  void lose(std::string reason);
  std::string library_text() const;

  const Endpoint& endpoint_;
  const Secrets& secrets_;
  Clock& clock_;
  const SessionId id_;
  std::function<Task<void>(IscsiSession&)> farewell_;

  iscsi_context* context_ = nullptr;
  FdWatcher watcher_;
  std::vector<Request*> in_flight_;
  std::size_t draining_ = 0;  // answered, and libiscsi still has some of their data to send
  bool is_in_service_ = false;
  bool is_nop_in_flight_ = false;
  std::string doom_;  // why it has to end as soon as the library is left
  std::uint64_t verifier_ = 0;
  TimePoint last_heard_{};
  std::atomic<bool> was_preempted_ = false;
  std::atomic<unsigned> abandoned_ = 0;
  bool has_waited_ = false;  // for them, since the last look
  Logins logins_;

  mutable std::mutex guard_;
  WaitQueue down_;
  WaitQueue up_;
  WaitQueue step_waiting_;
  std::optional<StepEnd> step_end_;
  std::string step_said_;  // why it ended badly, or where the target sends us, in its words
  std::string loss_reason_;
};

}  // namespace diskferry::iscsi
