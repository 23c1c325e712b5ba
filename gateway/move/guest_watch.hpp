// Whether the guest at the source is stopped, as its hypervisor tells: by an event, which comes at once and
// by itself, or by an answer when asked. libvirt may answer seconds late while QEMU itself waits for us (its
// flush is what the question is about), and every moment of that is a pause of the guest: whichever of the
// two says first that the guest is stopped is believed.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/sync.hpp"
#include "diskferry/task_group.hpp"

#include <functional>
#include <memory>
#include <mutex>
#include <optional>

namespace diskferry {

/// Thread: any. Lifetime: close() before destruction.
class GuestWatch {
 public:
  /// Asks the hypervisor.
  using Ask = std::function<Task<Result<bool>>()>;

  /// `ask` and `when_stopped` (which an event calls; it may be empty) run on `executor`.
  GuestWatch(Executor executor, Ask ask, std::function<void()> when_stopped = {})
      : ask_(std::move(ask)), when_stopped_(std::move(when_stopped)), questions_(std::move(executor)) {}
  GuestWatch(const GuestWatch&) = delete;
  GuestWatch& operator=(const GuestWatch&) = delete;

  /// What an event told.
  void stopped(TimePoint at);
  void resumed();
  /// When it was stopped, by the latest event; nullopt where it was resumed since.
  std::optional<TimePoint> stopped_at() const;

  /// Errors: those of `ask`; cancelled. Cancel: ends the wait, not the question.
  Task<Result<bool>> is_stopped();
  /// Waits for questions that nobody waits for any more; `ask` bounds that.
  Task<void> close();

 private:
  struct Question {
    std::optional<Result<bool>> answer{};
  };
  Task<Result<void>> put(std::shared_ptr<Question> question);
  Task<Result<void>> tell();

  const Ask ask_;
  const std::function<void()> when_stopped_;
  TaskGroup questions_;
  bool is_joined_ = false;
  mutable std::mutex guard_;
  WaitQueue news_;
  std::optional<TimePoint> stopped_at_{};
};

}  // namespace diskferry
