#include "gateway/move/guest_watch.hpp"

namespace diskferry {

void GuestWatch::stopped(TimePoint at) {
  std::lock_guard lock(guard_);
  stopped_at_ = at;
  news_.wake_all();
  if (when_stopped_ && !is_joined_) questions_.spawn(tell());
}

Task<Result<void>> GuestWatch::tell() {
  when_stopped_();
  co_return Result<void>{};
}

void GuestWatch::resumed() {
  std::lock_guard lock(guard_);
  stopped_at_.reset();
}

std::optional<TimePoint> GuestWatch::stopped_at() const {
  std::lock_guard lock(guard_);
  return stopped_at_;
}

Task<Result<void>> GuestWatch::put(std::shared_ptr<Question> question) {
  auto answer = co_await ask_();
  std::lock_guard lock(guard_);
  question->answer = std::move(answer);
  news_.wake_all();
  co_return Result<void>{};
}

Task<Result<bool>> GuestWatch::is_stopped() {
  if (stopped_at()) co_return true;
  // Each caller asks anew: an older question may be answered with what was true before this call.
  const auto question = std::make_shared<Question>();
  questions_.spawn(put(question));
  while (true) {
    std::unique_lock lock(guard_);
    if (stopped_at_) co_return true;
    if (question->answer) co_return std::move(*question->answer);
    if (!co_await news_.wait(lock)) co_return unexpected(cancelled_error("ask for the state"));
  }
}

Task<void> GuestWatch::close() {
  {
    std::lock_guard lock(guard_);
    if (std::exchange(is_joined_, true)) co_return;
  }
  (void)co_await questions_.join();
}

}  // namespace diskferry
