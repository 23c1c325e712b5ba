// A task beside the test.
#pragma once

#include "diskferry/task_group.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>
#include <optional>
#include <utility>

namespace diskferry::test {

/// A task that runs beside the test; cancelled or joined by it.
class Background {
 public:
  explicit Background(Task<Result<void>> task) : group_(runtime().reactor(1)) {
    group_.spawn(note_end(std::move(task), has_ended_, result_));
  }
  ~Background() {
    if (!is_joined_) (void)end();
  }
  bool has_ended() const { return has_ended_; }
  void cancel() { group_.cancel(); }
  Result<void> end() {
    is_joined_ = true;
    (void)run(group_.join());
    return *result_;
  }

 private:
  static Task<Result<void>> note_end(Task<Result<void>> task, std::atomic<bool>& has_ended,
                                     std::optional<Result<void>>& result) {
    result.emplace(co_await std::move(task));
    has_ended = true;
    co_return Result<void>{};
  }
  std::atomic<bool> has_ended_ = false;
  std::optional<Result<void>> result_;
  bool is_joined_ = false;
  TaskGroup group_;
};

}  // namespace diskferry::test
