// The client against the server: each call, errors, lost and silent gateways, other transports.
#include "gateway/control/client.hpp"

#include "gateway/control/stream.hpp"
#include "tests/support/child_process.hpp"
#include "tests/unit/control/test_server.hpp"

#include <sys/socket.h>

#include <boost/asio/this_coro.hpp>
#include <gtest/gtest.h>

namespace diskferry::test {
namespace {
using namespace control;

GatewayAddress at(const std::string& path) {
  GatewayAddress address;
  address.path = path;
  return address;
}
std::unique_ptr<ControlClient> client_of(const TestControl& control, ClientOptions options = {}) {
  return must(run(ControlClient::connect(runtime().context(), at(control.socket()), options)));
}

TEST(ControlClient, MakesEveryCall) {
  TestControl control;
  const auto client = client_of(control);
  EXPECT_EQ(client->greeting().name, "fake");
  EXPECT_EQ(
      must(run(client->add_export({.name = "a/b ä", .image = "/i", .writable = true, .allow = {"x"}}))).name,
      "a/b ä");
  const auto exports = must(run(client->exports()));
  ASSERT_EQ(exports.size(), 1u);
  EXPECT_TRUE(exports.at(0).writable);
  EXPECT_EQ(exports.at(0).allow, std::vector<std::string>{"x"});
  must(run(client->remove_export("a/b ä")));
  EXPECT_TRUE(must(run(client->exports())).empty());

  const auto job = must(run(client->create_job({.kind = "copy", .request_json = R"({"x":[1]})"})));
  EXPECT_EQ(job.request_json, R"({"x":[1]})");
  EXPECT_EQ(must(run(client->job(job.id))).kind, "copy");
  EXPECT_EQ(must(run(client->act_on_job(job.id, JobAction::fallback))).phase, "action 4");
  must(run(client->set_job(job.id, {.max_pause_ms = 5})));
  EXPECT_EQ(control.gateway.last_settings.max_pause_ms, 5u);
  EXPECT_EQ(must(run(client->jobs({.active_only = true, .jobs_max = 7}))).size(), 1u);
  EXPECT_TRUE(control.gateway.last_filter.active_only);
  EXPECT_EQ(control.gateway.last_filter.jobs_max, 7u);

  EXPECT_NE(must(run(client->peer({.verb = "look", .body_json = R"({"a":1})"}))).find(R"("body":{"a":1})"),
            std::string::npos);
  EXPECT_EQ(must(run(client->metrics())), "diskferry_up 1\n");
  // One connection carried all of it.
  EXPECT_EQ(control.server->connections(), 1u);
}

TEST(ControlClient, KeepsTheErrorOfTheGateway) {
  TestControl control;
  const auto client = client_of(control);
  must(run(client->add_export({.name = "a", .image = "/i"})));
  const auto again = run(client->add_export({.name = "a", .image = "/i"}));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().kind(), ErrorKind::already_exists);
  EXPECT_EQ(again.error().remedy(), "choose another name");
  EXPECT_NE(again.error().message().find("File exists"), std::string::npos) << again.error().message();
}

TEST(ControlClient, FollowsEventsToTheirEnd) {
  TestControl control;
  for (std::uint64_t i = 1; i <= 3; ++i)
    control.gateway.published.push_back(
        {.job = "j", .sequence = i, .kind = "log", .body_json = R"({"i":1})"});
  const auto client = client_of(control);
  auto events = must(run(client->events({.job = "j", .after = 1})));
  std::vector<std::uint64_t> seen;
  for (int i = 0; i < 10; ++i) {
    const auto batch = must(run(events->next(std::chrono::seconds(5))));
    for (const auto& event : batch.events) seen.push_back(event.sequence);
    if (batch.ended) break;
  }
  EXPECT_EQ(seen, (std::vector<std::uint64_t>{2, 3}));
}

TEST(ControlClient, AnEventStreamThatSaysNothingReturnsInTime) {
  TestControl control;
  control.gateway.events_end = false;
  const auto client = client_of(control);
  auto events = must(run(client->events({})));
  const auto batch = must(run(events->next(std::chrono::milliseconds(50))));
  EXPECT_TRUE(batch.events.empty());
  EXPECT_FALSE(batch.ended);
  control.stop();
  const auto lost = run(events->next(std::chrono::seconds(5)));
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().kind(), ErrorKind::gone) << lost.error().message();
}

TEST(ControlClient, AnUnknownJobHasNoEvents) {
  TestControl control;
  const auto client = client_of(control);
  const auto events = run(client->events({.job = "none"}));
  ASSERT_FALSE(events);
  EXPECT_EQ(events.error().kind(), ErrorKind::not_found);
}

TEST(ControlClient, SaysHowToStartAGatewayThatIsNotThere) {
  const TemporaryFolder folder;
  const auto none = run(ControlClient::connect(runtime().context(), at(folder / "none")));
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().kind(), ErrorKind::not_found);
  EXPECT_NE(none.error().message().find("systemctl start diskferryd"), std::string::npos)
      << none.error().message();
}

TEST(ControlClient, NoticesThatTheGatewayWasStartedAgain) {
  auto control = std::make_unique<TestControl>();
  const auto client = client_of(*control);
  const std::string path = control->socket();
  control->stop();
  control::Server again(runtime().context(), control->gateway, {.socket = path});
  must(run(again.start()));
  EXPECT_TRUE(run(client->info()));
  must(run(again.stop()));
  const auto gone = run(client->info());
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().kind(), ErrorKind::not_found);
}

TEST(ControlClient, DoesNotWaitForAGatewayForEver) {
  TestControl control;
  const auto client = client_of(control, {.request_time = std::chrono::milliseconds(200)});
  control.gateway.hold_info = true;
  const auto slow = run(client->info());
  ASSERT_FALSE(slow);
  EXPECT_EQ(slow.error().kind(), ErrorKind::timed_out) << slow.error().message();
  control.gateway.released.set();
}

TEST(ControlClient, CallsAtOnceHaveConnectionsOfTheirOwn) {
  TestControl control;
  const auto client = client_of(control);
  control.gateway.hold_info = true;
  std::thread held([&] { EXPECT_TRUE(run(client->info())); });
  EXPECT_TRUE(run(client->exports()));
  control.gateway.released.set();
  held.join();
}

/// One end of a pair of sockets for the client; the other end is the test's to play the gateway.
Task<Result<std::unique_ptr<ByteStream>>> over_descriptor(int fd) {
  co_return make_stream(co_await boost::asio::this_coro::executor, fd, fd);
}

struct Answer {
  const char* name;
  std::string text;
  ErrorKind kind;
};
class HostileGateway : public ::testing::TestWithParam<Answer> {};

TEST_P(HostileGateway, IsAnError) {
  std::array<int, 2> pair{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
  ASSERT_EQ(::send(pair[1], GetParam().text.data(), GetParam().text.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(GetParam().text.size()));
  ::shutdown(pair[1], SHUT_WR);
  const auto connected = run(ControlClient::connect(runtime().context(), "a pair",
                                                    [fd = pair[0]] { return over_descriptor(fd); },
                                                    {.request_time = std::chrono::seconds(5)}));
  ::close(pair[1]);
  ASSERT_FALSE(connected);
  EXPECT_EQ(connected.error().kind(), GetParam().kind) << connected.error().message();
}

INSTANTIATE_TEST_SUITE_P(
    Rows, HostileGateway,
    ::testing::Values(
        Answer{"nothing", "", ErrorKind::gone},
        Answer{"half", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", ErrorKind::gone},
        Answer{"no_http", "SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n", ErrorKind::protocol},
        Answer{"no_json", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", ErrorKind::protocol},
        Answer{"error_page", "HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\nhi", ErrorKind::protocol},
        Answer{"too_long", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", ErrorKind::too_large},
        Answer{"long_header", "HTTP/1.1 200 OK\r\nX: " + std::string(60000, 'x'), ErrorKind::too_large}),
    [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace diskferry::test
