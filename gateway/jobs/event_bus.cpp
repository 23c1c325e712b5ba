// See the header. One mutex for all: a publication is a few moves of strings for each subscriber.
#include "gateway/jobs/event_bus.hpp"

#include <algorithm>
#include <chrono>
#include <deque>
#include <fmt/format.h>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

namespace diskferry {

struct EventSubscription::Queue {
  explicit Queue(std::string job_) : job(std::move(job_)) {}
  const std::string job;  // empty: all
  // The rest is guarded by the mutex of Shared.
  // Shared with the queues of the other watchers: many slow ones need no more memory than one.
  std::deque<std::shared_ptr<const JobEvent>> events;
  std::uint64_t lost = 0;  // progress, in front of the first of `events`
  std::optional<Error> end;
  WaitQueue waiting;

  /// Makes room; false where there is none.
  bool drop_progress() {
    const auto oldest = std::ranges::find(events, progress_event,
                                          [](const auto& one) -> std::string_view { return one->kind; });
    if (oldest == events.end()) return false;
    events.erase(oldest);
    ++lost;
    return true;
  }
  void finish(Error error) {
    if (!end) end = std::move(error);
    waiting.wake_all();
  }
};

struct EventSubscription::Shared {
  Shared(Clock& clock_, EventBusLimits limits_) : clock(clock_), limits(limits_) {}
  Clock& clock;
  const EventBusLimits limits;
  mutable std::mutex guard;
  std::vector<std::shared_ptr<Queue>> queues;
  std::map<std::string, std::shared_ptr<const JobEvent>> progress;  // by job
  bool is_closed = false;

  /// `guard` is held.
  void remember(const std::shared_ptr<const JobEvent>& event) {
    if (event->kind == end_event) {
      progress.erase(event->job);
    } else if (event->kind == progress_event &&
               (progress.size() < limits.jobs_with_progress || progress.contains(event->job))) {
      progress[event->job] = event;
    }
  }
  /// `guard` is held.
  void put(Queue& queue, const std::shared_ptr<const JobEvent>& event) const {
    if (queue.end || (!queue.job.empty() && queue.job != event->job)) return;
    if (queue.events.size() >= limits.events_per_subscriber && !queue.drop_progress()) {
      if (event->kind == progress_event) {
        ++queue.lost;
      } else {
        queue.finish(fail(ErrorKind::too_large, "watch events", queue.job)
                         .why(fmt::format("{} events were not taken", queue.events.size()))
                         .remedy("subscribe again, and read from the job's record what was missed"));
      }
      return;
    }
    queue.events.push_back(event);
    queue.waiting.wake_one();
  }
};

namespace {
std::int64_t now_ms() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}
Error bus_closed() {
  return fail(ErrorKind::gone, "watch events").why("the gateway is shutting down");
}
}  // namespace

EventSubscription::~EventSubscription() {
  if (!shared_) return;
  std::lock_guard lock(shared_->guard);
  std::erase(shared_->queues, queue_);
}

Task<Result<ReceivedEvent>> EventSubscription::take(std::shared_ptr<Shared> shared,
                                                    std::shared_ptr<Queue> queue) {
  std::unique_lock lock(shared->guard);
  while (queue->events.empty()) {
    if (queue->end) co_return unexpected(*queue->end);
    if (!co_await queue->waiting.wait(lock))
      co_return unexpected(cancelled_error("wait for event", queue->job));
    lock.lock();
  }
  ReceivedEvent received{.event = *queue->events.front(), .lost_before = std::exchange(queue->lost, 0)};
  queue->events.pop_front();
  co_return received;
}

Task<Result<ReceivedEvent>> EventSubscription::next(Duration limit) {
  {
    // The common case of a stream that catches up needs no timer.
    std::unique_lock lock(shared_->guard);
    const bool is_there = !queue_->events.empty() || queue_->end;
    lock.unlock();
    if (is_there) co_return co_await take(shared_, queue_);
  }
  if (limit <= Duration::zero())
    co_return unexpected(fail(ErrorKind::timed_out, "wait for event", queue_->job));
  co_return co_await with_deadline(shared_->clock, limit, "wait for event", take(shared_, queue_));
}

EventBus::EventBus(Clock& clock, Limits limits)
    : shared_(std::make_shared<EventSubscription::Shared>(clock, limits)) {}
EventBus::~EventBus() {
  close();
}

Result<EventSubscription> EventBus::subscribe(std::string job) {
  auto queue = std::make_shared<EventSubscription::Queue>(std::move(job));
  std::lock_guard lock(shared_->guard);
  if (shared_->is_closed) return unexpected(bus_closed());
  if (shared_->queues.size() >= shared_->limits.subscribers)
    return unexpected(fail(ErrorKind::too_large, "watch events", queue->job)
                          .why(fmt::format("there are {} watchers already", shared_->queues.size())));
  shared_->queues.push_back(queue);
  return EventSubscription(shared_, std::move(queue));
}

void EventBus::publish(JobEvent event) {
  if (event.time_ms == 0) event.time_ms = now_ms();
  const auto shared = std::make_shared<const JobEvent>(std::move(event));
  std::lock_guard lock(shared_->guard);
  shared_->remember(shared);
  for (const auto& queue : shared_->queues) shared_->put(*queue, shared);
}

void EventBus::close() {
  std::lock_guard lock(shared_->guard);
  shared_->is_closed = true;
  for (const auto& queue : shared_->queues) queue->finish(bus_closed());
}

std::shared_ptr<const JobEvent> EventBus::last_progress(const std::string& job) const {
  std::lock_guard lock(shared_->guard);
  const auto found = shared_->progress.find(job);
  return found == shared_->progress.end() ? nullptr : found->second;
}

std::size_t EventBus::subscribers() const {
  std::lock_guard lock(shared_->guard);
  return shared_->queues.size();
}

}  // namespace diskferry
