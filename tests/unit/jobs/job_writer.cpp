// A gateway's bookkeeping in a process that may be killed: writes a job's state and an event in one change,
// over and over, and prints the number of each on stdout once it is said to be durable.
#include "gateway/jobs/job_store.hpp"
#include "gateway/runtime/runtime.hpp"

#include <iostream>

namespace diskferry {
namespace {

Task<Result<void>> write_for_ever(std::string folder) {
  DISKFERRY_CO_TRY(auto store, co_await JobStore::open({.folder = std::move(folder)}));
  DISKFERRY_CO_TRY(auto jobs, co_await store->list({}));
  if (jobs.empty()) {
    DISKFERRY_CO_TRY(auto made, co_await store->create({.kind = "test", .id = "t-1"}));
    jobs.push_back(std::move(made));
  }
  DISKFERRY_CO_CHECK(co_await store->end_leases());
  DISKFERRY_CO_TRY(const JobRecord job,
                   co_await store->take_lease("t-1", jobs.front().controller + "+", std::chrono::hours(1)));
  std::uint64_t number = job.state == "{}" ? 0 : std::stoull(job.state);
  for (;;) {
    const std::string text = std::to_string(++number);
    DISKFERRY_CO_TRY(const auto sequence,
                     co_await store->update(
                         "t-1", job.generation,
                         {.phase = text, .state = text, .event = NewJobEvent{.kind = "note", .text = text}}));
    if (sequence != number)
      co_return unexpected(
          fail(ErrorKind::mismatch, "write").why(text + " has number " + std::to_string(sequence)));
    std::cout << number << std::endl;
  }
}

}  // namespace
}  // namespace diskferry

int main(int argument_count, char** arguments) {
  if (argument_count != 2) return 2;
  diskferry::Runtime runtime({.reactors = 1, .blocking_threads = 1, .buffer_bytes = 1u << 20});
  const auto ended = runtime.run(diskferry::write_for_ever(arguments[1]));
  std::cerr << ended.error().message() << "\n";
  return 1;
}
