// What browsers and Prometheus see, and what they cannot do.
#include "gateway/control/web.hpp"

#include "tests/unit/control/test_server.hpp"

#include <fmt/format.h>

#include <gtest/gtest.h>

namespace diskferry::test {
namespace {

/// A control server that also listens for browsers, and a connection to it by hand.
class WebControl : public TestControl {
 public:
  explicit WebControl(control::Limits limits = control::web_limits) : TestControl({}, options(limits)) {}
  RawClient client() const {
    const std::string address = server->web_addresses().front();
    const std::size_t port = address.rfind(':') + 1;
    return RawClient(static_cast<std::uint16_t>(std::stoul(address.substr(port))));
  }
  std::string ask(const std::string& request, std::string_view wanted = "\x01") const {
    RawClient one = client();
    one.send(request);
    return one.receive(wanted);
  }

 private:
  static control::ServerOptions options(control::Limits limits) {
    return {
        .web = {.listens = true, .host = "127.0.0.1", .port = 0, .hosts = {"gw.example"}, .limits = limits}};
  }
};

std::string get(const std::string& target, const std::string& host = "127.0.0.1:1") {
  return fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target, host);
}

struct Row {
  const char* name;
  std::string sent;
  const char* status;
  const char* says;
};
class WebRequest : public ::testing::TestWithParam<Row> {};

TEST_P(WebRequest, IsAnsweredWithItsStatus) {
  WebControl web;
  (void)run(web.gateway.create_job({.kind = "replace", .request_json = R"({"wished-for":"x"})"}));
  const std::string answer = web.ask(GetParam().sent);
  EXPECT_TRUE(answer.starts_with(fmt::format("HTTP/1.1 {} ", GetParam().status))) << answer;
  EXPECT_NE(answer.find(GetParam().says), std::string::npos) << answer;
  EXPECT_EQ(answer.find("wished-for"), std::string::npos) << answer;
  for (const char* line : {"default-src 'none'", "X-Content-Type-Options: nosniff", "X-Frame-Options: DENY",
                           "Cross-Origin-Resource-Policy: same-origin", "Cache-Control: no-store"})
    EXPECT_NE(answer.find(line), std::string::npos) << line << " in: " << answer;
}

std::string with_method(const std::string& method, const std::string& target) {
  return fmt::format("{} {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                     method, target);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, WebRequest,
    ::testing::Values(
        Row{"page", get("/"), "200", "<!doctype html>"}, Row{"style", get("/page.css"), "200", "text/css"},
        Row{"script", get("/page.js"), "200", "text/javascript"},
        Row{"icon", get("/icon.svg"), "200", "image/svg+xml"},
        Row{"metrics", get("/metrics"), "200", "diskferry_up 1"},
        Row{"gateway", get("/gateway"), "200", "\"fake\""}, Row{"jobs", get("/jobs"), "200", "\"j0\""},
        Row{"job", get("/jobs/j0"), "200", "\"j0\""}, Row{"exports", get("/exports"), "200", "exports"},
        Row{"events", get("/events"), "200", "text/event-stream"},
        Row{"no_job", get("/jobs/nix"), "404", "not_found"},
        Row{"no_path", get("/v1/jobs"), "404", "not_found"},
        Row{"no_file", get("/page.html"), "404", "not_found"},
        Row{"way_up", get("/..%2f..%2fetc%2fpasswd"), "404", "not_found"},
        Row{"action", with_method("POST", "/v1/jobs/j0/cancel"), "405", "GET, HEAD"},
        Row{"other_action", with_method("POST", "/jobs/j0"), "405", "GET, HEAD"},
        Row{"put", with_method("PUT", "/"), "405", "GET, HEAD"},
        Row{"remove", with_method("DELETE", "/exports"), "405", "GET, HEAD"},
        Row{"options", with_method("OPTIONS", "/jobs"), "405", "GET, HEAD"},
        Row{"head", with_method("HEAD", "/"), "200", "text/html"},
        Row{"head_of_events", with_method("HEAD", "/events"), "200", "text/event-stream"},
        Row{"own_name", get("/metrics", "GW.example:9309"), "200", "diskferry_up"},
        Row{"six", get("/metrics", "[::1]:9309"), "200", "diskferry_up"},
        Row{"other_name", get("/metrics", "evil.example:9309"), "421", "web.hosts"},
        Row{"name_with_ours_in_it", get("/metrics", "gw.example.evil.example"), "421", "web.hosts"},
        Row{"no_host", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "421", "no host"},
        Row{"two_hosts", "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            "421", "no host"},
        Row{"other_name_may_not_post", "POST / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
            "421", "web.hosts"},
        Row{"no_http", "hello\r\n\r\n", "400", "invalid_argument"},
        Row{"header_too_long", "GET / HTTP/1.1\r\nX: " + std::string(9 << 10, 'x') + "\r\n\r\n", "431",
            "too_large"},
        Row{"body_too_long", "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n", "413",
            "too_large"}),
    [](const auto& row) { return row.param.name; });

TEST(Web, AHeadHasNoBody) {
  WebControl web;
  const std::string answer = web.ask(with_method("HEAD", "/"));
  EXPECT_TRUE(answer.ends_with("\r\n\r\n")) << answer;
  EXPECT_EQ(answer.find("Content-Length: 0\r\n"), std::string::npos) << answer;
}

TEST(Web, EventsComeAsBrowsersTakeThem) {
  WebControl web;
  web.gateway.published.push_back(
      {.job = "j1", .sequence = 1, .kind = "phase", .body_json = "{\"phase\":\"bulk\"}"});
  const std::string answer = web.ask(get("/events"));
  EXPECT_NE(answer.find("\r\ndata: {\"job\":\"j1\""), std::string::npos) << answer;
  EXPECT_NE(answer.find("}\n\n"), std::string::npos) << answer;
}

TEST(Web, ABrowserIsTurnedAwayWhereThereAreTooMany) {
  control::Limits limits = control::web_limits;
  limits.connections_max = 1;
  WebControl web(limits);
  RawClient first = web.client();
  first.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_NE(first.receive("diskferry_up 1\n").find("200 OK"), std::string::npos);
  RawClient second = web.client();
  EXPECT_EQ(second.receive(), "");
  EXPECT_TRUE(second.is_closed());
  // And the operator's socket is no matter of browsers.
  RawClient operators(web.socket());
  operators.send("GET /v1/info HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(operators.receive("}\n").find("\"fake\""), std::string::npos);
}

TEST(Web, TooManyListenersAreTold) {
  control::Limits limits = control::web_limits;
  limits.event_streams_max = 1;
  WebControl web(limits);
  web.gateway.events_end = false;
  RawClient first = web.client();
  first.send(get("/events"));
  EXPECT_NE(first.receive("text/event-stream").find("200 OK"), std::string::npos);
  EXPECT_TRUE(web.ask(get("/events")).starts_with("HTTP/1.1 503 "));
}

TEST(Web, WhoDrawlsLosesTheConnection) {
  control::Limits limits = control::web_limits;
  limits.request_time = std::chrono::milliseconds(100);
  WebControl web(limits);
  EXPECT_TRUE(web.ask("GET / HT").starts_with("HTTP/1.1 408 "));
}

struct HostRow {
  const char* host;
  bool is_ours;
};
TEST(WebHost, IsOursOrAStrangers) {
  const std::vector<std::string> names{"gw.example"};
  for (const auto& [host, is_ours] : {HostRow{"127.0.0.1", true},
                                      HostRow{"127.0.0.1:9309", true},
                                      HostRow{"192.0.2.1:80", true},
                                      HostRow{"[::1]", true},
                                      HostRow{"[fe80::1]:9309", true},
                                      HostRow{"localhost:9309", true},
                                      HostRow{"LOCALHOST", true},
                                      HostRow{"gw.example", true},
                                      HostRow{"Gw.Example:1", true},
                                      HostRow{"", false},
                                      HostRow{":9309", false},
                                      HostRow{"evil.example", false},
                                      HostRow{"localhost.evil.example", false},
                                      HostRow{"127.0.0.1.evil.example", false},
                                      HostRow{"[::1", false},
                                      HostRow{"[::1]evil.example", false},
                                      HostRow{"gw.example:x", false},
                                      HostRow{"gw.example:", false},
                                      HostRow{"gw.example@evil.example", false},
                                      HostRow{"a:1:2", false},
                                      HostRow{"gw.example ", false},
                                      HostRow{"0x7f.1", false}})
    EXPECT_EQ(control::is_our_host(host, names), is_ours) << host;
}

}  // namespace
}  // namespace diskferry::test
