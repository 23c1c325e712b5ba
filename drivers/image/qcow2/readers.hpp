// Who reads guest data right now. A reader looks up where a cluster lies and then reads it there; meanwhile
// the writer may give that cluster up. It must not be used for anything else, nor its storage be released,
// before the readers that may have looked it up earlier are done: they would return somebody else's data.
#pragma once

#include "diskferry/sync.hpp"

#include <array>
#include <atomic>
#include <mutex>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry::qcow2 {

/// Readers enter one of two rooms; the writer turns new ones to the other room and waits until the first is
/// empty. Thread: any.
class Readers {
 public:
  /// Held by a reader from before its first lookup until its data have arrived.
  class Token {
   public:
    Token() = default;
    Token(Token&& other) noexcept : readers_(std::exchange(other.readers_, nullptr)), room_(other.room_) {}
    Token& operator=(Token&&) = delete;
    ~Token() {
      if (readers_ != nullptr) readers_->leave(room_);
    }

   private:
    friend class Readers;
    Token(Readers& readers, unsigned room) : readers_(&readers), room_(room) {}
    Readers* readers_ = nullptr;
    unsigned room_ = 0;
  };

  Token enter() noexcept {
    while (true) {
      const unsigned room = current_.load() & 1;
      inside_[room].fetch_add(1);
      if ((current_.load() & 1) == room) return Token(*this, room);
      leave(room);  // the writer turned us away in between
    }
  }

  /// Waits until every reader that entered before this call has left. One call at a time (the writer's own
  /// mutex). Not cancelled: it ends as soon as the reads in flight end.
  Task<void> wait_for_earlier() {
    const unsigned room = current_.fetch_add(1) & 1;
    while (true) {
      std::unique_lock lock(guard_);
      if (inside_[room].load() == 0) co_return;
      if (!co_await empty_.wait(lock)) {
        // A cancelled waiter cannot queue again: look once more after everybody else had a turn.
        if (inside_[room].load() == 0) co_return;
        co_await boost::asio::post(co_await boost::asio::this_coro::executor,
                                   boost::asio::use_awaitable_t<Executor>{});
      }
    }
  }

 private:
  void leave(unsigned room) noexcept {
    if (inside_[room].fetch_sub(1) != 1) return;
    if ((current_.load() & 1) == room) return;  // nobody waits for this room
    std::lock_guard lock(guard_);
    empty_.wake_all();
  }

  std::atomic<unsigned> current_ = 0;
  std::array<std::atomic<std::uint64_t>, 2> inside_{};
  std::mutex guard_;
  WaitQueue empty_;
};

}  // namespace diskferry::qcow2
