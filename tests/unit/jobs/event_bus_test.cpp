// The bus: who gets what, and what a slow watcher loses.
#include "tests/unit/jobs/store_fixture.hpp"

namespace diskferry::test {
namespace {

constexpr Duration soon = std::chrono::seconds(30);

JobEvent event(std::string text, std::string_view kind = phase_event, std::string job = "m-1") {
  return {.job = std::move(job), .kind = std::string(kind), .text = std::move(text)};
}
std::string next_text(EventSubscription& from) {
  return must(run(from.next(soon))).event.text;
}

TEST(EventBus, EverySubscriberGetsItsJobsInOrder) {
  EventBus bus(runtime().context().clock);
  auto one = must(bus.subscribe("m-1"));
  auto all = must(bus.subscribe(""));
  bus.publish(event("a"));
  bus.publish(event("b", phase_event, "m-2"));
  bus.publish(event("c", progress_event));
  for (const char* text : {"a", "c"}) EXPECT_EQ(next_text(one), text);
  for (const char* text : {"a", "b", "c"}) EXPECT_EQ(next_text(all), text);
  expect_error(run(one.next({})), ErrorKind::timed_out);
  expect_error(run(one.next(std::chrono::milliseconds(5))), ErrorKind::timed_out);
}

TEST(EventBus, RemembersTheLastProgressUntilTheJobEnds) {
  EventBus bus(runtime().context().clock);
  EXPECT_EQ(bus.last_progress("m-1"), nullptr);
  bus.publish(event("a", progress_event));
  bus.publish(event("b", progress_event));
  bus.publish(event("c", progress_event, "m-2"));
  bus.publish(event("d"));
  ASSERT_NE(bus.last_progress("m-1"), nullptr);
  EXPECT_EQ(bus.last_progress("m-1")->text, "b");
  EXPECT_NE(bus.last_progress("m-1")->time_ms, 0);
  bus.publish(event("e", end_event));
  EXPECT_EQ(bus.last_progress("m-1"), nullptr);
  EXPECT_EQ(bus.last_progress("m-2")->text, "c");
}

TEST(EventBus, RemembersTheProgressOfSoManyJobsOnly) {
  EventBus bus(runtime().context().clock, {.jobs_with_progress = 2});
  for (const char* job : {"m-1", "m-2", "m-3"}) bus.publish(event("a", progress_event, job));
  bus.publish(event("b", progress_event, "m-2"));
  EXPECT_EQ(bus.last_progress("m-2")->text, "b");
  EXPECT_EQ(bus.last_progress("m-3"), nullptr);
}

TEST(EventBus, ASlowWatcherLosesOldProgressAndIsTold) {
  EventBus bus(runtime().context().clock, {.events_per_subscriber = 4});
  auto slow = must(bus.subscribe(""));
  bus.publish(event("begin"));
  for (int i = 0; i < 10; ++i) bus.publish(event(std::to_string(i), progress_event));
  bus.publish(event("end"));
  const auto first = must(run(slow.next(soon)));
  EXPECT_EQ(first.event.text, "begin");
  EXPECT_EQ(first.lost_before, 8u);
  for (const char* text : {"8", "9", "end"}) {
    const auto received = must(run(slow.next(soon)));
    EXPECT_EQ(received.event.text, text);
    EXPECT_EQ(received.lost_before, 0u);
  }
}

TEST(EventBus, WhatIsNoProgressIsNeverLost) {
  EventBus bus(runtime().context().clock, {.events_per_subscriber = 3});
  auto slow = must(bus.subscribe(""));
  auto quick = must(bus.subscribe(""));
  for (const char* text : {"1", "2", "3"}) {
    bus.publish(event(text));
    EXPECT_EQ(next_text(quick), text);
  }
  bus.publish(event("progress", progress_event));  // no room, and nothing to drop for it
  EXPECT_EQ(next_text(quick), "progress");
  EXPECT_EQ(must(run(slow.next(soon))).lost_before, 1u);
  bus.publish(event("4"));
  bus.publish(event("5"));  // one too many: the watcher gets what is before it, and then knows
  bus.publish(event("6"));
  for (const char* text : {"2", "3", "4"}) EXPECT_EQ(next_text(slow), text);
  expect_error(run(slow.next(soon)), ErrorKind::too_large, "subscribe again");
  for (const char* text : {"4", "5"}) EXPECT_EQ(next_text(quick), text);
}

TEST(EventBus, ClosingEndsSubscriptionsAfterWhatIsThere) {
  std::optional<EventBus> bus(std::in_place, runtime().context().clock);
  auto watching = must(bus->subscribe(""));
  bus->publish(event("last"));
  bus.reset();
  EXPECT_EQ(next_text(watching), "last");
  expect_error(run(watching.next(soon)), ErrorKind::gone);
}

TEST(EventBus, SubscribersAreCountedAndBounded) {
  EventBus bus(runtime().context().clock, {.subscribers = 2});
  auto one = must(bus.subscribe(""));
  {
    auto two = must(bus.subscribe(""));
    auto moved = std::move(two);
    expect_error(bus.subscribe(""), ErrorKind::too_large);
  }
  EXPECT_EQ(bus.subscribers(), 1u);
  EXPECT_TRUE(bus.subscribe(""));
  bus.close();
  expect_error(bus.subscribe(""), ErrorKind::gone);
}

constexpr int published = 2000;

Task<Result<void>> watch(EventSubscription& from, std::vector<int>& phases, std::uint64_t& progress) {
  for (;;) {
    auto received = co_await from.next(soon);
    if (!received && received.error().kind() == ErrorKind::gone) co_return Result<void>{};
    DISKFERRY_CO_CHECK(received);
    progress += received->lost_before;
    if (received->event.kind == progress_event) {
      ++progress;
    } else {
      phases.push_back(std::stoi(received->event.text));
    }
  }
}
Task<Result<void>> publish_many(EventBus& bus) {
  for (int i = 0; i < published; ++i) {
    bus.publish(event(std::to_string(i), i % 50 == 0 ? phase_event : progress_event));
    // Lets the watchers of this reactor run now and then.
    if (i % 20 == 0)
      DISKFERRY_CO_CHECK(co_await runtime().context().clock.sleep_for(std::chrono::microseconds(100)));
  }
  co_return Result<void>{};
}
Task<Result<void>> publish_and_close(EventBus& bus) {
  TaskGroup group(runtime().reactor(0));
  for (std::size_t i : {0u, 1u}) group.spawn_on(runtime().reactor(i), publish_many(bus));
  auto joined = co_await group.join();
  bus.close();
  co_return joined;
}
Task<Result<void>> publish_and_watch(EventBus& bus, std::vector<EventSubscription>& watchers,
                                     std::vector<std::vector<int>>& phases,
                                     std::vector<std::uint64_t>& progress) {
  TaskGroup group(runtime().reactor(0));
  for (std::size_t i = 0; i < watchers.size(); ++i)
    group.spawn_on(runtime().reactor(i % 2), watch(watchers[i], phases[i], progress[i]));
  group.spawn_on(runtime().reactor(1), publish_and_close(bus));
  co_return co_await group.join();
}

TEST(EventBus, NothingIsLostUnseenBetweenReactors) {
  EventBus bus(runtime().context().clock, {.events_per_subscriber = 100});
  std::vector<EventSubscription> watchers;
  for (int i = 0; i < 4; ++i) watchers.push_back(must(bus.subscribe("")));
  std::vector<std::vector<int>> phases(watchers.size());
  std::vector<std::uint64_t> progress(watchers.size());
  must(run(publish_and_watch(bus, watchers, phases, progress)));
  for (std::size_t i = 0; i < watchers.size(); ++i) {
    EXPECT_EQ(phases[i].size(), 2u * published / 50);
    EXPECT_EQ(progress[i], 2u * (published - published / 50));
  }
}

Task<Result<void>> wait_for_event(EventSubscription& from, Result<ReceivedEvent>& into) {
  into = co_await from.next(std::chrono::hours(1));
  co_return Result<void>{};
}
Task<Result<void>> cancel_watcher(EventSubscription& from, Result<ReceivedEvent>& into) {
  TaskGroup group(runtime().reactor(1));
  group.spawn(wait_for_event(from, into));
  group.cancel();
  co_return co_await group.join();
}

TEST(EventBus, AWatcherThatIsCancelledLosesNothing) {
  EventBus bus(runtime().context().clock);
  auto watching = must(bus.subscribe(""));
  Result<ReceivedEvent> received = unexpected(fail(ErrorKind::internal, "not called"));
  must(run(cancel_watcher(watching, received)));
  expect_error(received, ErrorKind::cancelled);
  bus.publish(event("later"));
  EXPECT_EQ(next_text(watching), "later");
}

}  // namespace
}  // namespace diskferry::test
