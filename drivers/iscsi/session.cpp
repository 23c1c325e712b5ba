// Requests: sent, answered, lost. How a session comes up and ends is in session_connect.cpp.
#include "drivers/iscsi/session.hpp"

#include "drivers/iscsi/callbacks.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <poll.h>

#include <boost/asio/post.hpp>

namespace diskferry::iscsi {
namespace asio = boost::asio;

namespace {
/// A target that was silent for this long is asked whether it is there.
constexpr Duration nop_interval_max = std::chrono::seconds(5);
constexpr int nops_per_stall = 3;
/// A target that is there, and does not answer a command for this many stall limits, has lost it.
constexpr int stalls_per_command = 4;
}  // namespace

IscsiSession::IscsiSession(Executor executor, const Endpoint& endpoint, const Secrets& secrets, Clock& clock,
                           SessionId id)
    : Session(executor),
      endpoint_(endpoint),
      secrets_(secrets),
      clock_(clock),
      id_(id),
      watcher_(std::move(executor), [this](FdWatcher::Ready ready) { on_ready(ready); }) {}

IscsiSession::~IscsiSession() {
  DISKFERRY_ASSERT(context_ == nullptr, "an iSCSI session is destroyed before it was closed");
}

// --- the library's turn -----------------------------------------------------------------------------------

void IscsiSession::on_ready(FdWatcher::Ready ready) {
  if (context_ == nullptr) return;
  if (ready.readable) last_heard_ = clock_.now();
  const int events = (ready.readable ? POLLIN : 0) | (ready.writable ? POLLOUT : 0);
  is_in_service_ = true;
  const int served = iscsi_service(context_, events);
  is_in_service_ = false;
  if (!doom_.empty()) return lose(std::exchange(doom_, {}));
  if (served < 0) return lose(library_text());
  finish_drained();
  update_interest();
}

void IscsiSession::update_interest() {
  const int events = iscsi_which_events(context_);  // never 0: that is of its own reconnecting
  watcher_.want((events & POLLIN) != 0, (events & POLLOUT) != 0);
}

std::string IscsiSession::library_text() const {
  const char* said = context_ == nullptr ? nullptr : iscsi_get_error(context_);
  const std::string_view text = said == nullptr ? std::string_view{} : std::string_view(said);
  // What it says where it has nothing to say is about its own reconnecting.
  return text.empty() || text.starts_with("iscsi_service_reconnect") ? "the target closed the connection"
                                                                     : printable(text);
}

/// Not inside the library: its callbacks are called once more, for all that was in flight.
void IscsiSession::lose(std::string reason) {
  {
    std::lock_guard lock(guard_);
    loss_reason_ = std::move(reason);
    is_up_.store(false);
    down_.wake_all();
  }
  drop();
}

void IscsiSession::drop() {
  watcher_.stop();
  if (iscsi_context* const context = std::exchange(context_, nullptr)) iscsi_destroy_context(context);
  // The library does not call back where the login was not complete, or a logout was.
  while (!in_flight_.empty()) {
    Request& request = *in_flight_.back();
    finish(request, request.is_draining ? request.answer : Answer{.how = Answer::How::lost});
  }
  draining_ = 0;
  is_nop_in_flight_ = false;
  doom_.clear();
  end_step(StepEnd::badly, loss_reason());
}

// --- requests ---------------------------------------------------------------------------------------------

Task<Answer> IscsiSession::perform(Request& request) {
  load_.fetch_add(1, std::memory_order_relaxed);
  const bool is_here = (co_await asio::this_coro::executor) == executor();
  if (is_here) {
    begin(request);
  } else {
    asio::post(executor(), [self = shared_from_this(), &request] { self->begin(request); });
  }
  bool was_cancelled = false;
  std::unique_lock lock(request.guard);
  while (!request.is_answered) {
    if (was_cancelled) {
      co_await request.waiting.wait_uncancelled(lock);
    } else if (!co_await request.waiting.wait(lock)) {
      was_cancelled = true;
      abandoned_.fetch_add(1, std::memory_order_relaxed);
      // Nobody looks after a session that is not up.
      if (is_here && !is_up()) lose("given up");
    }
    lock.lock();
  }
  if (was_cancelled) abandoned_.fetch_sub(1, std::memory_order_relaxed);
  if (was_cancelled && request.answer.how == Answer::How::lost)
    co_return Answer{.how = Answer::How::cancelled};
  co_return request.answer;
}

void IscsiSession::begin(Request& request) {
  const bool is_taken = context_ != nullptr && (is_up() || request.is_question) && send(request);
  if (!is_taken) {
    load_.fetch_sub(1, std::memory_order_relaxed);
    return request.finish({.how = Answer::How::lost});
  }
  if (!is_in_service_) on_ready({.readable = false, .writable = true});
}

bool IscsiSession::send(Request& request) {
  static_assert(sizeof(iovec) == sizeof(scsi_iovec));
  const std::size_t bytes = request.memory.into.size() + request.memory.from.size();
  const int direction = !request.memory.into.empty()   ? SCSI_XFER_READ
                        : !request.memory.from.empty() ? SCSI_XFER_WRITE
                                                       : SCSI_XFER_NONE;
  auto command = request.command.bytes;
  request.task = scsi_create_task(request.command.length, command.data(), direction, static_cast<int>(bytes));
  if (request.task == nullptr) return false;
  // It does not write to what it sends.
  request.vector = direction == SCSI_XFER_READ
                       ? iovec{request.memory.into.data(), bytes}
                       : iovec{const_cast<std::byte*>(request.memory.from.data()), bytes};
  auto* const vector = reinterpret_cast<scsi_iovec*>(&request.vector);
  if (direction == SCSI_XFER_READ) scsi_task_set_iov_in(request.task, vector, 1);
  if (direction == SCSI_XFER_WRITE) scsi_task_set_iov_out(request.task, vector, 1);
  request.session = this;
  request.sent_at = clock_.now();
  if (in_flight_.empty() && !is_nop_in_flight_) last_heard_ = request.sent_at;
  // Beyond 255 LUNs have another form on the wire (SAM-5, 4.7.7): it is for us to make.
  constexpr unsigned peripheral_max = 255;
  constexpr unsigned flat = 0x4000;
  const unsigned lun = endpoint_.lun <= peripheral_max ? endpoint_.lun : flat | endpoint_.lun;
  if (iscsi_scsi_command_async(context_, static_cast<int>(lun), request.task, Callbacks::answered, nullptr,
                               &request) != 0) {
    scsi_free_scsi_task(std::exchange(request.task, nullptr));
    return false;
  }
  request.login = logins_.last();
  request.slot = in_flight_.size();
  in_flight_.push_back(&request);
  return true;
}

namespace {
Sense sense_of(const scsi_task& task) {
  return {.key = static_cast<std::uint8_t>(task.sense.key),
          .code = static_cast<std::uint16_t>(task.sense.ascq),
          .is_deferred = task.sense.error_type == SCSI_SENSE_FIXED_DEFERRED_ERRORS ||
                         task.sense.error_type == SCSI_SENSE_DESCRIPTOR_DEFERRED_ERRORS};
}
/// Some targets name a residue of more than there was.
std::uint32_t bytes_of(const scsi_task& task) {
  const auto expected = static_cast<std::uint32_t>(task.expxferlen);
  if (task.residual_status != SCSI_RESIDUAL_UNDERFLOW) return expected;
  return expected - static_cast<std::uint32_t>(std::min<std::size_t>(task.residual, expected));
}
}  // namespace

void IscsiSession::take_answer(Request& request, int status) {
  if (status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR || status == SCSI_STATUS_TIMEOUT) {
    if (is_in_service_ && doom_.empty()) doom_ = library_text();
    return finish(request, {.how = Answer::How::lost});
  }
  Answer answer{.how = Answer::How::given, .status = status, .verifier = verifier_};
  if (status == SCSI_STATUS_CHECK_CONDITION) answer.sense = sense_of(*request.task);
  if (status == SCSI_STATUS_GOOD) answer.bytes = bytes_of(*request.task);
  if (is_preemption(answer.sense)) was_preempted_.store(true, std::memory_order_relaxed);
  // Who is registered meets a conflict where the target has forgotten that: a LUN that was made anew.
  const bool is_forgotten = farewell_ != nullptr && is_reserved(status);
  if (is_up() && (is_forgotten || judge(answer.status, answer.sense) == Verdict::new_look)) {
    if (doom_.empty()) doom_ = "the LUN was reset or changed: " + describe(answer.status, answer.sense);
    answer.how = Answer::How::lost;
  }
  // A target may refuse a write before it has all of its data. What is queued of them refers to the task and
  // to the memory.
  if (status != SCSI_STATUS_GOOD && !request.memory.from.empty() && is_sending()) {
    request.is_draining = true;
    request.answer = answer;
    ++draining_;
    return;
  }
  finish(request, answer);
}

bool IscsiSession::is_sending() const {
  return iscsi_out_queue_length(context_) != 0 || (iscsi_which_events(context_) & POLLOUT) != 0;
}

void IscsiSession::finish_drained() {
  if (draining_ == 0 || is_sending()) return;
  for (std::size_t i = in_flight_.size(); i-- > 0;) {
    Request& request = *in_flight_[i];
    if (request.is_draining) finish(request, request.answer);
  }
  draining_ = 0;
}

void IscsiSession::finish(Request& request, const Answer& answer) {
  const Answer copy = answer;
  scsi_free_scsi_task(std::exchange(request.task, nullptr));
  in_flight_[request.slot] = in_flight_.back();
  in_flight_[request.slot]->slot = request.slot;
  in_flight_.pop_back();
  load_.fetch_sub(1, std::memory_order_relaxed);
  request.finish(copy);
}

void IscsiSession::take_nop(bool is_answered) {
  is_nop_in_flight_ = false;
  if (is_answered) last_heard_ = clock_.now();
}

// --- standing and falling ---------------------------------------------------------------------------------

bool IscsiSession::go_up() {
  if (context_ == nullptr) return false;
  last_heard_ = clock_.now();
  std::lock_guard lock(guard_);
  is_up_.store(true, std::memory_order_release);
  up_.wake_all();
  return true;
}

Task<Result<void>> IscsiSession::wait_until_up() {
  std::unique_lock lock(guard_);
  while (!is_up()) {
    if (!co_await up_.wait(lock))
      co_return unexpected(cancelled_error("wait for the target", endpoint_.name));
    lock.lock();
  }
  co_return Result<void>{};
}

Task<Result<void>> IscsiSession::wait_until_down() {
  std::unique_lock lock(guard_);
  while (is_up()) {
    if (!co_await down_.wait(lock))
      co_return unexpected(cancelled_error("wait for the target", endpoint_.name));
    lock.lock();
  }
  co_return Result<void>{};
}

void IscsiSession::check_progress() {
  if (!is_up()) return;
  // Called about once a second: twice is long enough for who presses Ctrl-C, and for a refused write.
  const bool has_to_end = abandoned_.load(std::memory_order_relaxed) != 0 || draining_ != 0;
  if (std::exchange(has_waited_, has_to_end) && has_to_end)
    return lose("a request that was cancelled or refused did not end");
  const TimePoint now = clock_.now();
  const Duration silence = now - last_heard_;
  const auto limit_text = [&] { return std::chrono::duration<double>(endpoint_.stall_limit).count(); };
  if (silence >= endpoint_.stall_limit && (!in_flight_.empty() || is_nop_in_flight_))
    return lose(fmt::format("no sign of life for {} s", limit_text()));
  const auto is_forgotten = [&](const Request* request) {
    return now - request->sent_at >= stalls_per_command * endpoint_.stall_limit;
  };
  if (std::ranges::any_of(in_flight_, is_forgotten))
    return lose(fmt::format("a command was not answered for {} s", stalls_per_command * limit_text()));
  const Duration interval = std::min<Duration>(nop_interval_max, endpoint_.stall_limit / nops_per_stall);
  if (silence < interval || is_nop_in_flight_) return;
  if (in_flight_.empty()) last_heard_ = now;  // the silence begins with the question
  if (iscsi_nop_out_async(context_, Callbacks::nop_answered, nullptr, 0, this) != 0)
    return lose(library_text());
  is_nop_in_flight_ = true;
  on_ready({.readable = false, .writable = true});
}

std::string IscsiSession::loss_reason() const {
  std::lock_guard lock(guard_);
  return loss_reason_;
}

}  // namespace diskferry::iscsi
