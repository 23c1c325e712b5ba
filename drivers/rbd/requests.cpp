#include "drivers/rbd/requests.hpp"

#include <array>
#include <cerrno>
#include <mutex>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rbd/librbd.h>

namespace diskferry::rbd {

/// Lies in the frame of perform(), which waits until it is answered.
struct Requests::InFlight {
  std::mutex guard{};
  WaitQueue waiting{};
  bool is_answered = false;
  std::int64_t result = 0;

  void answer(std::int64_t with) {
    std::lock_guard lock(guard);
    result = with;
    is_answered = true;
    waiting.wake_all();
  }
};

Requests::Requests(Executor executor, void* image)
    : image_(image), watcher_(std::move(executor), [this](FdWatcher::Ready) { collect(); }) {}

Requests::~Requests() {
  if (event_ >= 0) ::close(event_);
}

Result<void> Requests::start() {
  event_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_ < 0) return unexpected(errno_error(errno, "make event descriptor"));
  if (const int failed = rbd_set_image_notification(image_, event_, EVENT_TYPE_EVENTFD); failed < 0)
    return unexpected(errno_error(-failed, "ask for events"));
  DISKFERRY_CHECK(watcher_.watch(event_));
  watcher_.want(true, false);
  return {};
}

int Requests::send(void* image, const Request& request, void* completion) {
  const auto [offset, length] = request.range;
  switch (request.verb) {
    case Verb::read:
      return rbd_aio_read(image, offset, length, reinterpret_cast<char*>(request.into), completion);
    case Verb::write:
      return rbd_aio_write(image, offset, length, reinterpret_cast<const char*>(request.from), completion);
    case Verb::zero:
      return rbd_aio_write_zeroes(image, offset, length, completion, 0, 0);
    case Verb::zero_keeping_storage:
      return rbd_aio_write_zeroes(image, offset, length, completion, RBD_WRITE_ZEROES_FLAG_THICK_PROVISION,
                                  0);
    case Verb::discard:
      return rbd_aio_discard(image, offset, length, completion);
    case Verb::flush:
      return rbd_aio_flush(image, completion);
  }
  return -EINVAL;
}

Task<std::int64_t> Requests::perform(Request request) {
  InFlight in_flight;
  rbd_completion_t completion = nullptr;
  if (const int failed = rbd_aio_create_completion(&in_flight, nullptr, &completion); failed < 0)
    co_return failed;
  if (const int failed = send(image_, request, completion); failed < 0) {
    rbd_aio_release(completion);
    co_return failed;
  }
  std::unique_lock lock(in_flight.guard);
  while (!in_flight.is_answered) {
    co_await in_flight.waiting.wait_uncancelled(lock);
    lock.lock();
  }
  co_return in_flight.result;
}

void Requests::collect() {
  std::uint64_t events = 0;
  if (::read(event_, &events, sizeof events) < 0 && errno != EAGAIN) return;
  std::array<rbd_completion_t, 32> answered{};
  for (;;) {
    const int count = rbd_poll_io_events(image_, answered.data(), answered.size());
    if (count <= 0) return;
    for (rbd_completion_t one : std::span(answered).first(static_cast<std::size_t>(count))) {
      auto* const request = static_cast<InFlight*>(rbd_aio_get_arg(one));
      const std::int64_t result = rbd_aio_get_return_value(one);
      rbd_aio_release(one);
      request->answer(result);
    }
  }
}

}  // namespace diskferry::rbd
