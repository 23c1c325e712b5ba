// The routes of version 1 (docs/control-api.md lists them).
#include "gateway/control/routes.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/control/json.hpp"
#include "gateway/control/status.hpp"
#include "gateway/control/target.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <fmt/format.h>
#include <optional>
#include <span>
#include <vector>

namespace diskferry::control {
namespace {

/// A request that found its route. Lifetime: until the handler ends.
struct Call {
  GatewayApi& api;
  const Limits& limits;
  Target target;
  std::string body;
  std::string id;      ///< the segment that is a name
  std::string caller;  ///< Caller::name
};

using Handler = Task<Result<Answer>> (*)(Call&);

Answer text_answer(std::string json, unsigned status = 200) {
  return {.response = {.status = status, .body = std::move(json) + "\n"}};
}
template <class T>
Result<Answer> in_json(const Result<T>& result, unsigned status = 200) {
  if (!result) return unexpected(result.error());
  return text_answer(to_json(*result), status);
}
template <class T>
Result<T> body_of(const Call& call) {
  return from_json<T>(call.body, Unknown::refused, call.limits.json_depth_max);
}

Result<std::uint64_t> query_number(const Call& call, const std::string& key, std::uint64_t otherwise) {
  const auto found = call.target.query.find(key);
  if (found == call.target.query.end()) return otherwise;
  const std::string& text = found->second;
  std::uint64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size())
    return unexpected(fail(ErrorKind::invalid_argument, "read request").why(key + " must be a number"));
  return value;
}

Task<Result<Answer>> get_info(Call& call) {
  co_return in_json(co_await call.api.info());
}
Task<Result<Answer>> get_metrics(Call& call) {
  DISKFERRY_CO_TRY(std::string text, co_await call.api.metrics());
  co_return Answer{.response = {.content_type = "text/plain; version=0.0.4", .body = std::move(text)}};
}

Task<Result<Answer>> get_exports(Call& call) {
  co_return in_json(co_await call.api.exports());
}
Task<Result<Answer>> post_export(Call& call) {
  DISKFERRY_CO_TRY(auto request, body_of<ExportRequest>(call));
  co_return in_json(co_await call.api.add_export(std::move(request)), 201);
}
Task<Result<Answer>> delete_export(Call& call) {
  DISKFERRY_CO_CHECK(co_await call.api.remove_export(call.id));
  co_return text_answer("{}");
}

Task<Result<Answer>> get_jobs(Call& call) {
  JobFilter filter;
  const auto active = call.target.query.find("active");
  filter.active_only = active != call.target.query.end() && active->second != "false";
  DISKFERRY_CO_TRY(const auto jobs_max, query_number(call, "limit", filter.jobs_max));
  filter.jobs_max = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(jobs_max, 1, filter.jobs_max));
  co_return in_json(co_await call.api.jobs(filter));
}
Task<Result<Answer>> get_job(Call& call) {
  co_return in_json(co_await call.api.job(call.id));
}
Task<Result<Answer>> post_job(Call& call) {
  DISKFERRY_CO_TRY(auto request, body_of<JobRequest>(call));
  co_return in_json(co_await call.api.create_job(std::move(request)), 201);
}
Task<Result<Answer>> post_plan(Call& call) {
  DISKFERRY_CO_TRY(auto request, body_of<JobRequest>(call));
  DISKFERRY_CO_TRY(std::string text, co_await call.api.plan_job(std::move(request)));
  co_return text_answer(std::move(text));
}
template <JobAction action>
Task<Result<Answer>> post_job_action(Call& call) {
  co_return in_json(co_await call.api.act_on_job(call.id, action), 202);
}
Task<Result<Answer>> post_job_settings(Call& call) {
  DISKFERRY_CO_TRY(const auto settings, body_of<JobSettings>(call));
  co_return in_json(co_await call.api.set_job(call.id, settings));
}
Task<Result<Answer>> get_events(Call& call) {
  DISKFERRY_CO_TRY(const auto after, query_number(call, "after", 0));
  Answer answer;
  DISKFERRY_CO_TRY(answer.events, co_await call.api.events({.job = call.id, .after = after}));
  co_return answer;
}

Task<Result<Answer>> post_peer(Call& call) {
  DISKFERRY_CO_TRY(std::string text, co_await call.api.peer({.verb = call.id,
                                                             .body_json = std::move(call.body),
                                                             .caller = std::move(call.caller)}));
  co_return text_answer(std::move(text));
}

struct Route {
  std::string_view method;
  std::string_view path;  ///< "*" stands for one segment, the name of what is meant
  Rights needs;
  Handler handler;
};
constexpr std::array routes{
    Route{"GET", "v1/info", Rights::peer, get_info},
    Route{"GET", "metrics", Rights::operate, get_metrics},
    Route{"GET", "v1/exports", Rights::operate, get_exports},
    Route{"POST", "v1/exports", Rights::operate, post_export},
    Route{"DELETE", "v1/exports/*", Rights::operate, delete_export},
    Route{"GET", "v1/jobs", Rights::operate, get_jobs},
    Route{"POST", "v1/jobs", Rights::operate, post_job},
    Route{"POST", "v1/plans", Rights::operate, post_plan},
    Route{"GET", "v1/jobs/*", Rights::operate, get_job},
    Route{"POST", "v1/jobs/*/cancel", Rights::operate, post_job_action<JobAction::cancel>},
    Route{"POST", "v1/jobs/*/pause", Rights::operate, post_job_action<JobAction::pause>},
    Route{"POST", "v1/jobs/*/resume", Rights::operate, post_job_action<JobAction::resume>},
    Route{"POST", "v1/jobs/*/commit", Rights::operate, post_job_action<JobAction::commit>},
    Route{"POST", "v1/jobs/*/fallback", Rights::operate, post_job_action<JobAction::fallback>},
    Route{"POST", "v1/jobs/*/set", Rights::operate, post_job_settings},
    Route{"GET", "v1/jobs/*/events", Rights::operate, get_events},
    Route{"GET", "v1/events", Rights::operate, get_events},
    Route{"POST", "v1/peer/*", Rights::peer, post_peer},
};

/// The name in the path, where the path fits; empty where it has none.
std::optional<std::string> match(std::string_view pattern, const std::vector<std::string>& segments) {
  std::string id;
  std::size_t at = 0;
  for (; !pattern.empty(); ++at) {
    const std::string_view wanted = pattern.substr(0, pattern.find('/'));
    pattern.remove_prefix(std::min(pattern.size(), wanted.size() + 1));
    if (at == segments.size()) return std::nullopt;
    if (wanted == "*") {
      id = segments[at];
    } else if (wanted != segments[at]) {
      return std::nullopt;
    }
  }
  if (at != segments.size()) return std::nullopt;
  return id;
}

struct Found {
  const Route* route = nullptr;
  std::string id{};
  std::string methods{};  ///< of the path, where the method does not fit
};
Found find(std::string_view method, const std::vector<std::string>& segments) {
  Found found;
  for (const Route& route : routes) {
    auto id = match(route.path, segments);
    if (!id) continue;
    if (route.method == method) return {.route = &route, .id = std::move(*id)};
    found.methods += (found.methods.empty() ? "" : ", ") + std::string(route.method);
  }
  return found;
}

Answer refused(const HttpRequest& request, const Found& found) {
  const std::string what = printable(fmt::format("{} {}", request.method, request.target));
  if (found.methods.empty())
    return {.response =
                to_response(fail(ErrorKind::not_found, "read request", what).why("there is no such path"))};
  Answer answer{
      .response = to_response(
          fail(ErrorKind::unsupported, "read request", what).why("the path is used with " + found.methods))};
  answer.response.status = 405;
  answer.response.allow = found.methods;
  return answer;
}

Task<Result<Answer>> handle(Handler handler, Call call) {
  co_return co_await handler(call);
}

}  // namespace

HttpResponse to_response(const Error& error) {
  return {.status = status_of(error.kind()), .body = to_json(error) + "\n"};
}

Task<Answer> answer(GatewayApi& api, const Limits& limits, HttpRequest request, Caller caller) {
  auto target = parse_target(request.target);
  if (!target) co_return Answer{.response = to_response(target.error())};
  Found found = find(request.method, target->segments);
  if (found.route == nullptr) co_return refused(request, found);
  if (caller.rights < found.route->needs)
    co_return Answer{
        .response = to_response(fail(ErrorKind::permission, "read request", printable(caller.name))
                                    .why("it is let in as a gateway, for the disks of moves only")
                                    .remedy("control.allow in the configuration lets it do everything"))};
  auto result = co_await handle(found.route->handler, Call{.api = api,
                                                           .limits = limits,
                                                           .target = std::move(*target),
                                                           .body = std::move(request.body),
                                                           .id = std::move(found.id),
                                                           .caller = std::move(caller.name)});
  if (!result) co_return Answer{.response = to_response(result.error())};
  co_return std::move(*result);
}

Task<Answer> ApiResponder::answer(HttpRequest request, Caller caller) {
  return control::answer(api_, limits_, std::move(request), std::move(caller));
}

}  // namespace diskferry::control
