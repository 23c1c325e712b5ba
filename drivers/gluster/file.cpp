// Requests: handed to the library, answered on one of its threads. How a file is opened is in file_open.cpp.
#include "drivers/gluster/file.hpp"

#include "diskferry/task_group.hpp"

#include <cerrno>
#include <cstring>
#include <glusterfs/api/glfs.h>

#include <boost/asio/this_coro.hpp>

namespace diskferry::gluster {
namespace {

/// Of a change that was cancelled: longer than any brick that works takes, and short for who waits.
constexpr Duration cancel_limit = std::chrono::seconds(2);

/// One request under way, shared by who waits and who answers.
struct Transfer {
  explicit Transfer(const Call& what) : call(what) {}

  const Call call;
  std::mutex guard{};
  WaitQueue waiting{};
  bool is_begun = false;
  bool is_with_library = false;  ///< the library copies what is written before it returns
  bool is_answered = false;
  bool is_left = false;  ///< nobody waits, and the caller's memory is not ours any more
  Abandoned abandoned{};
  Answer answer{};
  /// What is read goes here first: the library may be at it for a minute after the caller has left.
  std::unique_ptr<std::byte[]> buffer{};

  void finish(Answer with) {
    std::lock_guard lock(guard);
    answer = with;
    is_answered = true;
    if (is_left && abandoned) abandoned->fetch_sub(1);
    if (!is_left && call.verb == Verb::read && answer.number == 0)
      std::memcpy(call.into.data(), buffer.get(), std::min(answer.bytes, call.into.size()));
    waiting.wake_all();
  }
};

/// What the library holds while it has a request.
struct Owned {
  std::shared_ptr<Transfer> transfer;
  OpenFilePtr file;
};

void on_answer(glfs_fd*, ssize_t result, struct glfs_stat*, struct glfs_stat*, void* data) {
  const int number = errno;
  const std::unique_ptr<Owned> owned(static_cast<Owned*>(data));
  Answer answer;
  if (result < 0)
    answer.number = number != 0 ? number : EIO;
  else
    answer.bytes = static_cast<std::size_t>(result);
  owned->transfer->finish(answer);
}

int start(glfs_fd* fd, Transfer& transfer, Owned* owned) {
  const Call& call = transfer.call;
  const auto offset = static_cast<off_t>(call.offset);
  switch (call.verb) {
    case Verb::read:
      transfer.buffer = std::make_unique_for_overwrite<std::byte[]>(call.into.size());
      return glfs_pread_async(fd, transfer.buffer.get(), call.into.size(), offset, 0, on_answer, owned);
    case Verb::write:
      return glfs_pwrite_async(fd, call.from.data(), static_cast<int>(call.from.size()), offset, 0, on_answer,
                               owned);
    case Verb::punch:
      return glfs_discard_async(fd, offset, call.length, on_answer, owned);
    case Verb::fill:
      return glfs_zerofill_async(fd, offset, static_cast<off_t>(call.length), on_answer, owned);
    case Verb::flush:
      return glfs_fsync_async(fd, on_answer, owned);
  }
  return -1;
}

/// On a thread of the volume.
void begin(const std::shared_ptr<Transfer>& transfer, const OpenFilePtr& file) {
  {
    std::lock_guard lock(transfer->guard);
    if (transfer->is_left) return;
    transfer->is_begun = true;
    transfer->is_with_library = true;
  }
  auto owned = std::make_unique<Owned>(transfer, file);
  errno = 0;
  // May answer before it returns.
  const int failed = start(file->fd(), *transfer, owned.get());
  const int number = errno;
  if (failed == 0) std::ignore = owned.release();  // the callback's
  if (failed != 0) transfer->finish({.number = number != 0 ? number : EIO});
  std::lock_guard lock(transfer->guard);
  transfer->is_with_library = false;
  transfer->waiting.wake_all();
}

Task<Result<void>> wake_after(Clock& clock, std::shared_ptr<Transfer> transfer, bool& is_over) {
  (void)co_await clock.sleep_for(cancel_limit);
  std::lock_guard lock(transfer->guard);
  is_over = true;
  transfer->waiting.wake_all();
  co_return Result<void>{};
}

/// Of a change that the library has: until it is answered, or for `cancel_limit`, and in any case until the
/// library has the bytes.
Task<void> wait_after_cancel(Clock& clock, std::shared_ptr<Transfer> transfer) {
  bool is_over = false;
  TaskGroup timer(co_await boost::asio::this_coro::executor);
  timer.spawn(wake_after(clock, transfer, is_over));
  std::unique_lock lock(transfer->guard);
  while (transfer->is_with_library || (!transfer->is_answered && !is_over)) {
    co_await transfer->waiting.wait_uncancelled(lock);
    lock.lock();
  }
  lock.unlock();
  timer.cancel();
  (void)co_await timer.join();
}

}  // namespace

std::string_view to_string(Verb verb) noexcept {
  switch (verb) {
    case Verb::read:
      return "read";
    case Verb::write:
      return "write";
    case Verb::punch:
    case Verb::fill:
      return "zero";
    case Verb::flush:
      return "flush";
  }
  return "call";
}

OpenFile::~OpenFile() {
  if (fd_ != nullptr) volume_->post([fd = fd_](glfs*) { (void)glfs_close(fd); });
}

Task<Result<void>> OpenFile::close() {
  // Not by call(), which begins nothing that was given up: the file would stay locked for as long as we live.
  const auto closing = std::make_shared<AbandonableCall<bool>>();
  volume_->post([closing, fd = std::exchange(fd_, nullptr)](glfs*) {
    // What it says of a lost one is of no interest, and all others have been flushed.
    (void)glfs_close(fd);
    closing->finish(true);
  });
  const auto closed = co_await closing->wait();
  if (!closed.has_value()) co_return unexpected(cancelled_error("close"));
  co_return Result<void>{};
}

Task<Answer> OpenFile::perform(Clock& clock, Call call, Abandoned abandoned) {
  const auto transfer = std::make_shared<Transfer>(call);
  volume_->post([transfer, self = shared_from_this()](glfs*) { begin(transfer, self); });
  std::unique_lock lock(transfer->guard);
  while (!transfer->is_answered) {
    const bool was_woken = co_await transfer->waiting.wait(lock);
    lock.lock();
    if (was_woken || transfer->is_answered) continue;
    if (transfer->is_begun && call.verb != Verb::read && call.verb != Verb::flush) {
      lock.unlock();
      co_await wait_after_cancel(clock, transfer);
      lock.lock();
      if (!transfer->is_answered) {
        transfer->abandoned = std::move(abandoned);
        transfer->abandoned->fetch_add(1);
      }
    }
    transfer->is_left = true;
    co_return Answer{.is_cancelled = true};
  }
  co_return transfer->answer;
}

}  // namespace diskferry::gluster
