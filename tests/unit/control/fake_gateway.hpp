// A gateway that keeps everything in memory and behaves: names are there or not, jobs change their status.
#pragma once

#include "diskferry/sync.hpp"
#include "gateway/control/api.hpp"

#include <atomic>
#include <deque>
#include <map>
#include <mutex>

namespace diskferry::test {

/// Gives what was published, then waits; ends when told so.
class FakeEvents final : public control::EventSource {
 public:
  FakeEvents(Clock& clock, std::vector<control::JobEvent> events, bool ends)
      : clock_(clock), events_(events.begin(), events.end()), ends_(ends) {}
  Task<Result<Batch>> next(Duration wait) override {
    if (!events_.empty()) {
      Batch batch{.events = {events_.front()}};
      events_.pop_front();
      co_return batch;
    }
    if (ends_) co_return Batch{.ended = true};
    DISKFERRY_CO_CHECK(co_await clock_.sleep_for(wait));
    co_return Batch{};
  }

 private:
  Clock& clock_;
  std::deque<control::JobEvent> events_;
  bool ends_;
};

class FakeGateway final : public control::GatewayApi {
 public:
  explicit FakeGateway(Clock& clock) : clock_(clock) {}

  Task<Result<control::GatewayInfo>> info() override {
    if (hold_info) DISKFERRY_CO_CHECK(co_await released.wait());
    co_return control::GatewayInfo{
        .name = "fake", .version = "1", .time_ms = time_ms, .features = {"exports"}};
  }
  Task<Result<std::vector<control::ExportDescription>>> exports() override {
    std::lock_guard lock(guard_);
    std::vector<control::ExportDescription> all;
    for (const auto& [name, one] : exports_) all.push_back(one);
    co_return all;
  }
  Task<Result<control::ExportDescription>> add_export(control::ExportRequest request) override {
    std::lock_guard lock(guard_);
    const control::ExportDescription made{
        .name = request.name, .image = request.image, .writable = request.writable, .allow = request.allow};
    if (!exports_.emplace(request.name, made).second)
      co_return unexpected(fail(ErrorKind::already_exists, "export", request.name)
                               .cause(errno_code(17))
                               .remedy("choose another name")
                               .in("add"));
    co_return made;
  }
  Task<Result<void>> remove_export(std::string name) override {
    std::lock_guard lock(guard_);
    if (exports_.erase(name) == 0) co_return unexpected(fail(ErrorKind::not_found, "remove export", name));
    co_return Result<void>{};
  }
  Task<Result<std::vector<control::JobDescription>>> jobs(control::JobFilter filter) override {
    std::lock_guard lock(guard_);
    last_filter = filter;
    std::vector<control::JobDescription> all;
    for (const auto& [id, one] : jobs_) {
      if (!filter.active_only || one.status == "running") all.push_back(one);
    }
    co_return all;
  }
  Task<Result<control::JobDescription>> job(std::string id) override {
    std::lock_guard lock(guard_);
    if (!jobs_.contains(id)) co_return unexpected(fail(ErrorKind::not_found, "find job", id));
    co_return jobs_.at(id);
  }
  Task<Result<std::string>> plan_job(control::JobRequest request) override {
    co_return R"({"way":")" + request.kind + R"("})";
  }
  Task<Result<control::JobDescription>> create_job(control::JobRequest request) override {
    std::lock_guard lock(guard_);
    const std::string id = "j" + std::to_string(jobs_.size());
    jobs_[id] = {.id = id,
                 .kind = request.kind,
                 .subject = "vm",
                 .status = "running",
                 .request_json = request.request_json};
    co_return jobs_[id];
  }
  Task<Result<control::JobDescription>> act_on_job(std::string id, control::JobAction action) override {
    std::lock_guard lock(guard_);
    if (!jobs_.contains(id)) co_return unexpected(fail(ErrorKind::not_found, "find job", id));
    jobs_[id].phase = "action " + std::to_string(static_cast<int>(action));
    co_return jobs_[id];
  }
  Task<Result<control::JobDescription>> set_job(std::string id, control::JobSettings settings) override {
    std::lock_guard lock(guard_);
    if (!jobs_.contains(id)) co_return unexpected(fail(ErrorKind::not_found, "find job", id));
    last_settings = settings;
    co_return jobs_[id];
  }
  Task<Result<std::unique_ptr<control::EventSource>>> events(control::EventFilter filter) override {
    if (filter.job == "none") co_return unexpected(fail(ErrorKind::not_found, "find job", filter.job));
    std::vector<control::JobEvent> chosen;
    for (const auto& event : published) {
      if (event.sequence > filter.after) chosen.push_back(event);
    }
    co_return std::make_unique<FakeEvents>(clock_, std::move(chosen), events_end);
  }
  Task<Result<std::string>> peer(control::PeerCall call) override {
    if (call.verb == "none") co_return unexpected(fail(ErrorKind::not_found, "do for a gateway", call.verb));
    co_return "{\"verb\":\"" + call.verb + "\",\"caller\":\"" + call.caller +
        "\",\"body\":" + call.body_json + "}";
  }
  Task<Result<std::string>> metrics() override { co_return std::string("diskferry_up 1\n"); }

  std::int64_t time_ms = 0;
  std::atomic<bool> hold_info = false;
  AsyncEvent released;
  std::vector<control::JobEvent> published;
  bool events_end = true;
  control::JobFilter last_filter;
  control::JobSettings last_settings;

 private:
  Clock& clock_;
  std::mutex guard_;
  std::map<std::string, control::ExportDescription> exports_;
  std::map<std::string, control::JobDescription> jobs_;
};

}  // namespace diskferry::test
