// The monitor's client on monitors that behave well, badly, or not at all.
#include "gateway/hypervisor/qmp.hpp"

#include "diskferry/task_group.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/hypervisor/fake_qemu.hpp"

#include <future>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::FakeQemu;
using test::FakeQemuClient;
using test::must;
using test::run;
constexpr auto any_event = [](const QmpEvent&) { return true; };

Clock& the_clock() {
  return test::runtime().context().clock;
}
/// Connects, does `use`, and closes whatever came of it.
using Use = Task<Result<void>> (*)(Qmp& monitor);
Task<Result<void>> with_monitor(std::string socket, Use use) {
  DISKFERRY_CO_TRY(const auto monitor, co_await Qmp::connect(the_clock(), std::move(socket)));
  auto used = co_await use(*monitor);
  co_await monitor->close();
  co_return used;
}
Result<void> talk(const FakeQemu& qemu, Use use) {
  return run(with_monitor(qemu.socket(), use));
}
Task<Result<void>> use_not_at_all(Qmp&) {
  co_return Result<void>{};
}
Task<Result<void>> ask(Qmp& monitor) {
  DISKFERRY_CO_CHECK(co_await monitor.execute("query-status"));
  co_return Result<void>{};
}

TEST(Qmp, GreetsAndAsks) {
  FakeQemu qemu([](FakeQemuClient& client) {
    client.greet();
    std::string name;
    client.reply(client.next(name));
    EXPECT_EQ(name, "qmp_capabilities");
    client.reply(client.next(name), R"({"status": "running"})");
    EXPECT_EQ(name, "query-status");
  });
  must(talk(qemu, [](Qmp& monitor) -> Task<Result<void>> {
    EXPECT_EQ(monitor.version().major, 7U);
    DISKFERRY_CO_TRY(const auto status, co_await monitor.execute("query-status"));
    EXPECT_EQ(status.at("status").as_string(), "running");
    co_return Result<void>{};
  }));
}

Task<Result<void>> ask_for(Qmp& monitor, std::string command, std::vector<std::string>& answers) {
  DISKFERRY_CO_TRY(const auto answer, co_await monitor.execute(command));
  answers.push_back(command + "=" + std::string(answer.as_string()));
  co_return Result<void>{};
}

TEST(Qmp, MatchesRepliesInAnyOrder) {
  FakeQemu qemu([](FakeQemuClient& client) {
    client.begin();
    std::string one, two;
    const auto first = client.next(one);
    const auto second = client.next(two);
    client.reply(second, "\"of " + two + "\"");
    client.send("{\"event\": \"STOP\"}\n");
    client.reply(first, "\"of " + one + "\"");
    client.wait_for_end();
  });
  must(talk(qemu, [](Qmp& monitor) -> Task<Result<void>> {
    std::vector<std::string> answers;
    TaskGroup group(co_await boost::asio::this_coro::executor);
    group.spawn(ask_for(monitor, "a", answers));
    group.spawn(ask_for(monitor, "b", answers));
    DISKFERRY_CO_CHECK(co_await group.join());
    EXPECT_THAT(answers, testing::UnorderedElementsAre("a=of a", "b=of b"));
    EXPECT_EQ(monitor.event_count(), 1U);
    co_return Result<void>{};
  }));
}

TEST(Qmp, ReturnsQemusErrors) {
  FakeQemu qemu([](FakeQemuClient& client) {
    client.begin();
    std::string name;
    const auto id = client.next(name);
    client.send("{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no disk\"}, \"id\": " +
                std::to_string(id) + "}\n");
    (void)client.next(name);
    client.send("{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}\n");
    client.answer_next();
  });
  must(talk(qemu, [](Qmp& monitor) -> Task<Result<void>> {
    const auto missing = co_await monitor.execute("blockdev-del");
    EXPECT_FALSE(missing);
    EXPECT_EQ(missing.error().kind(), ErrorKind::not_found);
    EXPECT_EQ(missing.error().why(), "no disk");
    EXPECT_FALSE(co_await monitor.execute("unreadable"));
    EXPECT_TRUE(co_await monitor.execute("next"));
    co_return Result<void>{};
  }));
}

/// What a bad monitor says once it should answer, and what the command ends with.
struct BadAnswer {
  std::string_view name;
  void (*answer)(FakeQemuClient&, std::uint64_t id);
  ErrorKind kind;
};
const BadAnswer bad_answers[] = {
    {"Garbage", [](FakeQemuClient& client, std::uint64_t) { client.send("\x01\x02 nonsense\n"); },
     ErrorKind::protocol},
    {"EndsMidReply", [](FakeQemuClient& client, std::uint64_t) { client.send("{\"return\": {"); },
     ErrorKind::gone},
    {"Ends", [](FakeQemuClient&, std::uint64_t) {}, ErrorKind::gone},
    {"WrongNumber", [](FakeQemuClient& client, std::uint64_t id) { client.reply(id + 1); },
     ErrorKind::protocol},
    {"SecondGreeting", [](FakeQemuClient& client, std::uint64_t) { client.greet(); }, ErrorKind::protocol},
    {"HugeLine",
     [](FakeQemuClient& client, std::uint64_t) {
       client.send(std::string(qmp_line_bytes_max + (1 << 20), 'x'));
       client.wait_for_end();
     },
     ErrorKind::too_large},
    {"DeepLine",
     [](FakeQemuClient& client, std::uint64_t) {
       client.send("{\"return\": " + std::string(100000, '[') + "\n");
       client.wait_for_end();
     },
     ErrorKind::too_large},
};
class QmpBadAnswer : public testing::TestWithParam<BadAnswer> {};
TEST_P(QmpBadAnswer, EndsTheConnection) {
  FakeQemu qemu([](FakeQemuClient& client) {
    client.begin();
    std::string name;
    GetParam().answer(client, client.next(name));
  });
  must(talk(qemu, [](Qmp& monitor) -> Task<Result<void>> {
    const auto failed = co_await monitor.execute("query-status");
    EXPECT_FALSE(failed);
    EXPECT_EQ(to_string(failed.error().kind()), to_string(GetParam().kind)) << failed.error().message();
    const auto again = co_await monitor.execute("query-status");
    EXPECT_FALSE(again);
    EXPECT_EQ(again.error().kind(), failed.error().kind());
    co_return Result<void>{};
  }));
}
INSTANTIATE_TEST_SUITE_P(Table, QmpBadAnswer, testing::ValuesIn(bad_answers),
                         [](const auto& row) { return std::string(row.param.name); });

TEST(Qmp, RefusesWhoIsNoMonitor) {
  FakeQemu garbage([](FakeQemuClient& client) { client.send("NBDMAGIC\n"); });
  const auto refused = talk(garbage, use_not_at_all);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::protocol);
  FakeQemu silent([](FakeQemuClient&) {});
  EXPECT_EQ(talk(silent, use_not_at_all).error().kind(), ErrorKind::gone);
  EXPECT_EQ(run(with_monitor("/nonexistent/socket", use_not_at_all)).error().kind(), ErrorKind::not_found);
  EXPECT_EQ(run(with_monitor(std::string(200, 'x'), use_not_at_all)).error().kind(),
            ErrorKind::invalid_argument);
}

TEST(Qmp, GivesUpACommandAndTakesItsLateReply) {
  std::promise<void> given_up;
  static std::promise<void>* signal = nullptr;
  signal = &given_up;
  FakeQemu qemu([&given_up](FakeQemuClient& client) {
    client.begin();
    std::string name;
    const auto late = client.next(name);
    given_up.get_future().wait();
    client.reply(late);
    client.answer_next();
  });
  must(talk(qemu, [](Qmp& monitor) -> Task<Result<void>> {
    const auto slow = co_await monitor.execute("slow", {}, std::chrono::milliseconds(20));
    EXPECT_FALSE(slow);
    EXPECT_EQ(slow.error().kind(), ErrorKind::timed_out);
    signal->set_value();
    co_return co_await ask(monitor);
  }));
}

TEST(Qmp, RefusesMoreCommandsThanItWaitsFor) {
  FakeQemu qemu([](FakeQemuClient& client) {
    client.begin();
    client.wait_for_end();
  });
  must(talk(qemu, [](Qmp& monitor) -> Task<Result<void>> {
    for (std::size_t i = 0; i < Qmp::commands_max; ++i)
      EXPECT_EQ((co_await monitor.execute("slow", {}, std::chrono::milliseconds(1))).error().kind(),
                ErrorKind::timed_out);
    EXPECT_EQ((co_await monitor.execute("slow")).error().kind(), ErrorKind::gone);
    co_return Result<void>{};
  }));
}

TEST(Qmp, WaitsForEventsFromAPlaceInTheStream) {
  FakeQemu qemu([](FakeQemuClient& client) {
    client.begin();
    client.send("{\"event\": \"A\"}\n{\"event\": \"B\"}\r\n\r\n");
    client.answer_next();
    client.send("{\"event\": \"A\", \"data\": {\"n\": 2}}\n");
    client.wait_for_end();
  });
  must(talk(qemu, [](Qmp& monitor) -> Task<Result<void>> {
    constexpr Duration limit = std::chrono::seconds(60);
    DISKFERRY_CO_CHECK(co_await ask(monitor));
    const auto is_a = [](const QmpEvent& event) { return event.name == "A"; };
    DISKFERRY_CO_TRY(const auto first, co_await monitor.wait_event(0, is_a, "A", limit));
    EXPECT_TRUE(first.data.empty());
    DISKFERRY_CO_TRY(const auto second, co_await monitor.wait_event(1, is_a, "A", limit));
    EXPECT_EQ(second.data.at("n").as_int64(), 2);
    EXPECT_GT(second.at_ns, 0U);
    const auto none = co_await monitor.wait_event(3, any_event, "an event", std::chrono::milliseconds(20));
    EXPECT_FALSE(none);
    EXPECT_EQ(none.error().kind(), ErrorKind::timed_out);
    co_return Result<void>{};
  }));
}

TEST(Qmp, KeepsOnlySoManyEvents) {
  FakeQemu qemu([](FakeQemuClient& client) {
    client.begin();
    std::string flood;
    for (std::size_t i = 0; i < 3 * Qmp::events_max; ++i)
      flood += "{\"event\": \"E" + std::to_string(i) + "\"}\n";
    client.send(flood);
    client.answer_next();
    const std::string large = "{\"event\": \"" + std::string(5 << 20, 'x') + "\"}\n";
    for (int i = 0; i < 8; ++i) client.send(large);
    client.answer_next();
    client.wait_for_end();
  });
  must(talk(qemu, [](Qmp& monitor) -> Task<Result<void>> {
    constexpr Duration limit = std::chrono::seconds(60);
    DISKFERRY_CO_CHECK(co_await ask(monitor));
    EXPECT_EQ(monitor.event_count(), 3 * Qmp::events_max);
    EXPECT_EQ((co_await monitor.wait_event(0, any_event, "an event", limit)).error().kind(),
              ErrorKind::too_large);
    DISKFERRY_CO_TRY(const auto kept,
                     co_await monitor.wait_event(2 * Qmp::events_max, any_event, "an event", limit));
    EXPECT_EQ(kept.name, "E" + std::to_string(2 * Qmp::events_max));
    DISKFERRY_CO_CHECK(co_await ask(monitor));
    // Of bytes no more than of one line: three of the large ones.
    EXPECT_FALSE(co_await monitor.wait_event(monitor.event_count() - 4, any_event, "an event", limit));
    EXPECT_TRUE(co_await monitor.wait_event(monitor.event_count() - 3, any_event, "an event", limit));
    co_return Result<void>{};
  }));
}

TEST(Qmp, EndsWaitsWhenQemuEnds) {
  FakeQemu qemu([](FakeQemuClient& client) { client.begin(); });
  must(talk(qemu, [](Qmp& monitor) -> Task<Result<void>> {
    const auto lost = co_await monitor.wait_event(0, any_event, "an event", std::chrono::seconds(60));
    EXPECT_FALSE(lost);
    EXPECT_EQ(lost.error().kind(), ErrorKind::gone);
    co_return Result<void>{};
  }));
}
}  // namespace
}  // namespace diskferry
