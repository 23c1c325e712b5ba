// Request: one NFS operation on its way through a session, and its answer. Shared between the task that waits
// and libnfs's callback, because a task that is cancelled does not wait for what it would have read: that is
// libnfs's own memory until it is copied here.
#pragma once

#include "diskferry/sync.hpp"
#include "drivers/support/unflushed.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace diskferry::nfs {

enum class Verb : std::uint8_t { read, write, commit };

constexpr std::string_view to_string(Verb verb) noexcept {
  switch (verb) {
    case Verb::read:
      return "read";
    case Verb::write:
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
    lost,       ///< the connection went away first: it may or may not have been done
    cancelled,  ///< by who asked
  };
  How how = How::lost;
  int status = 0;  ///< nfsstat3; of NFSv4 an error number
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

}  // namespace diskferry::nfs
