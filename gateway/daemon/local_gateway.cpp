// Passes each call on to the room that does it.
#include "gateway/daemon/local_gateway.hpp"

#include "gateway/control/metrics.hpp"
#include "gateway/runtime/logging.hpp"

#include <fmt/format.h>

namespace diskferry::daemon {
using namespace control;

namespace {
Error not_here(std::string_view what) {
  return fail(ErrorKind::unsupported, "ask gateway").why(fmt::format("this gateway has no {}", what));
}
}  // namespace

LocalGateway::LocalGateway(GatewayParts parts) : parts_(std::move(parts)) {}

Task<Result<GatewayInfo>> LocalGateway::info() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  GatewayInfo info{.name = parts_.name,
                   .version = DISKFERRY_VERSION,
                   .host_id = parts_.id,
                   .time_ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count(),
                   .nbd_addresses = parts_.nbd.addresses(),
                   .features = {"exports"}};
  if (parts_.jobs != nullptr) info.features.emplace_back("jobs");
  if (parts_.peers != nullptr) info.features.emplace_back("peers");
  co_return info;
}

Task<Result<std::vector<ExportDescription>>> LocalGateway::exports() {
  co_return parts_.exports.list();
}
Task<Result<ExportDescription>> LocalGateway::add_export(ExportRequest request) {
  return parts_.exports.add(std::move(request));
}
Task<Result<void>> LocalGateway::remove_export(std::string name) {
  const bool is_disk = parts_.exports.is_disk(name);
  DISKFERRY_CO_CHECK(co_await parts_.exports.remove(name));
  if (is_disk && parts_.forget_disk) co_return co_await parts_.forget_disk(std::move(name));
  co_return Result<void>{};
}

Task<Result<std::vector<JobDescription>>> LocalGateway::jobs(control::JobFilter filter) {
  if (parts_.jobs == nullptr) co_return std::vector<JobDescription>{};
  co_return co_await parts_.jobs->jobs(filter);
}
Task<Result<JobDescription>> LocalGateway::job(std::string id) {
  if (parts_.jobs == nullptr) co_return unexpected(not_here("jobs"));
  co_return co_await parts_.jobs->job(std::move(id));
}
Task<Result<JobDescription>> LocalGateway::create_job(JobRequest request) {
  if (parts_.jobs == nullptr) co_return unexpected(not_here("jobs"));
  co_return co_await parts_.jobs->create_job(std::move(request));
}
Task<Result<std::string>> LocalGateway::plan_job(JobRequest request) {
  if (parts_.jobs == nullptr) co_return unexpected(not_here("jobs"));
  co_return co_await parts_.jobs->plan_job(std::move(request));
}
Task<Result<JobDescription>> LocalGateway::act_on_job(std::string id, JobAction action) {
  if (parts_.jobs == nullptr) co_return unexpected(not_here("jobs"));
  co_return co_await parts_.jobs->act_on_job(std::move(id), action);
}
Task<Result<JobDescription>> LocalGateway::set_job(std::string id, JobSettings settings) {
  if (parts_.jobs == nullptr) co_return unexpected(not_here("jobs"));
  co_return co_await parts_.jobs->set_job(std::move(id), settings);
}
Task<Result<std::unique_ptr<EventSource>>> LocalGateway::events(EventFilter filter) {
  if (parts_.jobs == nullptr) co_return unexpected(not_here("jobs"));
  co_return co_await parts_.jobs->events(std::move(filter));
}

Task<Result<std::string>> LocalGateway::peer(PeerCall call) {
  if (parts_.peers == nullptr) co_return unexpected(not_here("disks for moves"));
  co_return co_await parts_.peers->peer(std::move(call));
}

/// Collected when it is asked for: what serves guests pays nothing for it.
Task<Result<std::string>> LocalGateway::metrics() {
  const std::chrono::duration<double> up = std::chrono::steady_clock::now() - started_;
  MetricsView view{.version = DISKFERRY_VERSION,
                   .uptime_s = up.count(),
                   .nbd_sessions = parts_.nbd.sessions(),
                   .exports = parts_.exports.list(),
                   .log_lines = log_line_counts()};
  if (parts_.jobs != nullptr) {
    DISKFERRY_CO_TRY(view.jobs,
                     co_await parts_.jobs->jobs({.active_only = true, .jobs_max = MetricsLimits::jobs_max}));
    DISKFERRY_CO_TRY(view.jobs_by_status, co_await parts_.jobs->counts());
  }
  co_return metrics_text(view);
}

}  // namespace diskferry::daemon
