// A runtime for tests: two reactors, so that what is not thread-safe shows, and run() to drive a task from a
// test.
#pragma once

#include "gateway/runtime/runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry::test {

/// One for the whole test process.
Runtime& runtime();

template <class T>
Result<T> run(Task<Result<T>> task) {
  return runtime().run(std::move(task));
}

/// Expects success and returns the value; the message of the error is shown otherwise.
template <class T>
T must(Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().message();
    throw std::runtime_error(result.error().message());
  }
  return *std::move(result);
}
inline void must(Result<void> result) {
  if (!result) {
    ADD_FAILURE() << result.error().message();
    throw std::runtime_error(result.error().message());
  }
}

/// A folder of this test's own, removed with everything in it at the end, also where the process is killed.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  std::string path_;
};

/// Runs a program and waits for it; stdout and stderr are captured. No shell.
struct ProgramResult {
  int exit_code = -1;
  std::string out;
  std::string err;
};
ProgramResult run_program(const std::vector<std::string>& arguments,
                          Duration limit = std::chrono::seconds(60));

}  // namespace diskferry::test
