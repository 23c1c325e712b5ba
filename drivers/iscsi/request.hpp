// Request: one SCSI command on its way through a session, and its answer. It lives in the frame of the task
// that waits, which never ends before libiscsi has let go of the memory.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/sync.hpp"
#include "drivers/iscsi/command.hpp"
#include "drivers/iscsi/status.hpp"

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <sys/uio.h>

struct scsi_task;

namespace diskferry::iscsi {

class IscsiSession;

/// The memory that a command moves: into it, or from it, or none.
struct Memory {
  std::span<std::byte> into{};
  std::span<const std::byte> from{};
};

struct Request {
  Request(const Command& what, Memory with) : command(what), memory(with) {}
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  const Command command;
  const Memory memory;
  bool is_question = false;  ///< of a session that is not up, to look at the LUN

  // Of the session, on its thread.
  IscsiSession* session = nullptr;
  scsi_task* task = nullptr;
  iovec vector{};
  std::size_t slot = 0;
  TimePoint sent_at{};
  std::uint64_t login = 0;  // of the session, that it was sent after; 0: it was not sent
  bool is_draining = false;

  std::mutex guard{};
  WaitQueue waiting{};
  bool is_answered = false;
  Answer answer{};

  /// Thread: any. Nothing of the request may be touched afterwards.
  void finish(const Answer& with) {
    std::lock_guard lock(guard);
    answer = with;
    is_answered = true;
    waiting.wake_all();
  }
};

}  // namespace diskferry::iscsi
