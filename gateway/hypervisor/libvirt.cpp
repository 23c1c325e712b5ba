// Connecting, closing, and the calls on a domain that are one call of libvirt each.
#include "gateway/hypervisor/libvirt.hpp"

#include "gateway/hypervisor/domain_xml.hpp"
#include "gateway/hypervisor/libvirt_connection.hpp"
#include "gateway/hypervisor/libvirt_error.hpp"
#include "gateway/hypervisor/libvirt_uri.hpp"

#include <cstdlib>
#include <utility>

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

namespace diskferry {
namespace {
constexpr int keep_alive_interval_s = 5;
constexpr unsigned keep_alive_count = 3;
/// A daemon that accepts and says nothing is met before keep-alive is on.
constexpr Duration connect_limit = std::chrono::seconds(30);

/// Nobody is there to be asked for a password.
int refuse_to_answer(virConnectCredentialPtr, unsigned, void*) {
  return -1;
}

Result<void> open_connection(LibvirtConnection& connection) {
  virConnectAuth auth{.credtype = nullptr, .ncredtype = 0, .cb = refuse_to_answer, .cbdata = nullptr};
  auto* const opened = virConnectOpenAuth(without_prompts(connection.uri).c_str(), &auth, 0);
  if (opened == nullptr)
    return unexpected(libvirt_error(nullptr, "connect", connection.uri)
                          .remedy("check that libvirt runs there, and that this user may connect"));
  // Drivers inside this process (test:///) have no peer to keep alive, and say so.
  (void)virConnectSetKeepAlive(opened, keep_alive_interval_s, keep_alive_count);
  connection.handle = opened;
  return {};
}

/// Takes ownership of a string that libvirt allocated.
std::string take_string(char* text) {
  const std::unique_ptr<char, decltype(&std::free)> owner(text, &std::free);
  return text == nullptr ? std::string() : std::string(text);
}

VmState state_of(int state) noexcept {
  switch (state) {
    case VIR_DOMAIN_PAUSED:
    case VIR_DOMAIN_PMSUSPENDED:
      return VmState::paused;
    case VIR_DOMAIN_SHUTOFF:
      return VmState::shut_off;
    case VIR_DOMAIN_CRASHED:
      return VmState::crashed;
    default:
      return VmState::running;  // also blocked, and on its way down: its disks are in use
  }
}

/// Reasons that libvirt itself takes for a migration's when it restores a machine. An outgoing machine that
/// an operator suspends while it goes over counts among them: libvirt lets it run again, here or there.
bool is_paused_by_migration(int state, int reason) noexcept {
  return state == VIR_DOMAIN_PAUSED &&
         (reason == VIR_DOMAIN_PAUSED_MIGRATION || reason == VIR_DOMAIN_PAUSED_STARTING_UP ||
          reason == VIR_DOMAIN_PAUSED_UNKNOWN);
}

Result<VmCondition> read_condition(virConnectPtr connection, virDomainPtr domain) {
  int state = 0;
  int reason = 0;
  DISKFERRY_CHECK(
      check_libvirt(virDomainGetState(domain, &state, &reason, 0), connection, "ask for the state", domain));
  return VmCondition{.state = state_of(state), .is_in_migration = is_paused_by_migration(state, reason)};
}

Result<VmState> read_state(virConnectPtr connection, virDomainPtr domain) {
  DISKFERRY_TRY(const VmCondition now, read_condition(connection, domain));
  return now.state;
}

Result<std::string> read_xml(virConnectPtr connection, virDomainPtr domain, unsigned flags) {
  char* const text = virDomainGetXMLDesc(domain, flags);
  DISKFERRY_CHECK(check_libvirt(text == nullptr ? -1 : 0, connection, "read the definition", domain));
  return take_string(text);
}

Result<VmDescription> read_description(virConnectPtr connection, virDomainPtr domain) {
  DISKFERRY_TRY(const std::string xml, read_xml(connection, domain, 0));
  DISKFERRY_TRY(VmDescription vm, read_domain(xml));
  DISKFERRY_TRY(vm.state, read_state(connection, domain));
  const int persistent = virDomainIsPersistent(domain);
  DISKFERRY_CHECK(check_libvirt(persistent, connection, "ask whether it is persistent", domain));
  vm.is_persistent = persistent == 1;
  const int snapshots = virDomainSnapshotNum(domain, 0);
  const bool has_none_ever = snapshots < 0 && virGetLastErrorCode() == VIR_ERR_NO_SUPPORT;
  if (!has_none_ever) DISKFERRY_CHECK(check_libvirt(snapshots, connection, "count snapshots", domain));
  vm.has_snapshots = snapshots > 0;
  const int checkpoints = virDomainListAllCheckpoints(domain, nullptr, 0);
  const bool knows_none = checkpoints < 0 && virGetLastErrorCode() == VIR_ERR_NO_SUPPORT;
  if (!knows_none) DISKFERRY_CHECK(check_libvirt(checkpoints, connection, "count checkpoints", domain));
  vm.has_checkpoints = checkpoints > 0;
  return vm;
}

/// Snapshots' and checkpoints' metadata and a saved memory image are libvirt's own and would keep the domain
/// defined; what the guest stores (NVRAM, TPM) stays. A daemon that does not know a flag refuses them all.
int undefine_domain(virDomainPtr domain) {
  constexpr unsigned common = VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
  constexpr unsigned since_5_6 =
      common | VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
  for (const unsigned flags : {since_5_6 | VIR_DOMAIN_UNDEFINE_KEEP_TPM, since_5_6, common}) {
    if (virDomainUndefineFlags(domain, flags) == 0) return 0;
    const int code = virGetLastErrorCode();
    if (code != VIR_ERR_INVALID_ARG && code != VIR_ERR_ARGUMENT_UNSUPPORTED) return -1;
  }
  return -1;
}
}  // namespace

LibvirtConnection::~LibvirtConnection() {
  close();
}

void LibvirtConnection::close() noexcept {
  auto* const closing = std::exchange(handle, nullptr);
  if (closing == nullptr) return;
  stop_watching(closing);
  virConnectClose(closing);
  // A call that hangs keeps the connection open, and needs the loop to notice that its peer is lost.
  if (threads.stuck() == 0) loop.reset();
}

void LibvirtConnection::FreeDomain::operator()(_virDomain* domain) const noexcept {
  virDomainFree(domain);
}

Result<LibvirtConnection::DomainPtr> LibvirtConnection::find(_virConnect* connection,
                                                             const std::string& operation,
                                                             const std::string& domain) {
  DomainPtr found(virDomainLookupByName(connection, domain.c_str()));
  if (!found) return unexpected(libvirt_error(connection, operation, domain));
  return found;
}

bool LibvirtConnection::is_lost(_virConnect* connection) noexcept {
  return virConnectIsAlive(connection) == 0;
}

Error LibvirtConnection::closed(CallTerms terms) const {
  return fail(ErrorKind::gone, std::move(terms.operation), std::move(terms.object))
      .why("the connection is closed");
}

Libvirt::Libvirt(std::shared_ptr<LibvirtConnection> connection) : connection_(std::move(connection)) {}

Libvirt::~Libvirt() = default;

const std::string& Libvirt::uri() const noexcept {
  return connection_->uri;
}

Task<Result<std::unique_ptr<Libvirt>>> Libvirt::connect(DriverContext& context, std::string uri) {
  auto connection = std::make_shared<LibvirtConnection>(context, std::move(uri));
  CallTerms terms{.operation = "connect", .object = connection->uri, .limit = connect_limit};
  DISKFERRY_CO_CHECK(co_await connection->threads.run(std::move(terms), [connection]() -> Result<void> {
    DISKFERRY_TRY(connection->loop, EventLoopLease::take());
    return open_connection(*connection);
  }));
  co_return std::unique_ptr<Libvirt>(new Libvirt(std::move(connection)));
}

Task<void> Libvirt::close() {
  CallTerms terms{.operation = "disconnect", .object = connection_->uri};
  (void)co_await connection_->threads.run(std::move(terms), [connection = connection_]() -> Result<void> {
    connection->close();
    return {};
  });
}

Task<Result<VmDescription>> Libvirt::describe(std::string domain) {
  return connection_->on_domain<VmDescription>("describe", std::move(domain), read_description);
}

Task<Result<std::string>> Libvirt::xml(std::string domain, Xml form) {
  unsigned flags = 0;
  if (form == Xml::migratable) flags = VIR_DOMAIN_XML_MIGRATABLE | VIR_DOMAIN_XML_SECURE;
  if (form == Xml::inactive) flags = VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE;
  return connection_->on_domain<std::string>(
      "read the definition", std::move(domain),
      [flags](auto* connection, auto* found) { return read_xml(connection, found, flags); });
}

Task<Result<VmState>> Libvirt::state(std::string domain) {
  auto state = co_await connection_->on_domain<VmState>("ask for the state", std::move(domain), read_state);
  if (!state && state.error().kind() == ErrorKind::not_found) co_return VmState::absent;
  co_return state;
}

Task<Result<VmCondition>> Libvirt::condition(std::string domain) {
  auto now =
      co_await connection_->on_domain<VmCondition>("ask for the state", std::move(domain), read_condition);
  if (!now && now.error().kind() == ErrorKind::not_found) co_return VmCondition{};
  co_return now;
}

Task<Result<std::uint64_t>> Libvirt::disk_bytes(std::string domain, std::string target) {
  return connection_->on_domain<std::uint64_t>(
      "ask for the size of a disk", std::move(domain),
      [target = std::move(target)](auto* connection, auto* found) -> Result<std::uint64_t> {
        virDomainBlockInfo info{};
        DISKFERRY_CHECK(check_libvirt(virDomainGetBlockInfo(found, target.c_str(), &info, 0), connection,
                                      "ask for the size of a disk", found));
        return info.capacity;
      });
}

Task<Result<void>> Libvirt::define(std::string xml) {
  return connection_->call<void>(
      {.operation = "define"}, [xml = std::move(xml)](auto* connection) -> Result<void> {
        const LibvirtConnection::DomainPtr defined(virDomainDefineXMLFlags(connection, xml.c_str(), 0));
        if (!defined) return unexpected(libvirt_error(connection, "define", {}));
        return {};
      });
}

Task<Result<void>> Libvirt::undefine(std::string domain) {
  auto done =
      co_await connection_->on_domain<void>("undefine", std::move(domain), [](auto* connection, auto* found) {
        return check_libvirt(undefine_domain(found), connection, "undefine", found);
      });
  if (!done && done.error().kind() == ErrorKind::not_found) co_return Result<void>{};
  co_return done;
}

Task<Result<void>> Libvirt::start(std::string domain) {
  return connection_->on_domain<void>("start", std::move(domain), [](auto* connection, auto* found) {
    return check_libvirt(virDomainCreate(found), connection, "start", found);
  });
}

Task<Result<void>> Libvirt::resume(std::string domain) {
  return connection_->on_domain<void>("resume", std::move(domain), [](auto* connection, auto* found) {
    return check_libvirt(virDomainResume(found), connection, "resume", found);
  });
}

Task<Result<void>> Libvirt::suspend(std::string domain) {
  return connection_->on_domain<void>("suspend", std::move(domain), [](auto* connection, auto* found) {
    return check_libvirt(virDomainSuspend(found), connection, "suspend", found);
  });
}

Task<Result<void>> Libvirt::destroy(std::string domain) {
  return connection_->on_domain<void>("end at once", std::move(domain), [](auto* connection, auto* found) {
    return check_libvirt(virDomainDestroy(found), connection, "end at once", found);
  });
}

}  // namespace diskferry
