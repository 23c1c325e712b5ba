// See the header: the database's calls, carried to its thread.
#include "gateway/jobs/job_store.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "drivers/support/wall_clock.hpp"
#include "gateway/jobs/event_bus.hpp"
#include "gateway/jobs/job_database.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <optional>

namespace diskferry {
namespace {

std::int64_t to_ms(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

/// What the standard library throws (out of memory) must not end the store's thread.
template <class Work>
auto guarded(Work& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return unexpected(fail(ErrorKind::too_large, "use job database").why("out of memory"));
  } catch (const std::exception& error) {
    return unexpected(fail(ErrorKind::internal, "use job database").why(error.what()));
  }
}

}  // namespace

struct JobStore::State {
  explicit State(JobStoreOptions given) : options(std::move(given)) {
    if (!options.now_ms) options.now_ms = &now_ms;
  }
  void publish(const std::string& id, std::uint64_t sequence, const NewJobEvent& event,
               std::int64_t now_ms) const {
    if (options.bus != nullptr)
      options.bus->publish(
          {.job = id, .sequence = sequence, .kind = event.kind, .text = event.text, .time_ms = now_ms});
  }

  JobStoreOptions options;
  std::optional<JobDatabase> database;  // touched on the one thread of `pool` only
  BlockingPool pool{1};                 // last: its thread ends before the database is closed
};

JobStore::JobStore(JobStoreOptions options) : state_(std::make_unique<State>(std::move(options))) {}
JobStore::~JobStore() = default;

template <class Work>
auto JobStore::call(Work work) -> Task<decltype(work())> {
  co_return co_await state_->pool.run([&] { return guarded(work); });
}

Task<Result<std::unique_ptr<JobStore>>> JobStore::open(JobStoreOptions options) {
  std::unique_ptr<JobStore> store(new JobStore(std::move(options)));
  State& state = *store->state_;
  DISKFERRY_CO_CHECK(co_await store->call([&]() -> Result<void> {
    DISKFERRY_TRY(auto database, JobDatabase::open(state.options.folder, state.options.bytes_max));
    state.database.emplace(std::move(database));
    return {};
  }));
  co_return store;
}

Task<Result<JobRecord>> JobStore::create(NewJob job) {
  co_return co_await call([&]() -> Result<JobRecord> {
    DISKFERRY_CHECK(check(job));
    return state_->database->create(job, state_->options.now_ms());
  });
}

Task<Result<JobRecord>> JobStore::load(std::string id) {
  co_return co_await call([&] { return state_->database->load(id); });
}

Task<Result<std::vector<JobRecord>>> JobStore::list(JobFilter filter) {
  co_return co_await call([&] { return state_->database->list(filter); });
}

Task<Result<std::uint64_t>> JobStore::update(std::string id, std::uint64_t expected_generation,
                                             JobChanges changes) {
  co_return co_await call([&]() -> Result<std::uint64_t> {
    DISKFERRY_CHECK(check(changes));
    const std::int64_t now_ms = state_->options.now_ms();
    DISKFERRY_TRY(const auto sequence, state_->database->update(id, expected_generation, changes, now_ms));
    if (changes.event) state_->publish(id, sequence, *changes.event, now_ms);
    return sequence;
  });
}

Task<Result<JobRecord>> JobStore::settle(std::string id) {
  co_return co_await call([&] { return state_->database->settle(id, state_->options.now_ms()); });
}

Task<Result<std::uint64_t>> JobStore::append_event(std::string id, NewJobEvent event) {
  co_return co_await call([&]() -> Result<std::uint64_t> {
    DISKFERRY_CHECK(check(event));
    const std::int64_t now_ms = state_->options.now_ms();
    DISKFERRY_TRY(const auto sequence, state_->database->append_event(id, event, now_ms));
    state_->publish(id, sequence, event, now_ms);
    return sequence;
  });
}

Task<Result<std::vector<JobEvent>>> JobStore::events(std::string id, std::uint64_t after, std::size_t limit) {
  co_return co_await call([&] { return state_->database->events(id, after, limit); });
}

Task<Result<JobRecord>> JobStore::take_lease(std::string id, std::string controller, Duration duration) {
  co_return co_await call([&]() -> Result<JobRecord> {
    if (controller.empty() || controller.size() > JobLimits::name_bytes_max || !is_utf8(controller))
      return unexpected(
          fail(ErrorKind::invalid_argument, "take over job", id).why("the controller needs a name"));
    const std::int64_t now_ms = state_->options.now_ms();
    return state_->database->take_lease(id, {.controller = controller, .until_ms = now_ms + to_ms(duration)},
                                        now_ms);
  });
}

Task<Result<void>> JobStore::release_lease(std::string id, std::uint64_t expected_generation) {
  co_return co_await call([&] { return state_->database->release_lease(id, expected_generation); });
}

Task<Result<std::uint64_t>> JobStore::end_leases() {
  co_return co_await call([&] { return state_->database->end_leases(state_->options.now_ms()); });
}

Task<Result<std::vector<EndpointRecord>>> JobStore::endpoints() {
  co_return co_await call([&] { return state_->database->endpoints(); });
}

Task<Result<std::map<JobStatus, std::uint64_t>>> JobStore::counts() {
  co_return co_await call([&] { return state_->database->counts(); });
}

Task<Result<void>> JobStore::forget_endpoint(std::string name) {
  co_return co_await call([&] { return state_->database->forget_endpoint(name); });
}

Task<Result<void>> JobStore::remove(std::string id) {
  co_return co_await call([&] { return state_->database->remove(id); });
}

Task<Result<std::uint64_t>> JobStore::prune(Duration older_than, std::size_t keep) {
  co_return co_await call(
      [&] { return state_->database->prune(state_->options.now_ms() - to_ms(older_than), keep); });
}

}  // namespace diskferry
