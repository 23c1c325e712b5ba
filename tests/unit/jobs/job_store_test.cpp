// Jobs in the database: what is written is there again, and who may write.
#include "tests/unit/jobs/store_fixture.hpp"

#include <algorithm>
#include <set>

namespace diskferry::test {
namespace {

using JobStoreTest = StoreFixture;

TEST_F(JobStoreTest, WhatIsWrittenIsThereAfterReopening) {
  open();
  const JobRecord made =
      create({.kind = "migrate", .subject = "vm1", .request = R"({"to":"qemu+ssh://b/system"})"});
  const JobRecord leased = must(run(store->take_lease(made.id, "controller-1", std::chrono::seconds(30))));
  now_ms += 5;
  EXPECT_EQ(must(run(store->update(made.id, leased.generation,
                                   {.status = JobStatus::failed,
                                    .phase = "copy",
                                    .state = R"({"step":3})",
                                    .error = "no space left",
                                    .report = R"({"bytes":1})",
                                    .event = NewJobEvent{.kind = "phase", .text = R"({"phase":"copy"})"}}))),
            1u);
  open_again();

  const JobRecord found = load(made);
  EXPECT_EQ(found.id, made.id);
  EXPECT_EQ(found.kind, "migrate");
  EXPECT_EQ(found.subject, "vm1");
  EXPECT_EQ(found.request, R"({"to":"qemu+ssh://b/system"})");
  EXPECT_EQ(found.phase, "copy");
  EXPECT_EQ(found.state, R"({"step":3})");
  EXPECT_EQ(found.status, JobStatus::failed);
  EXPECT_EQ(found.error, "no space left");
  EXPECT_EQ(found.report, R"({"bytes":1})");
  EXPECT_EQ(found.created_ms, 1'800'000'000'000);
  EXPECT_EQ(found.updated_ms, 1'800'000'000'005);
  EXPECT_EQ(found.generation, 1u);
  EXPECT_EQ(found.controller, "controller-1");
  EXPECT_EQ(found.lease_until_ms, 1'800'000'030'000);
  const auto events = must(run(store->events(made.id, 0, 10)));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].sequence, 1u);
  EXPECT_EQ(events[0].kind, "phase");
  EXPECT_EQ(events[0].text, R"({"phase":"copy"})");
  EXPECT_EQ(events[0].time_ms, 1'800'000'000'005);
}

TEST_F(JobStoreTest, CountsJobsByTheirStatus) {
  open();
  EXPECT_TRUE(must(run(store->counts())).empty());
  const JobRecord one = create();
  create();
  create();
  must(run(store->update(one.id, 0, {.status = JobStatus::failed})));
  const auto counts = must(run(store->counts()));
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts.at(JobStatus::failed), 1u);
  EXPECT_EQ(counts.at(JobStatus::queued), 2u);
}

TEST_F(JobStoreTest, ExportsAreWhereAJobLeftThem) {
  open();
  const JobRecord job = create();
  const EndpointRecord disk{
      .name = "web:vda", .uri = "/new/web.raw", .format = "raw", .size_bytes = 4096, .generation = 1};
  must(run(store->update(job.id, 0, {.phase = "committed", .endpoints = {disk}})));
  open_again();
  EXPECT_EQ(must(run(store->endpoints())), std::vector{disk});
  must(run(store->forget_endpoint("web:vda")));
  must(run(store->forget_endpoint("web:vda")));
  open_again();
  EXPECT_TRUE(must(run(store->endpoints())).empty());
}

TEST_F(JobStoreTest, AnExportGoesWithTheChangeThatEndsIt) {
  open();
  const JobRecord job = create();
  must(run(store->update(job.id, 0,
                         {.endpoints = {{.name = "web:vda", .uri = "/a"}, {.name = "db", .uri = "/b"}}})));
  EXPECT_FALSE(run(store->update(job.id, 7, {.phase = "late", .gone_endpoints = {"web:vda"}})));
  EXPECT_EQ(must(run(store->endpoints())).size(), 2u);
  must(run(store->update(job.id, 0, {.phase = "committed", .gone_endpoints = {"web:vda"}})));
  open_again();
  const auto left = must(run(store->endpoints()));
  ASSERT_EQ(left.size(), 1u);
  EXPECT_EQ(left.front().name, "db");
}

TEST_F(JobStoreTest, WhatIsNotGivenStaysAsItIs) {
  open();
  const JobRecord job = create();
  must(run(store->update(job.id, 0, {.phase = "copy", .state = R"({"a":1})"})));
  must(run(store->update(job.id, 0, {.status = JobStatus::running})));
  const JobRecord found = load(job);
  EXPECT_EQ(found.phase, "copy");
  EXPECT_EQ(found.state, R"({"a":1})");
  EXPECT_EQ(found.status, JobStatus::running);
}

TEST_F(JobStoreTest, AStaleControllerIsRefusedAndChangesNothing) {
  open();
  const JobRecord job = create();
  const auto first = must(run(store->take_lease(job.id, "first", std::chrono::seconds(10))));
  must(run(store->update(job.id, first.generation, {.phase = "copy"})));
  expect_error(run(store->take_lease(job.id, "second", std::chrono::seconds(10))), ErrorKind::in_use,
               "first");
  now_ms += 10'000;
  // Late, but nobody took over: it may go on, and take the lease again under the same generation.
  must(run(store->update(job.id, first.generation, {.phase = "still first"})));
  EXPECT_EQ(must(run(store->take_lease(job.id, "first", std::chrono::seconds(10)))).generation,
            first.generation);
  now_ms += 10'000;
  const auto second = must(run(store->take_lease(job.id, "second", std::chrono::seconds(10))));
  EXPECT_EQ(second.generation, first.generation + 1);

  expect_error(run(store->update(job.id, first.generation,
                                 {.phase = "commit", .event = NewJobEvent{.kind = "phase"}})),
               ErrorKind::in_use, "second");
  expect_error(run(store->release_lease(job.id, first.generation)), ErrorKind::in_use);
  EXPECT_EQ(load(job).phase, "still first");
  EXPECT_EQ(load(job).lease_until_ms, second.lease_until_ms);
  EXPECT_TRUE(must(run(store->events(job.id, 0, 10))).empty());
}

TEST_F(JobStoreTest, AReleasedLeaseMayBeTakenAtOnce) {
  open();
  const JobRecord job = create();
  const auto first = must(run(store->take_lease(job.id, "first", std::chrono::hours(1))));
  must(run(store->release_lease(job.id, first.generation)));
  EXPECT_EQ(must(run(store->take_lease(job.id, "second", std::chrono::hours(1)))).generation, 2u);
}

TEST_F(JobStoreTest, AGatewayThatStartsEndsTheLeasesOfItsEarlierLife) {
  open();
  const JobRecord job = create();
  must(run(store->take_lease(job.id, "life-1", std::chrono::hours(1))));
  create({.kind = "migrate", .subject = "nobody has it"});
  open_again();
  EXPECT_EQ(must(run(store->end_leases())), 1u);
  EXPECT_EQ(must(run(store->take_lease(job.id, "life-2", std::chrono::hours(1)))).generation, 2u);
}

TEST_F(JobStoreTest, IdsAreSortedByTimeAndNeverTwice) {
  open();
  std::set<std::string> ids;
  std::string last_of_minute;
  for (int minute = 0; minute < 4; ++minute, now_ms += 60'000) {
    std::string newest = last_of_minute;
    for (int i = 0; i < 10; ++i) {
      const JobRecord job = create();
      EXPECT_TRUE(job.id.starts_with("m-")) << job.id;
      EXPECT_TRUE(ids.insert(job.id).second) << job.id;
      EXPECT_GT(job.id, last_of_minute);
      newest = std::max(newest, job.id);
    }
    last_of_minute = newest;
  }
  expect_error(run(store->create({.kind = "migrate", .id = *ids.begin()})), ErrorKind::already_exists);
  EXPECT_EQ(create({.kind = "migrate", .id = "m-from-the-other-host"}).id, "m-from-the-other-host");
}

TEST_F(JobStoreTest, ListsNewestFirstWithinTheFilter) {
  open();
  const JobRecord a = create({.kind = "migrate", .subject = "a"});
  now_ms += 1;
  const JobRecord b = create({.kind = "migrate", .subject = "b"});
  now_ms += 1;
  const JobRecord c = create({.kind = "migrate", .subject = "a"});
  must(run(store->update(c.id, 0, {.status = JobStatus::cancelled})));
  struct Row {
    const char* name;
    JobFilter filter;
    std::vector<std::string> ids;
  };
  const std::vector<Row> rows{
      {"all", {}, {c.id, b.id, a.id}},
      {"active", {.active_only = true}, {b.id, a.id}},
      {"one subject", {.subject = "a"}, {c.id, a.id}},
      {"active of a subject", {.active_only = true, .subject = "a"}, {a.id}},
      {"the newest", {.limit = 1}, {c.id}},
      {"none", {.limit = 0}, {}},
      {"unlimited is limited", {.limit = SIZE_MAX}, {c.id, b.id, a.id}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    std::vector<std::string> ids;
    for (const auto& job : must(run(store->list(row.filter)))) ids.push_back(job.id);
    EXPECT_EQ(ids, row.ids);
  }
}

TEST_F(JobStoreTest, OneExclusiveJobASubject) {
  open();
  const NewJob wanted{.kind = "migrate", .subject = "vm1", .is_exclusive = true};
  const JobRecord first = create(wanted);
  expect_error(run(store->create(wanted)), ErrorKind::in_use, first.id);
  create({.kind = "migrate", .subject = "vm2", .is_exclusive = true});
  create({.kind = "watch", .subject = "vm1"});
  must(run(store->update(first.id, 0, {.status = JobStatus::rolled_back})));
  create(wanted);
}

TEST_F(JobStoreTest, EventsAreNumberedWithinAJob) {
  open();
  const JobRecord a = create();
  const JobRecord b = create();
  for (int i = 0; i < 5; ++i)
    must(run(store->append_event(a.id, {.kind = "note", .text = std::to_string(i)})));
  EXPECT_EQ(must(run(store->append_event(b.id, {.kind = "note"}))), 1u);
  const auto events = must(run(store->events(a.id, 2, 2)));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].sequence, 3u);
  EXPECT_EQ(events[1].text, "3");
  EXPECT_TRUE(must(run(store->events(a.id, UINT64_MAX, 2))).empty());
  expect_error(run(store->append_event("m-0", {.kind = "note"})), ErrorKind::not_found);
  expect_error(run(store->events("m-0", 0, 1)), ErrorKind::not_found);
}

TEST_F(JobStoreTest, RemovesOnlyWhatIsOver) {
  open();
  const JobRecord job = create();
  must(run(store->append_event(job.id, {.kind = "note"})));
  expect_error(run(store->remove(job.id)), ErrorKind::in_use, "cancel");
  must(run(store->update(job.id, 0, {.status = JobStatus::done})));
  must(run(store->remove(job.id)));
  expect_error(run(store->load(job.id)), ErrorKind::not_found, job.id);
  // Its events went with it: a job of the same name begins anew.
  create({.kind = "migrate", .id = job.id});
  EXPECT_TRUE(must(run(store->events(job.id, 0, 1))).empty());
}

TEST_F(JobStoreTest, PrunesOldJobsThatAreOver) {
  open();
  const JobRecord active = create();
  std::vector<JobRecord> over;
  for (int i = 0; i < 5; ++i, now_ms += 1000) {
    over.push_back(create());
    must(run(store->update(over.back().id, 0, {.status = JobStatus::done})));
  }
  EXPECT_EQ(must(run(store->prune(std::chrono::hours(1), 0))), 0u);
  EXPECT_EQ(must(run(store->prune(std::chrono::seconds(1), 4))), 1u) << "the last four stay";
  EXPECT_EQ(must(run(store->prune(std::chrono::milliseconds(2500), 1))), 2u)
      << "those of the last 2.5 s stay";
  std::vector<std::string> left;
  for (const auto& job : must(run(store->list({})))) left.push_back(job.id);
  EXPECT_EQ(left, (std::vector{over[4].id, over[3].id, active.id}));
}

TEST_F(JobStoreTest, StoredEventsReachTheBus) {
  open();
  const JobRecord job = create();
  auto watching = must(bus.subscribe(job.id));
  must(run(store->append_event(job.id, {.kind = "note", .text = "1"})));
  must(run(store->update(job.id, 0, {.phase = "copy", .event = NewJobEvent{.kind = "phase", .text = "2"}})));
  (void)run(store->update(job.id, 77, {.event = NewJobEvent{.kind = "phase", .text = "refused"}}));
  for (const std::uint64_t sequence : {1u, 2u}) {
    const auto received = must(run(watching.next(std::chrono::seconds(10))));
    EXPECT_EQ(received.event.sequence, sequence);
    EXPECT_EQ(received.event.job, job.id);
    EXPECT_EQ(received.event.text, std::to_string(sequence));
  }
  expect_error(run(watching.next({})), ErrorKind::timed_out);
}

Task<Result<void>> lease_and_note(JobStore& store, std::string id, std::string controller, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    auto lease = co_await store.take_lease(id, controller, std::chrono::hours(1));
    if (!lease && lease.error().kind() == ErrorKind::in_use) {
      --i;
      continue;
    }
    DISKFERRY_CO_CHECK(lease);
    DISKFERRY_CO_CHECK(co_await store.update(id, lease->generation, {.event = NewJobEvent{.kind = "round"}}));
    DISKFERRY_CO_CHECK(co_await store.release_lease(id, lease->generation));
  }
  co_return Result<void>{};
}
Task<Result<void>> many_controllers(JobStore& store, std::string id, int controllers, int rounds) {
  TaskGroup group(runtime().reactor(0));
  for (int i = 0; i < controllers; ++i)
    group.spawn_on(runtime().reactor(static_cast<std::size_t>(i) % 2),
                   lease_and_note(store, id, "controller-" + std::to_string(i), rounds));
  co_return co_await group.join();
}

TEST_F(JobStoreTest, ControllersOnSeveralReactorsExcludeEachOther) {
  open();
  const JobRecord job = create();
  must(run(many_controllers(*store, job.id, 4, 10)));
  const auto events = must(run(store->events(job.id, 0, 1000)));
  ASSERT_EQ(events.size(), 40u);
  for (std::size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].sequence, i + 1);
}

Task<Result<void>> note_end(JobStore& store, std::string id, AsyncEvent& started,
                            Result<std::uint64_t>& noted) {
  started.set();
  AsyncEvent never;
  (void)co_await never.wait();
  noted = co_await store.update(id, 0, {.status = JobStatus::cancelled});
  co_return Result<void>{};
}
Task<Result<void>> cancel_and_note(JobStore& store, std::string id) {
  TaskGroup group(runtime().reactor(1));
  AsyncEvent started;
  Result<std::uint64_t> noted = unexpected(fail(ErrorKind::internal, "not called"));
  group.spawn(note_end(store, id, started, noted));
  DISKFERRY_CO_CHECK(co_await started.wait());
  group.cancel();
  (void)co_await group.join();
  DISKFERRY_CO_CHECK(noted);
  co_return Result<void>{};
}

TEST_F(JobStoreTest, WhoIsCancelledCanStillNoteIt) {
  open();
  const JobRecord job = create();
  must(run(cancel_and_note(*store, job.id)));
  EXPECT_EQ(load(job).status, JobStatus::cancelled);
}

}  // namespace
}  // namespace diskferry::test
