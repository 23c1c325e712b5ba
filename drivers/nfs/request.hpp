// Request: one NFS operation on its way through a session, and its answer. Shared between the task that waits
// and libnfs's callback, because a task that is cancelled does not wait for what it would have read: that is
// libnfs's own memory until it is copied here.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/sync.hpp"
#include "drivers/support/unflushed.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace diskferry::nfs {

enum class Verb : std::uint8_t {
  read,
  write,
  write_durably,  ///< it is answered when it is durable: one round trip, where a write and a commit are two
  commit,
};

constexpr std::string_view to_string(Verb verb) noexcept {
  switch (verb) {
    case Verb::read:
      return "read";
    case Verb::write:
    case Verb::write_durably:
      return "write";
    case Verb::commit:
      return "flush";
  }
  return "request";
}

struct Answer {
  enum class How : std::uint8_t {
    done,
    refused,    ///< `status` tells why
    later,      ///< it asks to come again; `status` is NFS3ERR_JUKEBOX
    lost,       ///< the connection went away first: it may or may not have been done
    cancelled,  ///< by who asked
  };
  How how = How::lost;
  int status = 0;  ///< nfsstat3; what NFSv4 refuses: an error number
  std::uint32_t bytes = 0;
  bool is_end = false;      ///< a read met the end of the file
  bool is_durable = false;  ///< a write was committed with its answer
  Verifier verifier{};
};

struct Request {
  explicit Request(Verb what, std::uint64_t at = 0, std::span<std::byte> read_into = {},
                   std::span<const std::byte> write_from = {})
      : verb(what), offset(at), into(read_into), from(write_from) {}

  const Verb verb;
  const std::uint64_t offset;
  const std::span<std::byte> into;        // read
  const std::span<const std::byte> from;  // write

  // Of the session, on its thread, while it is in flight.
  std::size_t slot = 0;
  TimePoint sent_at{};

  std::mutex guard{};
  WaitQueue waiting{};
  bool is_answered = false;
  bool is_abandoned = false;  ///< nobody waits, and the memory is not ours any more
  Answer answer{};

  /// Thread: any.
  void finish(const Answer& with) {
    std::lock_guard lock(guard);
    answer = with;
    is_answered = true;
    waiting.wake_all();
  }
};

/// A server that is there, and has not answered a request for this many stall limits, has lost it.
inline constexpr int stalls_per_request = 4;
/// To commit may be to write out all that a server has in its memory: with the default limit of 60 s, 120 GB
/// at 100 MB/s.
inline constexpr int stalls_per_commit = 20;

inline bool is_overdue(const Request& request, TimePoint now, Duration stall_limit) noexcept {
  const int stalls = request.verb == Verb::commit ? stalls_per_commit : stalls_per_request;
  return now - request.sent_at >= stalls * stall_limit;
}

}  // namespace diskferry::nfs
