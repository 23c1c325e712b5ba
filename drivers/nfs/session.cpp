// Requests: sent, answered, lost. How a session comes up is in session_connect.cpp.
#include "drivers/nfs/session.hpp"

#include "drivers/nfs/callbacks.hpp"

#include <cstring>
#include <fmt/format.h>
#include <poll.h>

#include <boost/asio/post.hpp>

namespace diskferry::nfs {
namespace asio = boost::asio;

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
  const int events = (ready.readable ? POLLIN : 0) | (ready.writable ? POLLOUT : 0);
  is_in_service_ = true;
  const int served = nfs_service(context_, events);
  is_in_service_ = false;
  if (served < 0) {
    const char* said = nfs_get_error(context_);
    return lose(said == nullptr || *said == '\0' ? "the server closed the connection" : printable(said));
  }
  update_interest();
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
    if (request->verb != Verb::write) co_return Answer{.how = Answer::How::cancelled};
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
  if (context_ == nullptr || file_ == nullptr) return settle(*request, {.how = Answer::How::lost});
  if (load() == 1) last_progress_ = clock_.now();
  auto owned = std::make_unique<InFlight>(shared_from_this(), request);
  bool was_sent = false;
  {
    std::lock_guard lock(request->guard);
    if (!request->is_abandoned) was_sent = send(*request, owned.get());
  }
  if (!was_sent) return settle(*request, {.how = Answer::How::lost});
  std::ignore = owned.release();  // the callback's, which is called whatever happens
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
    case Verb::write: {
      WRITE3args arguments{};
      arguments.file = file;
      arguments.offset = request.offset;
      arguments.count = static_cast<count3>(request.from.size());
      arguments.stable = UNSTABLE;
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
  load_.fetch_sub(1, std::memory_order_relaxed);
  last_progress_ = clock_.now();
  request.finish(answer);
}

// --- standing and falling ---------------------------------------------------------------------------------

bool NfsSession::go_up() {
  if (context_ == nullptr) return false;
  last_progress_ = clock_.now();
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
  // Called about once a second: twice is long enough for who presses Ctrl-C.
  if (is_up() && abandoned_writes_.load(std::memory_order_relaxed) != 0 && std::exchange(has_waited_, true))
    return lose("a request that was cancelled was not answered");
  has_waited_ = abandoned_writes_.load(std::memory_order_relaxed) != 0;
  if (!is_up() || load() == 0 || clock_.now() - last_progress_ < endpoint_.stall_limit) return;
  lose(fmt::format("no answer for {} s", std::chrono::duration<double>(endpoint_.stall_limit).count()));
}

std::string NfsSession::loss_reason() const {
  std::lock_guard lock(guard_);
  return loss_reason_;
}

}  // namespace diskferry::nfs
