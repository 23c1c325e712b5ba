// EventBus: tells everybody who watches, inside this process, what happens to jobs. The control API's event
// streams are its subscribers; JobStore and whoever knows progress publish. A subscriber that does not keep
// up never holds up a job: it loses old progress and is told of it, or, when it does not even take the rest,
// its subscription ends and it reads on from the store.
#pragma once

#include "diskferry/clock.hpp"
#include "gateway/jobs/job.hpp"

#include <memory>

namespace diskferry {

struct ReceivedEvent {
  JobEvent event;
  std::uint64_t lost_before = 0;  ///< events of kind progress that were dropped since this watcher took one
};

/// What one watcher has not taken yet. Thread: next() by one task at a time. Lifetime: not destroyed while
/// next() runs; may outlive the bus.
class EventSubscription {
 public:
  EventSubscription(EventSubscription&& other) noexcept = default;
  EventSubscription& operator=(EventSubscription&&) = delete;
  ~EventSubscription();

  /// The next event, waiting for it at most `limit` (0: only one that is there). Events that are there come
  /// before an error. Errors: timed_out; cancelled; gone when the bus was closed; too_large when the watcher
  /// fell too far behind: the store has what it missed.
  Task<Result<ReceivedEvent>> next(Duration limit);

 private:
  friend class EventBus;
  struct Queue;
  struct Shared;
  EventSubscription(std::shared_ptr<Shared> shared, std::shared_ptr<Queue> queue)
      : shared_(std::move(shared)), queue_(std::move(queue)) {}
  static Task<Result<ReceivedEvent>> take(std::shared_ptr<Shared> shared, std::shared_ptr<Queue> queue);
  std::shared_ptr<Shared> shared_;
  std::shared_ptr<Queue> queue_;
};

struct EventBusLimits {
  std::size_t events_per_subscriber = 1'000;
  std::size_t subscribers = 256;
  std::size_t jobs_with_progress = 1'000;
};

/// Thread: any. Lifetime: of the bus itself, at least as long as those who publish; the clock outlives all.
class EventBus {
 public:
  using Limits = EventBusLimits;
  explicit EventBus(Clock& clock, Limits limits = {});
  ~EventBus();
  EventBus(const EventBus&) = delete;
  EventBus& operator=(const EventBus&) = delete;

  /// From now on every event of that job, or of all jobs where it is empty. To see a job from its beginning
  /// without a gap: subscribe, read what the store has, then leave out what comes with a sequence number
  /// already seen. Errors: too_large when there are too many; gone when the bus was closed.
  Result<EventSubscription> subscribe(std::string job);
  /// Gets a time where it has none. Never waits, never fails. An event of another kind than progress is never
  /// dropped.
  void publish(JobEvent event);
  /// Ends all subscriptions, once they have taken what is there.
  void close();
  /// The last progress of a job that was told and has not ended; nullptr where there is none.
  std::shared_ptr<const JobEvent> last_progress(const std::string& job) const;
  std::size_t subscribers() const;

 private:
  std::shared_ptr<EventSubscription::Shared> shared_;
};

}  // namespace diskferry
