// Start and end. What is made first ends last.
#include "gateway/daemon/daemon.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "gateway/control/server.hpp"
#include "gateway/daemon/exports.hpp"
#include "gateway/daemon/local_gateway.hpp"
#include "gateway/daemon/moves.hpp"
#include "gateway/daemon/notify.hpp"
#include "gateway/daemon/settings.hpp"
#include "gateway/daemon/state_folder.hpp"
#include "gateway/daemon/users.hpp"
#include "gateway/nbd/server.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <optional>
#include <unistd.h>

#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry::daemon {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? std::string(name.data()) : std::string("localhost");
}

void log_nbd(nbd_server::ServerOptions::Severity severity, const std::string& text) {
  using Severity = nbd_server::ServerOptions::Severity;
  const auto level = severity == Severity::debug  ? spdlog::level::debug
                     : severity == Severity::info ? spdlog::level::info
                     : severity == Severity::warn ? spdlog::level::warn
                                                  : spdlog::level::err;
  spdlog::log(level, "nbd: {}", text);
}
void log_control(control::ServerOptions::Severity severity, const std::string& text) {
  using Severity = control::ServerOptions::Severity;
  const auto level = severity == Severity::debug  ? spdlog::level::debug
                     : severity == Severity::info ? spdlog::level::info
                                                  : spdlog::level::warn;
  spdlog::log(level, "control: {}", text);
}

/// A storage that took the place of the configured one counts, unless the configuration has been changed
/// since: then somebody has said where the export is.
EndpointRecord place_of(const ExportConfig& configured, const std::vector<EndpointRecord>& endpoints) {
  const auto found = std::ranges::find(endpoints, configured.name, &EndpointRecord::name);
  if (found != endpoints.end() && found->configured == configured.image) return *found;
  if (found != endpoints.end())
    spdlog::warn("{}: export {}: its storage was replaced by {}, and the configuration names {} since",
                 printable(configured.where), printable(configured.name), printable(found->uri),
                 printable(configured.image));
  return {.name = configured.name, .uri = configured.image, .format = configured.format};
}

class Daemon {
 public:
  Daemon(DriverContext& context, const Config& config) : context_(context), config_(config) {}

  Task<Result<void>> run(std::ostream& out) {
    auto result = co_await start();
    const bool was_ready = result.has_value();
    if (was_ready) {
      announce(out);
      result = co_await nbd_->wait();
    }
    // From here on nothing is cut short by the signal that got us here; every step has its own bound.
    co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
    if (was_ready) {
      notify_service_manager("STOPPING=1");
      spdlog::info("stopping");
    }
    auto stopped = co_await stop();
    if (!result) co_return result;
    co_return stopped;
  }

 private:
  Result<std::string> prepare_folders() const {
    DISKFERRY_CHECK(make_state_folder(config_.state.folder));
    DISKFERRY_CHECK(make_parent(config_.control.socket));
    DISKFERRY_TRY(const auto nbd, nbd_options(config_));
    for (const auto& address : nbd.listen) {
      if (!address.path.empty()) DISKFERRY_CHECK(make_parent(address.path));
    }
    return gateway_id(config_.state.folder);
  }

  Task<Result<void>> start() {
    DISKFERRY_CO_TRY(const std::string id,
                     co_await context_.blocking_pool.run([this] { return prepare_folders(); }));
    DISKFERRY_CO_TRY(auto nbd, nbd_options(config_));
    DISKFERRY_CO_TRY(auto control, control_options(config_));
    nbd.log = log_nbd;
    control.log = log_control;
    nbd_.emplace(context_, std::move(nbd));
    DISKFERRY_CO_TRY(const UserIds qemu, co_await context_.blocking_pool.run([this] {
      return find_user(config_.move.qemu_user, config_.move.qemu_group);
    }));
    disks_.emplace(context_, DiskServerOptions{.socket = config_.move.run_folder + "/disks/nbd.sock",
                                               .hypervisor_uid = qemu.uid,
                                               .hypervisor_gid = qemu.gid});
    exports_.emplace(context_, *nbd_, *disks_);
    moves_.emplace(context_, config_, *nbd_);
    DISKFERRY_CO_CHECK(co_await moves_->open_store());
    DISKFERRY_CO_CHECK(co_await open_exports());
    DISKFERRY_CO_CHECK(co_await moves_->take_up_replacements(*exports_, *exports_, id));
    exports_->offer_configured();
    // Not before: who came back while an export was not there yet would take it for another one.
    DISKFERRY_CO_CHECK(co_await nbd_->start());
    nbd_started_ = true;
    if (exports_->has_disks()) DISKFERRY_CO_CHECK(co_await disks_->have_listening());
    exports_->keep_trying();
    const std::string name = config_.name.empty() ? host_name() : config_.name;
    DISKFERRY_CO_CHECK(co_await moves_->start(name, id));
    gateway_.emplace(GatewayParts{.name = name,
                                  .id = id,
                                  .exports = *exports_,
                                  .nbd = *nbd_,
                                  .jobs = &moves_->jobs(),
                                  .peers = &moves_->peers(),
                                  .forget_disk = [this](std::string export_name) {
                                    return moves_->forget_endpoint(std::move(export_name));
                                  }});
    control_.emplace(context_, *gateway_, std::move(control));
    DISKFERRY_CO_CHECK(co_await control_->start());
    co_return Result<void>{};
  }

  /// One that cannot be opened does not keep the others from their guests: it is told, and tried again.
  Task<Result<void>> open_exports() {
    DISKFERRY_CO_TRY(const auto endpoints, co_await moves_->endpoints());
    for (const ExportConfig& one : config_.exports) {
      const EndpointRecord place = place_of(one, endpoints);
      const auto added = co_await exports_->open_configured({.name = one.name,
                                                             .image = place.uri,
                                                             .format = place.format,
                                                             .description = one.description,
                                                             .writable = one.writable,
                                                             .requires_tls = one.require_tls,
                                                             .allow = one.allow},
                                                            place.size_bytes, one.image);
      if (added) {
        spdlog::info("export {}: {}", printable(one.name), printable(added->image));
      } else if (added.error().kind() == ErrorKind::cancelled) {
        co_return unexpected(added.error());
      } else {
        spdlog::error("{}: export {} waits for its storage, and is tried again: {}", printable(one.where),
                      printable(one.name), added.error().message());
      }
    }
    for (const EndpointRecord& record : endpoints)
      if (record.configured.empty()) co_await open_disk(record);
    co_return Result<void>{};
  }

  /// A machine's disk, which no configuration names; where one does, that counts.
  Task<void> open_disk(EndpointRecord record) {
    if (exports_->has_export(record.name)) co_return;
    const bool is_taken_over = co_await moves_->is_taken_over(record.name);
    const auto opened = co_await exports_->open_disk(record, is_taken_over);
    if (opened)
      spdlog::info("export {}: {}", printable(record.name), printable(opened->image));
    else
      spdlog::error("export {}, a machine's disk, waits for its storage, and is tried again: {}",
                    printable(record.name), opened.error().message());
  }

  void announce(std::ostream& out) const {
    std::string line = "READY";
    for (const std::string& address : control_->addresses()) line += " " + address;
    for (const std::string& address : nbd_->addresses()) line += " " + address;
    for (const std::string& address : control_->web_addresses()) line += " " + address;
    out << line << std::endl;
    spdlog::info("ready: {}", line.substr(std::min<std::size_t>(line.size(), 6)));
    notify_service_manager("READY=1");
  }

  Task<Result<void>> stop() {
    Result<void> result;
    const auto keep_first = [&result](Result<void> one) {
      if (!one && result) result = std::move(one);
    };
    if (control_) keep_first(co_await control_->stop());
    control_.reset();
    if (moves_) co_await moves_->stop();
    moves_.reset();
    // Requests in flight are finished, but not waited for where the storage is away.
    if (exports_) co_await exports_->stop_trying();
    if (exports_) exports_->stop_waiting();
    if (nbd_started_) keep_first(co_await nbd_->stop());
    if (disks_) keep_first(co_await disks_->stop());
    if (exports_) keep_first(co_await exports_->close_all());
    exports_.reset();
    disks_.reset();
    nbd_.reset();
    co_return result;
  }

  DriverContext& context_;
  const Config& config_;
  std::optional<nbd_server::Server> nbd_{};
  bool nbd_started_ = false;
  std::optional<DiskServer> disks_{};
  std::optional<Exports> exports_{};
  std::optional<Moves> moves_{};
  std::optional<LocalGateway> gateway_{};
  std::optional<control::Server> control_{};
};

}  // namespace

Task<Result<void>> run_daemon(DriverContext& context, const Config& config, std::ostream& out) {
  Daemon daemon(context, config);
  co_return co_await daemon.run(out);
}

}  // namespace diskferry::daemon
