// Request: one command on its way through a connection. It lives in the frame of the coroutine that waits for
// it, and its links put it into the connection's lists, so that a request costs no allocation here.
#pragma once

#include "diskferry/clock.hpp"
#include "drivers/nbd/block_status.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <boost/asio/use_awaitable.hpp>

namespace diskferry::nbd {

class Connection;

enum class Verb : std::uint8_t { read, write, write_zeroes, trim, flush, cache, block_status };

constexpr std::string_view to_string(Verb verb) noexcept {
  switch (verb) {
    case Verb::read:
      return "read";
    case Verb::write:
      return "write";
    case Verb::write_zeroes:
      return "write zeroes";
    case Verb::trim:
      return "discard";
    case Verb::flush:
      return "flush";
    case Verb::cache:
      return "prefetch";
    case Verb::block_status:
      return "ask for block status";
  }
  return "request";
}

/// How a request left its connection.
struct Outcome {
  enum class How : std::uint8_t {
    done,       ///< the server did it
    refused,    ///< the server answered with an error
    not_sent,   ///< libnbd did not take it: a defect of ours, or out of memory
    broken,     ///< the server's answer to this request breaks the protocol
    lost,       ///< the connection went away first: it may or may not have been done
    garbled,    ///< lost, because what the server sent makes no sense
    withdrawn,  ///< cancelled before the server was asked
  };
  How how = How::done;
  int error_number = 0;  // of refused and not_sent
};

struct Request {
  Verb verb;
  std::uint32_t flags = 0;  // LIBNBD_CMD_FLAG_*
  Range range{};
  std::byte* into = nullptr;        // read
  const std::byte* from = nullptr;  // write
  BlockStatus* status = nullptr;    // block_status

  // From here on the connection's.
  using Token = boost::asio::use_awaitable_t<Executor>;
  using Handler = boost::asio::async_result<Token, void(Outcome)>::handler_type;
  Connection* connection = nullptr;
  std::uint64_t id = 0;
  std::optional<Handler> handler{};
  Executor executor{};    // of the waiting coroutine, where that is another thread
  bool is_local = false;  // the coroutine waits on the connection's own thread
  bool is_cancelled = false;
  Outcome outcome{};
  TimePoint issued{};
  std::uint64_t unflushed_before = 0;  // flush: writes acknowledged before it was sent
  /// What of a read has arrived: chunks in order, without a gap and without overlap, up to here.
  std::uint64_t received_end = 0;
  /// All chunks, once one did not follow the one before: servers may send them in any order.
  std::vector<Range> pieces{};
  bool has_too_many_pieces = false;
  Request* previous = nullptr;
  Request* next = nullptr;

  std::uint64_t payload_bytes() const noexcept {
    return verb == Verb::read || verb == Verb::write ? range.length : 0;
  }
};

/// A list of requests, linked through themselves; first come, first served.
class RequestList {
 public:
  bool empty() const noexcept { return first_ == nullptr; }
  Request* first() const noexcept { return first_; }
  void push_back(Request& request) noexcept {
    request.previous = last_;
    request.next = nullptr;
    (last_ != nullptr ? last_->next : first_) = &request;
    last_ = &request;
  }
  void remove(Request& request) noexcept {
    (request.previous != nullptr ? request.previous->next : first_) = request.next;
    (request.next != nullptr ? request.next->previous : last_) = request.previous;
    request.previous = request.next = nullptr;
  }
  Request* pop_front() noexcept {
    Request* const request = first_;
    if (request != nullptr) remove(*request);
    return request;
  }
  Request* find(std::uint64_t id) const noexcept {
    for (Request* one = first_; one != nullptr; one = one->next) {
      if (one->id == id) return one;
    }
    return nullptr;
  }

 private:
  Request* first_ = nullptr;
  Request* last_ = nullptr;
};

}  // namespace diskferry::nbd
