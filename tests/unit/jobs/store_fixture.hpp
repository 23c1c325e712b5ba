// A store in a folder of its own, on a clock that the test moves.
#pragma once

#include "gateway/jobs/event_bus.hpp"
#include "gateway/jobs/job_store.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>

namespace diskferry::test {

struct StoreFixture : ::testing::Test {
  TemporaryFolder folder;
  std::atomic<std::int64_t> now_ms = 1'800'000'000'000;
  std::uint64_t bytes_max = std::uint64_t{1} << 30;
  EventBus bus{runtime().context().clock};
  std::unique_ptr<JobStore> store;

  std::string path() const { return folder / "jobs"; }
  Result<std::unique_ptr<JobStore>> try_open() {
    return run(JobStore::open(
        {.folder = path(), .bus = &bus, .now_ms = [this] { return now_ms.load(); }, .bytes_max = bytes_max}));
  }
  void open() { store = must(try_open()); }
  void open_again() {
    store.reset();
    open();
  }
  JobRecord create(NewJob job = {.kind = "migrate", .subject = "vm1"}) {
    return must(run(store->create(std::move(job))));
  }
  JobRecord load(const JobRecord& job) { return must(run(store->load(job.id))); }
};

template <class T>
void expect_error(const Result<T>& result, ErrorKind kind, std::string_view part_of_message = {}) {
  ASSERT_FALSE(result.has_value()) << "expected " << to_string(kind);
  EXPECT_EQ(to_string(result.error().kind()), to_string(kind)) << result.error().message();
  EXPECT_NE(result.error().message().find(part_of_message), std::string::npos) << result.error().message();
}

}  // namespace diskferry::test
