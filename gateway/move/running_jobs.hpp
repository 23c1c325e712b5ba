// The jobs of one kind that run in this process. Each has a task group of its own on one reactor, so that it
// can be cancelled alone; those that have ended are joined when the next one begins, and at the end.
#pragma once

#include "diskferry/driver.hpp"
#include "diskferry/task_group.hpp"
#include "gateway/jobs/job_store.hpp"

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace diskferry {

/// `Work` is what does a job, made anew for each. Thread: any. Lifetime: stop() before destruction.
template <class Work>
class RunningJobs {
 public:
  static constexpr std::size_t jobs_max = 64;

  /// `step` and `kind` are words for errors: "begin a move", "moves".
  RunningJobs(DriverContext& context, std::string step, std::string kind)
      : context_(context), step_(std::move(step)), kind_(std::move(kind)) {}
  RunningJobs(const RunningJobs&) = delete;
  RunningJobs& operator=(const RunningJobs&) = delete;

  /// Makes a Work of `arguments` and spawns `act(work)`, whose errors are its own matter. Errors: cancelled
  /// (after stop()), too_large.
  template <class Act, class... Arguments>
  Result<void> begin(std::string id, Act act, Arguments&&... arguments) {
    std::lock_guard lock(guard_);
    if (is_stopping_) return unexpected(cancelled_error(step_));
    if (running_.size() >= jobs_max)
      return unexpected(
          fail(ErrorKind::too_large, step_).why(std::to_string(jobs_max) + " " + kind_ + " run already"));
    const Executor& executor = context_.reactors[next_reactor_++ % context_.reactors.size()];
    auto running = std::make_shared<Running>(executor, std::forward<Arguments>(arguments)...);
    running_[std::move(id)] = running;
    running->group.spawn(run(running, act(running->work)));
    return {};
  }

  /// Calls `use(work)` where that job runs; whether it does.
  template <class Use>
  bool with(const std::string& id, Use use) const {
    const auto running = find(id);
    if (running) use(running->work);
    return running != nullptr;
  }
  bool is_full() const {
    std::lock_guard lock(guard_);
    return running_.size() >= jobs_max;
  }
  bool has(const std::string& id) const { return find(id) != nullptr; }
  void cancel(const std::string& id) {
    if (const auto running = find(id)) running->group.cancel();
  }

  /// Joins those that have ended.
  Task<void> reap() {
    std::vector<std::shared_ptr<Running>> ended;
    {
      std::lock_guard lock(guard_);
      for (auto at = running_.begin(); at != running_.end();) {
        if (at->second->is_done) ended.push_back(at->second);
        at = at->second->is_done ? running_.erase(at) : std::next(at);
      }
    }
    for (const auto& running : ended) (void)co_await running->group.join();
  }

  /// Lets none begin any more, calls `before(work)` for each that runs, cancels all and waits for them.
  template <class Before>
  Task<void> stop(Before before) {
    co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
    std::map<std::string, std::shared_ptr<Running>> all;
    {
      std::lock_guard lock(guard_);
      is_stopping_ = true;
      all.swap(running_);
    }
    for (const auto& [id, running] : all) {
      before(running->work);
      running->group.cancel();
    }
    for (const auto& [id, running] : all) (void)co_await running->group.join();
  }

 private:
  struct Running {
    template <class... Arguments>
    explicit Running(const Executor& executor, Arguments&&... arguments)
        : work(std::forward<Arguments>(arguments)...), group(executor) {}
    Work work;
    TaskGroup group;
    std::atomic<bool> is_done = false;
  };

  std::shared_ptr<Running> find(const std::string& id) const {
    std::lock_guard lock(guard_);
    const auto found = running_.find(id);
    return found == running_.end() ? nullptr : found->second;
  }
  static Task<Result<void>> run(std::shared_ptr<Running> running, Task<Result<void>> acting) {
    (void)co_await std::move(acting);
    running->is_done = true;
    co_return Result<void>{};
  }

  DriverContext& context_;
  const std::string step_;
  const std::string kind_;
  mutable std::mutex guard_;
  std::map<std::string, std::shared_ptr<Running>> running_;
  std::size_t next_reactor_ = 0;
  bool is_stopping_ = false;
};

/// A job that was recorded and could not be begun is over, or it would stand in the way of the next one about
/// the same subject. Returns why.
Task<Error> end_unbegun(JobStore& jobs, JobRecord job, Error why);

}  // namespace diskferry
