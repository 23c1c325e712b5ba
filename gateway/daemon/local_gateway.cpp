// Passes each call on to the room that does it.
#include "gateway/daemon/local_gateway.hpp"

#include <fmt/format.h>

namespace diskferry::daemon {
using namespace control;

namespace {
Error not_here(std::string_view what) {
  return fail(ErrorKind::unsupported, "ask gateway").why(fmt::format("this gateway has no {}", what));
}

/// A label's value in Prometheus's text format.
std::string label(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c == '\n' ? ' ' : c;
  }
  return escaped;
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
  return parts_.exports.remove(std::move(name));
}

Task<Result<std::vector<JobDescription>>> LocalGateway::jobs(JobFilter filter) {
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

Task<Result<std::string>> LocalGateway::metrics() {
  const std::chrono::duration<double> up = std::chrono::steady_clock::now() - started_;
  std::string text = fmt::format(
      "# TYPE diskferry_build_info gauge\ndiskferry_build_info{{version=\"{}\"}} 1\n"
      "# TYPE diskferry_uptime_seconds gauge\ndiskferry_uptime_seconds {:.3f}\n"
      "# TYPE diskferry_nbd_sessions gauge\ndiskferry_nbd_sessions {}\n",
      DISKFERRY_VERSION, up.count(), parts_.nbd.sessions());
  const auto exports = parts_.exports.list();
  text += fmt::format("# TYPE diskferry_exports gauge\ndiskferry_exports {}\n", exports.size());
  if (!exports.empty())
    text += "# TYPE diskferry_export_clients gauge\n# TYPE diskferry_export_size_bytes gauge\n";
  for (const auto& one : exports)
    text += fmt::format("diskferry_export_clients{{export=\"{}\"}} {}\n", label(one.name), one.clients);
  for (const auto& one : exports)
    text += fmt::format("diskferry_export_size_bytes{{export=\"{}\"}} {}\n", label(one.name), one.size_bytes);
  co_return text;
}

}  // namespace diskferry::daemon
