// Requests: what is sent to an open image and how it is answered. The library notes what is done and writes
// to an event descriptor, which one of our reactors watches; no thread of the library runs our code.
#pragma once

#include "diskferry/extent.hpp"
#include "diskferry/sync.hpp"
#include "drivers/support/fd_watcher.hpp"

#include <memory>
#include <span>

namespace diskferry::rbd {

enum class Verb : std::uint8_t { read, write, zero, zero_keeping_storage, discard, flush };

struct Request {
  Verb verb;
  Range range{};
  std::byte* into = nullptr;        ///< read
  const std::byte* from = nullptr;  ///< write
};

/// Thread: perform() from any; the constructor, start() and stop() on `executor`'s.
class Requests {
 public:
  /// Lifetime: the image outlives it.
  Requests(Executor executor, void* image);
  ~Requests();
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;

  Result<void> start();
  /// No request may be in flight.
  void stop() { watcher_.stop(); }

  /// Sends it and waits for the answer: bytes or a negative error number, as the library gives it. A
  /// cancellation does not end the wait, for the library cannot be asked to let go of memory; the limit of
  /// the connection does.
  Task<std::int64_t> perform(Request request);

 private:
  struct InFlight;
  static int send(void* image, const Request& request, void* completion);
  void collect();

  void* const image_;  // rbd_image_t
  int event_ = -1;
  FdWatcher watcher_;
};

}  // namespace diskferry::rbd
