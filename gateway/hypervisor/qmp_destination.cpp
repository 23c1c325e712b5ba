// Asked for by polling: whoever asks may have a connection of its own for each question, and events of before
// are not sent again.
#include "gateway/hypervisor/qmp_destination.hpp"

#include "gateway/hypervisor/qmp_migration_run.hpp"

#include <array>
#include <utility>

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

namespace diskferry {
namespace json = boost::json;
namespace {

constexpr Duration poll_interval = std::chrono::milliseconds(5);
constexpr Duration end_limit = std::chrono::seconds(20);
constexpr std::size_t objects_max = 256;  ///< that are looked at for credentials

Task<Result<void>> offer(Qmp& monitor, const QmpIncoming& incoming) {
  if (incoming.exports.empty()) co_return Result<void>{};
  json::object address{{"type", "unix"}, {"data", json::object{{"path", incoming.exports_socket}}}};
  DISKFERRY_CO_CHECK(co_await monitor.execute("nbd-server-start", {{"addr", std::move(address)}}));
  for (const QmpExport& one : incoming.exports) {
    DISKFERRY_CO_CHECK(co_await monitor.execute("block-export-add", {{"type", "nbd"},
                                                                     {"id", one.name},
                                                                     {"node-name", one.node},
                                                                     {"name", one.name},
                                                                     {"writable", true}}));
  }
  co_return Result<void>{};
}

}  // namespace

VmState vm_state_of_qmp(std::string_view status) noexcept {
  static constexpr std::array<std::pair<std::string_view, VmState>, 8> words{
      {{"running", VmState::running},
       {"suspended", VmState::running},
       {"io-error", VmState::running},
       {"watchdog", VmState::running},
       {"debug", VmState::running},
       {"shutdown", VmState::shut_off},
       {"guest-panicked", VmState::crashed},
       {"internal-error", VmState::crashed}}};
  for (const auto& [word, state] : words)
    if (word == status) return state;
  return VmState::paused;
}

Task<Result<std::string>> qmp_status(Qmp& monitor, std::string query) {
  DISKFERRY_CO_TRY(const auto answer, co_await monitor.execute(std::move(query)));
  const auto* object = answer.if_object();
  co_return object == nullptr ? std::string() : std::string(qmp_text(*object, "status"));
}

json::object qmp_migration_capabilities(bool multifd, bool on_destination) {
  json::array list;
  const auto set = [&list](std::string_view name, bool on) {
    list.push_back({{"capability", name}, {"state", on}});
  };
  set("events", true);
  set("pause-before-switchover", true);
  set("multifd", multifd);
  if (on_destination) set("late-block-activate", true);
  return {{"capabilities", std::move(list)}};
}

Task<Result<std::string>> find_tls_credentials(Qmp& monitor, std::string endpoint) {
  DISKFERRY_CO_TRY(const auto answer, co_await monitor.execute("qom-list", {{"path", "/objects"}}));
  std::vector<std::string> found;
  const auto* list = answer.if_array();
  for (std::size_t at = 0; list != nullptr && at < list->size() && at < objects_max; ++at) {
    const auto* object = (*list)[at].if_object();
    if (object == nullptr || !qmp_text(*object, "type").starts_with("child<tls-creds-")) continue;
    std::string id(qmp_text(*object, "name"));
    auto end = co_await monitor.execute("qom-get", {{"path", "/objects/" + id}, {"property", "endpoint"}});
    if (end && end->is_string() && end->get_string() == endpoint) found.push_back(std::move(id));
  }
  const auto refuse = [&](ErrorKind kind, std::string why) {
    return unexpected(
        fail(kind, "encrypt the memory")
            .why(std::move(why))
            .remedy("start the QEMU with one -object tls-creds-x509,endpoint=" + endpoint + ",..."));
  };
  if (found.empty())
    co_return refuse(ErrorKind::not_found, "a QEMU has no TLS credentials for a " + endpoint);
  if (found.size() > 1)
    co_return refuse(ErrorKind::too_large, "a QEMU has several TLS credentials for a " + endpoint);
  co_return std::move(found.front());
}

Task<Result<void>> QmpIncomingMonitor::receive(QmpIncoming incoming) {
  // A QEMU that was started without -S would run by itself once everything is there.
  DISKFERRY_CO_CHECK(co_await monitor_.execute("stop"));
  const bool multifd = incoming.multifd_channels > 0;
  DISKFERRY_CO_CHECK(
      co_await monitor_.execute("migrate-set-capabilities", qmp_migration_capabilities(multifd, true)));
  json::object parameters;
  if (multifd) parameters["multifd-channels"] = incoming.multifd_channels;
  if (incoming.tls) {
    DISKFERRY_CO_TRY(parameters["tls-creds"], co_await find_tls_credentials(monitor_, "server"));
  }
  if (!parameters.empty())
    DISKFERRY_CO_CHECK(co_await monitor_.execute("migrate-set-parameters", std::move(parameters)));
  DISKFERRY_CO_CHECK(co_await offer(monitor_, incoming));
  DISKFERRY_CO_CHECK(co_await monitor_.execute("migrate-incoming", {{"uri", incoming.listen}}));
  co_return Result<void>{};
}

Task<Result<void>> QmpIncomingMonitor::wait_for_arrival(Duration limit) {
  const TimePoint latest = Clock::after(clock_.now(), limit);
  while (true) {
    DISKFERRY_CO_TRY(const std::string status, co_await qmp_status(monitor_, "query-migrate"));
    if (status == "completed") co_return Result<void>{};
    const auto refuse = [&](ErrorKind kind) {
      return unexpected(
          fail(kind, "take the machine").why("its migration is " + (status.empty() ? "not there" : status)));
    };
    if (status == "failed" || status == "cancelled") co_return refuse(ErrorKind::io);
    if (clock_.now() >= latest) co_return refuse(ErrorKind::timed_out);
    DISKFERRY_CO_CHECK(co_await clock_.sleep_for(poll_interval));
  }
}

Task<Result<void>> QmpIncomingMonitor::resume(Duration limit) {
  // Where there was one: who wrote the disks through it has ended. Refused where there is none.
  (void)co_await monitor_.execute("nbd-server-stop");
  DISKFERRY_CO_CHECK(co_await monitor_.execute("cont", {}, limit));
  const TimePoint latest = Clock::after(clock_.now(), limit);
  while (true) {
    DISKFERRY_CO_TRY(const std::string status, co_await qmp_status(monitor_, "query-status"));
    if (vm_state_of_qmp(status) == VmState::running) co_return Result<void>{};
    if (clock_.now() >= latest)
      co_return unexpected(
          fail(ErrorKind::timed_out, "let the machine run at the destination").why("it is " + status));
    DISKFERRY_CO_CHECK(co_await clock_.sleep_for(poll_interval));
  }
}

Task<Result<VmState>> QmpIncomingMonitor::state() {
  DISKFERRY_CO_TRY(const std::string status, co_await qmp_status(monitor_, "query-status"));
  co_return vm_state_of_qmp(status);
}

Task<Result<void>> QmpIncomingMonitor::end() {
  const auto told = co_await monitor_.execute("quit");
  const auto nothing = [](const QmpEvent&) { return false; };
  const auto ended = co_await monitor_.wait_event(monitor_.event_count(), nothing, "its end", end_limit);
  if (told && ended.error().kind() == ErrorKind::gone) co_return Result<void>{};
  // It did not answer, or its monitor was lost before, which tells nothing of the machine.
  co_return unexpected(told ? ended.error() : told.error());
}

}  // namespace diskferry
