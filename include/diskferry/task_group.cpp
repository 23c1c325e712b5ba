// The group's bookkeeping: a list of running tasks with the signal that stops each, under one mutex. A signal
// is only emitted on the executor of its task, because Asio's signals are not thread-safe.
#include "diskferry/task_group.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/sync.hpp"

#include <list>
#include <mutex>
#include <optional>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>

namespace diskferry {
namespace asio = boost::asio;

namespace {
struct Child {
  explicit Child(Executor on) : executor(std::move(on)) {}
  Executor executor;
  asio::cancellation_signal signal;
  bool is_started = false;  // under the group's mutex: co_spawn has filled the signal's slot
  bool is_running = true;   // touched on `executor` only
};
void stop(const std::shared_ptr<Child>& child) {
  asio::post(child->executor, [child] {
    if (child->is_running) child->signal.emit(asio::cancellation_type::terminal);
  });
}
}  // namespace

struct TaskGroup::State {
  explicit State(Executor on) : executor(std::move(on)) {}
  const Executor executor;
  mutable std::mutex guard;
  std::list<std::shared_ptr<Child>> children;
  WaitQueue joining;
  std::optional<Error> error;
  bool is_stopping = false;

  void finished(std::list<std::shared_ptr<Child>>::iterator child, Result<void> result) {
    std::lock_guard lock(guard);
    (*child)->is_running = false;
    children.erase(child);
    if (!result && (!error || (error->kind() == ErrorKind::cancelled &&
                               result.error().kind() != ErrorKind::cancelled))) {
      error = std::move(result).error();
    }
    if (children.empty()) joining.wake_all();
  }
};

TaskGroup::TaskGroup(Executor executor) : state_(std::make_shared<State>(std::move(executor))) {}

TaskGroup::~TaskGroup() {
  DISKFERRY_ASSERT(size() == 0, "a task group is destroyed while its tasks run");
}

void TaskGroup::spawn(Task<Result<void>> task) {
  spawn_on(state_->executor, std::move(task));
}

void TaskGroup::spawn_on(const Executor& executor, Task<Result<void>> task) {
  auto child = std::make_shared<Child>(executor);
  std::list<std::shared_ptr<Child>>::iterator at;
  {
    std::lock_guard lock(state_->guard);
    at = state_->children.insert(state_->children.end(), child);
  }
  asio::co_spawn(
      executor, top_frame(std::move(task)),
      asio::bind_cancellation_slot(child->signal.slot(),
                                   [state = state_, at](std::exception_ptr thrown, Result<void> result) {
                                     // top_frame catches everything; what is left is a cancellation before it
                                     // began.
                                     if (thrown) result = unexpected(cancelled_error("start task"));
                                     state->finished(at, std::move(result));
                                   }));
  // Until here cancel() passes this child by: co_spawn fills the slot on our thread, and the signal is
  // emitted on the task's.
  std::lock_guard lock(state_->guard);
  child->is_started = true;
  if (state_->is_stopping) stop(child);
}

void TaskGroup::cancel() {
  std::lock_guard lock(state_->guard);
  state_->is_stopping = true;
  for (const auto& child : state_->children) {
    if (child->is_started) stop(child);
  }
}

Task<Result<void>> TaskGroup::join() {
  const auto state = state_;
  while (true) {
    std::unique_lock lock(state->guard);
    if (state->children.empty()) {
      if (state->error) co_return unexpected(*state->error);
      co_return Result<void>{};
    }
    // Once the children are asked to stop they are waited for, whatever happens to us. Our own cancellation
    // stays visible to is_cancelled(): a caller that loops around us must see it.
    if (state->is_stopping) {
      co_await state->joining.wait_uncancelled(lock);
    } else if (!co_await state->joining.wait(lock)) {
      cancel();
    }
  }
}

std::size_t TaskGroup::size() const {
  std::lock_guard lock(state_->guard);
  return state_->children.size();
}

bool TaskGroup::has_failed() const {
  std::lock_guard lock(state_->guard);
  return state_->error && state_->error->kind() != ErrorKind::cancelled;
}

}  // namespace diskferry
