// Requests: sent, answered, lost. How a session comes up is in session_connect.cpp.
#include "drivers/nfs/session.hpp"

#include "drivers/nfs/callbacks.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <poll.h>

#include <boost/asio/post.hpp>

namespace diskferry::nfs {
namespace asio = boost::asio;

namespace {
/// A server that was silent for this long while it has something to do is asked whether it is there.
constexpr Duration null_interval_max = std::chrono::seconds(5);
constexpr int nulls_per_stall = 3;
}  // namespace

NfsSession::NfsSession(Executor executor, const Endpoint& endpoint, Clock& clock, Purpose purpose)
    : Session(executor),
      endpoint_(endpoint),
      clock_(clock),
      purpose_(purpose),
      watcher_(std::move(executor), [this](FdWatcher::Ready ready) { on_ready(ready); }) {}

NfsSession::~NfsSession() {
  DISKFERRY_ASSERT(context_ == nullptr, "an NFS session is destroyed before it was closed");
}

// --- the library's turn -----------------------------------------------------------------------------------

void NfsSession::on_ready(FdWatcher::Ready ready) {
  if (context_ == nullptr) return;
  if (ready.readable) last_heard_ = clock_.now();
  const int events = (ready.readable ? POLLIN : 0) | (ready.writable ? POLLOUT : 0);
  is_in_service_ = true;
  const int served = nfs_service(context_, events);
  is_in_service_ = false;
  if (served < 0) return lose(library_text("the server closed the connection"));
  if (!doom_.empty()) return lose(std::exchange(doom_, {}));
  update_interest();
}

std::string NfsSession::library_text(std::string_view otherwise) const {
  const char* const said = context_ == nullptr ? nullptr : nfs_get_error(context_);
  return said == nullptr || *said == '\0' ? std::string(otherwise) : printable(said);
}

Error NfsSession::lost(std::string operation) const {
  return fail(ErrorKind::gone, std::move(operation), endpoint_.name).why(loss_reason());
}

void NfsSession::update_interest() {
  if (auto watched = watcher_.watch(nfs_get_fd(context_)); !watched) return lose(watched.error().message());
  const int events = nfs_which_events(context_);
  watcher_.want((events & POLLIN) != 0, (events & POLLOUT) != 0);
}

/// Not inside the library: its callbacks are called once more, for all that was in flight.
void NfsSession::lose(std::string reason) {
  {
    std::lock_guard lock(guard_);
    loss_reason_ = std::move(reason);
    is_up_.store(false);
    down_.wake_all();
  }
  drop_context();
}

void NfsSession::drop_context() {
  watcher_.stop();
  nfsfh* const file = std::exchange(file_, nullptr);
  nfs_context* const context = std::exchange(context_, nullptr);
  if (context == nullptr) return;
  // Destroying the context does not free the file.
  if (file != nullptr) nfs_close_async(context, file, Callbacks::nothing, nullptr);
  nfs_destroy_context(context);
  is_null_in_flight_ = false;
  doom_.clear();
}

// --- requests ---------------------------------------------------------------------------------------------

Task<Answer> NfsSession::perform(std::shared_ptr<Request> request) {
  load_.fetch_add(1, std::memory_order_relaxed);
  asio::post(executor(), [self = shared_from_this(), request] { self->begin(request); });
  std::unique_lock lock(request->guard);
  while (!request->is_answered) {
    const bool was_woken = co_await request->waiting.wait(lock);
    lock.lock();
    if (was_woken || request->is_answered) continue;
    request->is_abandoned = true;
    // Later versions of the library write from the caller's memory, so that it has to be done with it.
    if (request->from.empty()) co_return Answer{.how = Answer::How::cancelled};
    abandoned_writes_.fetch_add(1, std::memory_order_relaxed);
    while (!request->is_answered) {
      co_await request->waiting.wait_uncancelled(lock);
      lock.lock();
    }
    abandoned_writes_.fetch_sub(1, std::memory_order_relaxed);
    co_return Answer{.how = Answer::How::cancelled};
  }
  co_return request->answer;
}

void NfsSession::begin(const std::shared_ptr<Request>& request) {
  // It was posted: the session may have been lost since, and be coming up again, with a file that nobody has
  // compared yet with the one that was there.
  bool was_sent = false;
  if (is_up() && context_ != nullptr && file_ != nullptr) {
    auto owned = std::make_unique<InFlight>(shared_from_this(), request);
    std::lock_guard lock(request->guard);
    if (!request->is_abandoned) was_sent = send(*request, owned.get());
    if (was_sent) std::ignore = owned.release();  // the callback's, which is called whatever happens
  }
  if (!was_sent) {
    load_.fetch_sub(1, std::memory_order_relaxed);
    return request->finish({.how = Answer::How::lost});
  }
  request->sent_at = clock_.now();
  if (in_flight_.empty() && !is_null_in_flight_) last_heard_ = request->sent_at;
  request->slot = in_flight_.size();
  in_flight_.push_back(request.get());
  if (!is_in_service_) on_ready({.writable = true});
}

bool NfsSession::send(const Request& request, InFlight* owned) {
  rpc_context* const rpc = nfs_get_rpc_context(context_);
  if (endpoint_.version == 4)
    return nfs_pread_async(context_, file_, request.offset, request.into.size(), Callbacks::read_v4, owned) ==
           0;
  const auto found = handle_of(file_);
  if (!found) return false;
  const nfs_fh3 file = *found;
  switch (request.verb) {
    case Verb::read: {
      READ3args arguments{
          .file = file, .offset = request.offset, .count = static_cast<count3>(request.into.size())};
      return rpc_nfs3_read_async(rpc, Callbacks::read, &arguments, owned) == 0;
    }
    case Verb::write:
    case Verb::write_durably: {
      WRITE3args arguments{};
      arguments.file = file;
      arguments.offset = request.offset;
      arguments.count = static_cast<count3>(request.from.size());
      arguments.stable = request.verb == Verb::write ? UNSTABLE : FILE_SYNC;
      arguments.data.data_len = static_cast<unsigned>(request.from.size());
      // The library copies it before it returns, and does not write to it.
      arguments.data.data_val = const_cast<char*>(reinterpret_cast<const char*>(request.from.data()));
      return rpc_nfs3_write_async(rpc, Callbacks::write, &arguments, owned) == 0;
    }
    case Verb::commit: {
      COMMIT3args arguments{.file = file, .offset = 0, .count = 0};
      return rpc_nfs3_commit_async(rpc, Callbacks::commit, &arguments, owned) == 0;
    }
  }
  return false;
}

void NfsSession::settle(Request& request, const Answer& answer) {
  // The connection stands, and the server does not know us any more (NFSv4), or says what makes no sense: a
  // new session may fare better.
  if (answer.how == Answer::How::lost && is_in_service_ && doom_.empty())
    doom_ = library_text("the server does not answer as it should");
  in_flight_[request.slot] = in_flight_.back();
  in_flight_[request.slot]->slot = request.slot;
  in_flight_.pop_back();
  load_.fetch_sub(1, std::memory_order_relaxed);
  request.finish(answer);
}

/// A server that is busy with what it was asked for answers this all the same.
bool NfsSession::send_null() {
  rpc_context* const rpc = nfs_get_rpc_context(context_);
  const int failed = endpoint_.version == 4 ? rpc_nfs4_null_async(rpc, Callbacks::null_answered, this)
                                            : rpc_nfs3_null_async(rpc, Callbacks::null_answered, this);
  return failed == 0;
}

// --- standing and falling ---------------------------------------------------------------------------------

bool NfsSession::go_up() {
  if (context_ == nullptr) return false;
  last_heard_ = clock_.now();
  is_up_.store(true, std::memory_order_release);
  return true;
}

Task<Result<void>> NfsSession::wait_until_down() {
  std::unique_lock lock(guard_);
  while (is_up()) {
    if (!co_await down_.wait(lock))
      co_return unexpected(cancelled_error("wait for the server", endpoint_.name));
    lock.lock();
  }
  co_return Result<void>{};
}

Task<void> NfsSession::disconnect(Duration) {
  // An NFS server keeps nothing of a client that unmounts in order, but a line in a list.
  {
    std::lock_guard lock(guard_);
    is_up_.store(false);
    down_.wake_all();
  }
  drop_context();
  co_return;
}

void NfsSession::check_progress() {
  if (!is_up()) return;
  // Called about once a second: twice is long enough for who presses Ctrl-C.
  const bool has_to_end = abandoned_writes_.load(std::memory_order_relaxed) != 0;
  if (std::exchange(has_waited_, has_to_end) && has_to_end)
    return lose("a request that was cancelled was not answered");
  const TimePoint now = clock_.now();
  const Duration silence = now - last_heard_;
  if (silence >= endpoint_.stall_limit && (!in_flight_.empty() || is_null_in_flight_))
    return lose(
        fmt::format("no answer for {} s", std::chrono::duration<double>(endpoint_.stall_limit).count()));
  const auto overdue = std::ranges::find_if(
      in_flight_, [&](const Request* request) { return is_overdue(*request, now, endpoint_.stall_limit); });
  if (overdue != in_flight_.end())
    return lose(fmt::format("the server does not answer a request to {}", to_string((*overdue)->verb)));
  const Duration interval = std::min<Duration>(null_interval_max, endpoint_.stall_limit / nulls_per_stall);
  if (silence < interval || in_flight_.empty() || is_null_in_flight_) return;
  if (!send_null()) return lose(library_text("a request was not sent"));
  is_null_in_flight_ = true;
  on_ready({.writable = true});
}

std::string NfsSession::loss_reason() const {
  std::lock_guard lock(guard_);
  return loss_reason_;
}

}  // namespace diskferry::nfs
