// The routes of the page, and what it is given of a job.
#include "gateway/control/web.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/control/json.hpp"
#include "gateway/control/page/page_files.hpp"
#include "gateway/control/target.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cctype>
#include <fmt/format.h>
#include <set>

namespace diskferry::control {
namespace {

/// The page shows so many of the newest; all that are active come besides.
constexpr std::uint32_t jobs_shown_max = 50;
constexpr std::uint32_t active_jobs_max = 200;

bool is_address(const std::string& text) {
  in6_addr ignored{};
  return inet_pton(AF_INET, text.c_str(), &ignored) == 1 || inet_pton(AF_INET6, text.c_str(), &ignored) == 1;
}

bool is_same_name(std::string_view one, std::string_view other) {
  return std::ranges::equal(
      one, other, [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); });
}

/// Without the port; empty where it is no host.
std::string host_part(std::string_view host) {
  const bool has_brackets = host.starts_with('[');
  const std::size_t end = has_brackets ? host.find(']') : host.find(':');
  if (has_brackets && end == std::string_view::npos) return {};
  const std::string_view port =
      end == std::string_view::npos ? "" : host.substr(end + (has_brackets ? 1 : 0));
  const bool is_port =
      port.empty() ||
      (port.size() > 1 && port.size() <= 6 && port.front() == ':' &&
       std::ranges::all_of(port.substr(1), [](unsigned char c) { return std::isdigit(c) != 0; }));
  if (!is_port) return {};
  return std::string(has_brackets ? host.substr(1, end - 1) : host.substr(0, end));
}

/// What a request and a state hold is between the job and its operators.
JobDescription shown(JobDescription job) {
  job.request_json = "{}";
  job.state_json = "{}";
  return job;
}

Answer json_answer(std::string text) {
  return {.response = {.body = std::move(text) + "\n"}};
}

Task<Result<Answer>> get_gateway(GatewayApi& api) {
  DISKFERRY_CO_TRY(GatewayInfo info, co_await api.info());
  info.host_id.clear();
  co_return json_answer(to_json(info));
}

/// Without reports: a page that wants one asks for its job.
Task<Result<Answer>> get_jobs(GatewayApi& api) {
  DISKFERRY_CO_TRY(const auto active, co_await api.jobs({.active_only = true, .jobs_max = active_jobs_max}));
  DISKFERRY_CO_TRY(const auto newest, co_await api.jobs({.jobs_max = jobs_shown_max}));
  std::vector<JobDescription> all;
  std::set<std::string> names;
  for (const auto* list : {&active, &newest}) {
    for (const JobDescription& job : *list) {
      if (!names.insert(job.id).second) continue;
      all.push_back(shown(job));
      all.back().report_json = "{}";
    }
  }
  co_return json_answer(to_json(all));
}

Task<Result<Answer>> get_job(GatewayApi& api, std::string id) {
  DISKFERRY_CO_TRY(JobDescription job, co_await api.job(std::move(id)));
  co_return json_answer(to_json(shown(std::move(job))));
}

Task<Result<Answer>> get_exports(GatewayApi& api) {
  DISKFERRY_CO_TRY(auto exports, co_await api.exports());
  for (ExportDescription& one : exports) one.allow.clear();
  co_return json_answer(to_json(exports));
}

Task<Result<Answer>> get_events(GatewayApi& api) {
  Answer answer{.event_format = EventFormat::server_sent};
  answer.response.content_type = "text/event-stream";
  DISKFERRY_CO_TRY(answer.events, co_await api.events({}));
  co_return answer;
}

Task<Result<Answer>> get_metrics(GatewayApi& api) {
  DISKFERRY_CO_TRY(std::string text, co_await api.metrics());
  co_return Answer{
      .response = {.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = std::move(text)}};
}

/// Errors: not_found for a path that is not there, and those of the calls.
Task<Result<Answer>> look_at(GatewayApi& api, Target target) {
  const auto& path = target.segments;
  if (path.size() == 2 && path.front() == "jobs") co_return co_await get_job(api, path.back());
  if (path.size() > 1) co_return unexpected(fail(ErrorKind::not_found, "read request"));
  const std::string name = path.empty() ? "" : path.front();
  if (name == "gateway") co_return co_await get_gateway(api);
  if (name == "jobs") co_return co_await get_jobs(api);
  if (name == "exports") co_return co_await get_exports(api);
  if (name == "events") co_return co_await get_events(api);
  if (name == "metrics") co_return co_await get_metrics(api);
  const auto file = std::ranges::find(page_files, name, &PageFile::name);
  if (file == page_files.end()) co_return unexpected(fail(ErrorKind::not_found, "read request"));
  co_return Answer{
      .response = {.content_type = std::string(file->content_type), .body = std::string(file->text)}};
}

Answer refused(const Error& error, unsigned status) {
  Answer answer{.response = to_response(error)};
  answer.response.status = status;
  return answer;
}

Answer other_host(std::string_view host) {
  return refused(
      fail(ErrorKind::permission, "read request", printable(host))
          .why(host.empty() ? "it says no host" : "this gateway is not called by that name")
          .remedy("use its address, or put the name into web.hosts of the gateway's configuration"),
      421);
}

}  // namespace

bool is_our_host(std::string_view host, const std::vector<std::string>& names) {
  const std::string name = host_part(host);
  if (name.empty()) return false;
  return is_address(name) || is_same_name(name, "localhost") ||
         std::ranges::any_of(names, [&](const auto& one) { return is_same_name(name, one); });
}

WebResponder::WebResponder(GatewayApi& api, const WebOptions& options)
    : api_(api), names_([&] {
        std::vector<std::string> names = options.hosts;
        if (!options.host.empty()) names.push_back(options.host);
        return names;
      }()) {}

Task<Answer> WebResponder::answer(HttpRequest request, Caller) {
  if (!is_our_host(request.host, names_)) co_return other_host(request.host);
  const bool is_head = request.method == "HEAD";
  if (!is_head && request.method != "GET") {
    Answer answer = refused(
        fail(ErrorKind::unsupported, "read request", printable(request.method)).why("here one can only look"),
        405);
    answer.response.allow = "GET, HEAD";
    co_return answer;
  }
  auto target = parse_target(request.target);
  if (!target) co_return Answer{.response = to_response(target.error())};
  auto found = co_await look_at(api_, std::move(*target));
  Answer answer = found ? std::move(*found) : Answer{.response = to_response(found.error())};
  if (is_head) answer.events.reset();
  answer.response.is_head_only = is_head;
  co_return answer;
}

}  // namespace diskferry::control
