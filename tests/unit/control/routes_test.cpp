// The table of routes: which call each path makes, and who may.
#include "gateway/control/routes.hpp"

#include "tests/support/test_runtime.hpp"
#include "tests/unit/control/fake_gateway.hpp"

#include <gtest/gtest.h>

namespace diskferry::control {
namespace {
using test::FakeGateway;

Task<Result<Answer>> ask(GatewayApi& api, const Limits& limits, HttpRequest request, Rights rights) {
  co_return co_await answer(api, limits, std::move(request), {.name = "tester", .rights = rights});
}

struct Row {
  const char* name;
  const char* method;
  const char* target;
  const char* body;
  unsigned status;
  const char* says;
  bool peer_may;
};
class Route : public ::testing::TestWithParam<Row> {
 protected:
  Route() : gateway_(test::runtime().context().clock) {
    (void)test::run(gateway_.create_job({.kind = "copy"}));
    (void)test::run(gateway_.add_export({.name = "a/b", .image = "/a"}));
    gateway_.published.push_back({.job = "j0", .sequence = 1, .kind = "phase"});
  }
  Answer ask_as(Rights rights) {
    return test::must(test::run(
        ask(gateway_, limits_,
            {.method = GetParam().method, .target = GetParam().target, .body = GetParam().body}, rights)));
  }
  FakeGateway gateway_;
  Limits limits_;
};

TEST_P(Route, MakesItsCall) {
  const Answer given = ask_as(Rights::operate);
  EXPECT_EQ(given.response.status, GetParam().status) << given.response.body;
  EXPECT_NE(given.response.body.find(GetParam().says), std::string::npos) << given.response.body;
}

TEST_P(Route, IsForWhoMay) {
  const Answer given = ask_as(Rights::peer);
  EXPECT_EQ(given.response.status == 403, !GetParam().peer_may) << given.response.body;
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Route,
    ::testing::Values(Row{"info", "GET", "/v1/info", "", 200, "fake", true},
                      Row{"metrics", "GET", "/metrics", "", 200, "diskferry_up", false},
                      Row{"exports", "GET", "/v1/exports", "", 200, "a/b", false},
                      Row{"add_export", "POST", "/v1/exports", R"({"name":"n","image":"/i"})", 201, "/i",
                          false},
                      Row{"add_twice", "POST", "/v1/exports", R"({"name":"a/b","image":"/i"})", 409,
                          "choose another", false},
                      Row{"remove_export", "DELETE", "/v1/exports/a%2Fb", "", 200, "{}", false},
                      Row{"remove_none", "DELETE", "/v1/exports/none", "", 404, "not_found", false},
                      Row{"jobs", "GET", "/v1/jobs?active=true&limit=5", "", 200, "j0", false},
                      Row{"jobs_bad_limit", "GET", "/v1/jobs?limit=x", "", 400, "limit", false},
                      Row{"create_job", "POST", "/v1/jobs", R"({"kind":"migrate","request":{"a":1}})", 201,
                          R"({"a":1})", false},
                      Row{"job", "GET", "/v1/jobs/j0", "", 200, "copy", false},
                      Row{"cancel", "POST", "/v1/jobs/j0/cancel", "", 202, "action 0", false},
                      Row{"pause", "POST", "/v1/jobs/j0/pause", "", 202, "action 1", false},
                      Row{"resume", "POST", "/v1/jobs/j0/resume", "", 202, "action 2", false},
                      Row{"commit", "POST", "/v1/jobs/j0/commit", "", 202, "action 3", false},
                      Row{"fallback", "POST", "/v1/jobs/j0/fallback", "", 202, "action 4", false},
                      Row{"no_action", "POST", "/v1/jobs/j0/explode", "", 404, "no such path", true},
                      Row{"set", "POST", "/v1/jobs/j0/set", R"({"rate":5})", 200, "j0", false},
                      Row{"set_unknown", "POST", "/v1/jobs/j0/set", R"({"speed":5})", 400, "speed", false},
                      Row{"peer_prepare", "POST", "/v1/peer/prepare", R"({"disk":"vda"})", 200,
                          R"("verb":"prepare","caller":"tester","body":{"disk":"vda"})", true},
                      Row{"peer_none", "POST", "/v1/peer/none", "{}", 404, "not_found", true},
                      Row{"peer_by_get", "GET", "/v1/peer/prepare", "", 405, "POST", true}),
    [](const auto& row) { return row.param.name; });

TEST(Routes, EventsAreAStreamFromTheWantedOne) {
  FakeGateway gateway(test::runtime().context().clock);
  for (std::uint64_t i = 1; i <= 3; ++i)
    gateway.published.push_back({.job = "j", .sequence = i, .kind = "log"});
  const Limits limits;
  auto given = test::must(test::run(
      ask(gateway, limits, {.method = "GET", .target = "/v1/jobs/j/events?after=2"}, Rights::operate)));
  ASSERT_TRUE(given.events);
  const auto batch = test::must(test::run(given.events->next(std::chrono::seconds(1))));
  EXPECT_EQ(batch.events.at(0).sequence, 3u);
}

}  // namespace
}  // namespace diskferry::control
