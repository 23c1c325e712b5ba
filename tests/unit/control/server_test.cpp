// The server as a stranger sees it: bytes by hand, right and wrong ones.
#include "tests/support/child_process.hpp"
#include "tests/unit/control/test_server.hpp"

#include <algorithm>
#include <cstdio>
#include <sys/stat.h>
#include <vector>

#include <gtest/gtest.h>

namespace diskferry::test {
namespace {

const std::string get_info = "GET /v1/info HTTP/1.1\r\nHost: x\r\n\r\n";

std::string post(const std::string& target, const std::string& body) {
  return "POST " + target + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}

struct Row {
  const char* name;
  std::string sent;
  const char* status;
  const char* says;
};
class OneRequest : public ::testing::TestWithParam<Row> {};

TEST_P(OneRequest, IsAnsweredWithItsStatus) {
  TestControl control;
  RawClient client(control.socket());
  client.send(GetParam().sent);
  const std::string answer = client.receive("}\n");
  EXPECT_TRUE(answer.starts_with(std::string("HTTP/1.1 ") + GetParam().status + " ")) << answer;
  EXPECT_NE(answer.find(GetParam().says), std::string::npos) << answer;
}

INSTANTIATE_TEST_SUITE_P(
    Rows, OneRequest,
    ::testing::Values(
        Row{"info", get_info, "200", "\"fake\""}, Row{"no_http", "hello\r\n\r\n", "400", "invalid_argument"},
        Row{"tls_where_none_is", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15),
            "400", "invalid_argument"},
        Row{"no_such_path", "GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n", "404", "not_found"},
        Row{"deep_path", "GET /a/b/c/d/e/f/g/h/i/j HTTP/1.1\r\nHost: x\r\n\r\n", "400", "too deep"},
        Row{"bad_escape", "GET /v1/jobs/%zz HTTP/1.1\r\nHost: x\r\n\r\n", "400", "percent"},
        Row{"nul_in_path", "GET /v1/jobs/%00 HTTP/1.1\r\nHost: x\r\n\r\n", "400", "percent"},
        Row{"wrong_method", "PUT /v1/exports HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405",
            "GET, POST"},
        Row{"unknown_method", "FLY /v1/info HTTP/1.1\r\nHost: x\r\n\r\n", "405", "unsupported"},
        Row{"no_json", post("/v1/exports", "{"), "400", "read JSON"},
        Row{"json_list", post("/v1/exports", "[]"), "400", "an object"},
        Row{"missing_field", post("/v1/exports", R"({"name":"a"})"), "400", "'image' is missing"},
        Row{"unknown_field", post("/v1/exports", R"({"name":"a","image":"/a","writeable":true})"), "400",
            "'writeable' is not a field"},
        Row{"wrong_type", post("/v1/exports", R"({"name":"a","image":"/a","writable":1})"), "400",
            "true or false"},
        Row{"nul_in_text", post("/v1/exports", R"({"name":"a\u0000b","image":"/a"})"), "400", "NUL"},
        Row{"deep_json",
            post("/v1/jobs",
                 R"({"kind":"x","request":)" + std::string(100, '[') + std::string(100, ']') + "}"),
            "413", "nested"},
        Row{"header_too_long", "GET /v1/info HTTP/1.1\r\nX: " + std::string(20 << 10, 'x') + "\r\n\r\n",
            "431", "too_large"},
        Row{"header_without_end", "GET /v1/info HTTP/1.1\r\nX: " + std::string(40 << 10, 'x'), "431",
            "too_large"},
        Row{"body_too_long", "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", "413",
            "too_large"},
        Row{"length_is_no_number", "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", "400",
            "invalid_argument"},
        Row{"two_lengths",
            "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            "400", "invalid_argument"},
        Row{"no_job", "GET /v1/jobs/nix HTTP/1.1\r\nHost: x\r\n\r\n", "404", "not_found"}),
    [](const auto& row) { return row.param.name; });

TEST(ControlServer, KeepsAConnectionAndTakesPipelinedRequests) {
  TestControl control;
  RawClient client(control.socket());
  client.send(get_info + get_info);
  const auto answers = [&] {
    const std::string all = client.receive("nothing of this kind");
    std::size_t count = 0;
    for (std::size_t at = all.find("200 OK"); at != std::string::npos; at = all.find("200 OK", at + 1))
      ++count;
    return count;
  };
  client.send("GET /v1/info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(answers(), 3u);
  EXPECT_TRUE(client.is_closed());
}

TEST(ControlServer, TakesARequestByteByByteAndInChunks) {
  TestControl control;
  RawClient client(control.socket());
  for (const char c : std::string("POST /v1/exports HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  "10\r\n{\"name\":\"a\",\"ima\r\n9\r\nge\":\"/a\"}\r\n0\r\n\r\n"))
    ASSERT_TRUE(client.send(std::string_view(&c, 1)));
  EXPECT_TRUE(client.receive("}\n").starts_with("HTTP/1.1 201 ")) << client.receive("}\n");
}

TEST(ControlServer, SaysContinueToWhoAsksFirst) {
  TestControl control;
  RawClient client(control.socket());
  const std::string body = R"({"name":"a","image":"/a"})";
  client.send("POST /v1/exports HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n");
  EXPECT_NE(client.receive("100 Continue\r\n\r\n").find("100 Continue"), std::string::npos);
  client.send(body);
  EXPECT_NE(client.receive("}\n").find("HTTP/1.1 201 "), std::string::npos);
}

TEST(ControlServer, ASlowClientLosesItsConnectionByOneDeadline) {
  control::Limits limits;
  limits.request_time = std::chrono::milliseconds(300);
  TestControl control(limits);
  RawClient client(control.socket());
  // A byte each 20 ms: never silent for long, and never done.
  const auto began = std::chrono::steady_clock::now();
  std::string answer;
  for (const char c : get_info + std::string(1000, ' ')) {
    if (!client.send(std::string_view(&c, 1))) break;
    pollfd none{-1, 0, 0};
    ::poll(&none, 1, 20);
    if (std::chrono::steady_clock::now() - began > std::chrono::seconds(8)) break;
    if (c == '\r') break;  // the first line is enough
  }
  answer = client.receive();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 408 ")) << answer;
  EXPECT_TRUE(client.is_closed());
}

TEST(ControlServer, AnIdleConnectionIsClosedWithoutAWord) {
  control::Limits limits;
  limits.request_time = std::chrono::milliseconds(100);
  TestControl control(limits);
  RawClient client(control.socket());
  EXPECT_EQ(client.receive(), "");
  EXPECT_TRUE(client.is_closed());
  EXPECT_TRUE(wait_until([&] { return control.server->connections() == 0; }));
}

TEST(ControlServer, AClientThatReadsNothingIsLetGo) {
  control::Limits limits;
  limits.write_time = std::chrono::milliseconds(200);
  TestControl control(limits);
  control.gateway.events_end = false;
  for (std::uint64_t i = 1; i <= 2000; ++i)
    control.gateway.published.push_back({.job = "j",
                                         .sequence = i,
                                         .kind = "log",
                                         .body_json = "{\"text\":\"" + std::string(4096, 'x') + "\"}"});
  RawClient client(control.socket());
  client.send("GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(wait_until([&] { return control.server->connections() == 1; }));
  EXPECT_TRUE(wait_until([&] { return control.server->connections() == 0; }));
}

TEST(ControlServer, OneHundredConnectionsAreMoreThanThereMayBe) {
  TestControl control;
  std::vector<RawClient> clients;
  for (int i = 0; i < 100; ++i) {
    clients.emplace_back(control.socket());
    clients.back().send(get_info);
  }
  std::size_t served = 0;
  std::size_t turned_away = 0;
  for (RawClient& client : clients) {
    const std::string answer = client.receive("}\n");
    served += answer.starts_with("HTTP/1.1 200 ") ? 1 : 0;
    turned_away += answer.starts_with("HTTP/1.1 503 ") || answer.empty() ? 1 : 0;
  }
  EXPECT_EQ(served, control::Limits{}.connections_max);
  EXPECT_EQ(served + turned_away, clients.size());
  clients.clear();
  ASSERT_TRUE(wait_until([&] { return control.server->connections() == 0; }));
  RawClient again(control.socket());
  again.send(get_info);
  EXPECT_TRUE(again.receive("}\n").starts_with("HTTP/1.1 200 "));
}

TEST(ControlServer, ARequestThatTakesTooLongIsAnswered) {
  control::Limits limits;
  limits.handle_time = std::chrono::milliseconds(100);
  TestControl control(limits);
  control.gateway.hold_info = true;
  RawClient client(control.socket());
  client.send(get_info);
  const std::string answer = client.receive("}\n");
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 504 ")) << answer;
  control.gateway.hold_info = false;
  client.forget();
  client.send(get_info);
  EXPECT_TRUE(client.receive("}\n").starts_with("HTTP/1.1 200 "));
}

TEST(ControlServer, StoppingLetsARequestEndAndClosesTheIdle) {
  TestControl control;
  control.gateway.hold_info = true;
  RawClient idle(control.socket());
  RawClient busy(control.socket());
  busy.send(get_info);
  ASSERT_TRUE(wait_until([&] { return control.server->connections() == 2; }));
  std::thread stopping([&] { control.stop(); });
  // It stops accepting while the request is held.
  EXPECT_TRUE(wait_until([&] { return !accepts_connections(control.socket()); }));
  control.gateway.released.set();
  stopping.join();
  EXPECT_TRUE(busy.receive("}\n").starts_with("HTTP/1.1 200 "));
  EXPECT_EQ(idle.receive(), "");
  EXPECT_TRUE(idle.is_closed());
}

TEST(ControlServer, StoppingDoesNotWaitForEventStreams) {
  TestControl control;
  control.gateway.events_end = false;
  RawClient client(control.socket());
  client.send("GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
  client.receive("chunked");
  const auto began = std::chrono::steady_clock::now();
  control.stop();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
  client.receive();
  EXPECT_TRUE(client.is_closed());
}

TEST(ControlServer, AnEventStreamHasHeartbeatsAndIsLimited) {
  control::Limits limits;
  limits.heartbeat_time = std::chrono::milliseconds(50);
  limits.event_streams_max = 2;
  TestControl control(limits);
  control.gateway.events_end = false;
  std::vector<RawClient> clients;
  for (int i = 0; i < 2; ++i) {
    clients.emplace_back(control.socket());
    clients.back().send("GET /v1/jobs/j/events HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_NE(clients.back().receive("heartbeat").find("heartbeat"), std::string::npos);
  }
  RawClient third(control.socket());
  third.send("GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(third.receive("}\n").starts_with("HTTP/1.1 503 "));
  clients.clear();
  EXPECT_TRUE(wait_until([&] { return control.server->connections() <= 1; }));
}

TEST(ControlServer, TheSocketIsForItsOwnerAlone) {
  TestControl control;
  struct stat status{};
  ASSERT_EQ(::stat(control.socket().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST(ControlServer, ASecondServerOnTheSameSocketIsRefused) {
  TestControl control;
  control::Server second(runtime().context(), control.gateway, {.socket = control.socket()});
  const auto started = run(second.start());
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().kind(), ErrorKind::in_use);
  must(run(second.stop()));
}

TEST(ControlServer, AGroupThatIsNotThereIsNamed) {
  const TemporaryFolder folder;
  FakeGateway gateway(runtime().context().clock);
  control::Server server(runtime().context(), gateway,
                         {.socket = folder / "s", .socket_group = "no-such-group"});
  const auto started = run(server.start());
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().kind(), ErrorKind::not_found);
  must(run(server.stop()));
}

TEST(ControlServer, OtherUsersAreRefusedAndMembersOfTheGroupAreNot) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to become others";
  TestControl control({}, {.socket_group = "daemon"});
  // Only the check of the server is tried here: the socket and its folder are open to all, and the client
  // starts in that folder as root, because the folders above it may belong to us alone.
  ASSERT_EQ(::chmod(control.folder.path().c_str(), 0755), 0);
  ASSERT_EQ(::chmod(control.socket().c_str(), 0666), 0);
  const auto ask = [&](const std::string& groups) {
    const ProgramResult result =
        run_program({"env", "--chdir=" + control.folder.path(), "setpriv", "--reuid", "nobody", "--regid",
                     "nogroup", groups, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}",
                     "--unix-socket", "control", "http://x/v1/info"});
    return result.out + result.err;
  };
  EXPECT_EQ(ask("--clear-groups"), "403");
  EXPECT_EQ(ask("--groups=daemon"), "200");
}

}  // namespace
}  // namespace diskferry::test
