// Start in the order of need, end in the opposite one.
#include "gateway/daemon/moves.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "gateway/daemon/remote_target.hpp"
#include "gateway/daemon/ssh_target.hpp"
#include "gateway/daemon/users.hpp"
#include "gateway/move/through_choice.hpp"

#include <array>
#include <cstdlib>
#include <fmt/format.h>
#include <unistd.h>

namespace diskferry::daemon {
namespace {

/// The TCP port that other gateways reach the NBD server on; 0: none.
std::uint16_t tcp_port(const nbd_server::Server& nbd) {
  for (const std::string& address : nbd.addresses()) {
    const auto uri = ImageUri::parse(address);
    if (uri && !uri->host().empty()) return uri->port().value_or(nbd_server::ListenAddress::default_port);
  }
  return 0;
}

/// What no other process and no earlier life has.
std::string controller_name(const std::string& id) {
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  return fmt::format("{}-{}-{}", id, ::getpid(), now);
}

/// Where other hosts reach this gateway's control API: by its name, which is that of its certificate.
std::string address_of(const Config& config, const std::string& name) {
  if (config.control.listen.text.empty()) return {};
  const auto colon = config.control.listen.text.rfind(':');
  return fmt::format("https://{}:{}", name,
                     colon == std::string::npos ? "10810" : config.control.listen.text.substr(colon + 1));
}

Task<Result<GatewayFacts>> ask_gateway(DriverContext& context, std::string address,
                                       std::string certificates) {
  DISKFERRY_CO_TRY(const auto gateway,
                   co_await connect_target(context, std::move(address), std::move(certificates)));
  auto facts = co_await gateway->facts();
  co_await gateway->close();
  co_return facts;
}

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? std::string(name.data()) : std::string();
}

std::vector<std::string> places_of(const std::vector<TargetDiskRecord>& disks) {
  std::vector<std::string> places;
  for (const TargetDiskRecord& disk : disks) places.push_back(disk.request.uri);
  return places;
}

Task<Result<std::unique_ptr<TargetGateway>>> connect_any(DriverContext& context, std::string address,
                                                         std::string certificates, std::string run_folder) {
  if (address.starts_with("ssh://"))
    return connect_ssh_target(context, std::move(address), std::move(run_folder));
  return connect_target(context, std::move(address), std::move(certificates));
}

/// For tests of what a crash leaves; see ReplaceEnvironment::dies_at.
std::string fault_point(const char* variable) {
  const char* phase = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe): nobody changes it
  return phase == nullptr ? std::string() : phase;
}

}  // namespace

Moves::Moves(DriverContext& context, const Config& config, nbd_server::Server& nbd)
    : context_(context), config_(config), nbd_(nbd), bus_(context.clock) {}

Task<Result<void>> Moves::open_store() {
  DISKFERRY_CO_TRY(store_, co_await JobStore::open({.folder = config_.state.folder + "/jobs", .bus = &bus_}));
  DISKFERRY_CO_CHECK(co_await store_->end_leases());
  co_return Result<void>{};
}

Task<bool> Moves::is_taken_over(std::string export_name) {
  const auto job = co_await job_taking_over(*store_, std::move(export_name));
  co_return job && !job->empty();
}

Task<Result<void>> Moves::take_up_replacements(Endpoints& endpoints, DiskExports& disks,
                                               const std::string& id) {
  const ReplaceEnvironment environment{.drivers = context_,
                                       .journal = *store_,
                                       .bus = bus_,
                                       .endpoints = endpoints,
                                       .controller = controller_name(id),
                                       .state_folder = config_.state.folder,
                                       .window_bytes = config_.move.window_bytes,
                                       .connections = config_.move.connections,
                                       .dies_at = fault_point("DISKFERRYD_DIES_AT"),
                                       .disk_exports = &disks,
                                       .libvirt_uri = config_.hypervisor.uri};
  exports_ = &disks;
  replacements_.emplace(environment, *store_);
  disk_keeper_.emplace(context_, disks, environment.libvirt_uri);
  co_return co_await replacements_->take_up();
}

Task<Result<void>> Moves::start(std::string name, std::string id) {
  DISKFERRY_CO_TRY(const UserIds qemu, co_await context_.blocking_pool.run([this] {
    return find_user(config_.move.qemu_user, config_.move.qemu_group);
  }));
  const std::string run_folder = config_.move.run_folder + "/moves";
  const bool requires_tls = config_.nbd.tls == NbdConfig::Tls::require;
  disks_.emplace(context_, nbd_,
                 TargetDisksOptions{.state_folder = config_.state.folder + "/targets",
                                    .move_folder = run_folder,
                                    .hypervisor_uid = qemu.uid,
                                    .hypervisor_gid = qemu.gid,
                                    .clients_have_names = requires_tls && config_.nbd.verify_peer});
  DISKFERRY_CO_CHECK(co_await disks_->start());
  const GatewayFacts facts{.name = name,
                           .version = DISKFERRY_VERSION,
                           .machine_id = id,
                           .move_folder = run_folder,
                           .nbd_port = tcp_port(nbd_),
                           .nbd_requires_tls = config_.nbd.tls != NbdConfig::Tls::off};
  machines_.emplace(
      context_, *disks_,
      TargetMachinesOptions{.sockets_folder = config_.move.qmp_sockets, .move_folder = run_folder});
  const std::string certificates = config_.control.certificates;
  peers_.emplace(context_, *disks_, *machines_, facts, [this, certificates](std::string address) {
    return ask_gateway(context_, std::move(address), certificates);
  });
  moves_.emplace(MoveEnvironment{.drivers = context_,
                                 .jobs = *store_,
                                 .bus = bus_,
                                 .controller = controller_name(id),
                                 .libvirt_uri = config_.hypervisor.uri,
                                 .run_folder = run_folder,
                                 .state_folder = config_.state.folder,
                                 .qmp_sockets_folder = config_.move.qmp_sockets,
                                 .hypervisor_uid = qemu.uid,
                                 .hypervisor_gid = qemu.gid,
                                 .window_bytes = config_.move.window_bytes,
                                 .connections = config_.move.connections,
                                 .here = facts,
                                 .disk_exports = exports_,
                                 .replacements = &*replacements_,
                                 .address_here = address_of(config_, name),
                                 .dies_at = fault_point("DISKFERRYD_MOVE_DIES_AT"),
                                 .connect_gateway = [this, certificates](std::string address) {
                                   return connect_any(context_, std::move(address), certificates,
                                                      config_.move.run_folder);
                                 }});
  evacuations_.emplace(EvacuationEnvironment{
      .drivers = context_,
      .jobs = *store_,
      .controller = controller_name(id),
      .libvirt_uri = config_.hypervisor.uri,
      .host_name = host_name(),
      .fence = {.words = config_.evacuate.fence, .limit = config_.evacuate.fence_timeout},
      .hosts = config_.evacuate.hosts,
      .unfinished = [this] { return places_of(disks_->records()); }});
  jobs_.emplace(*store_, bus_, *moves_, *evacuations_, *replacements_);
  DISKFERRY_CO_CHECK(co_await replacements_->start());
  disk_keeper_->start();
  DISKFERRY_CO_CHECK(co_await moves_->start());
  co_return co_await evacuations_->start();
}

Task<void> Moves::stop() {
  if (disk_keeper_) co_await disk_keeper_->stop();
  if (evacuations_) co_await evacuations_->stop();
  // Before the replacements, which they may have to end.
  if (moves_) co_await moves_->stop();
  if (replacements_) co_await replacements_->stop();
  bus_.close();
  if (disks_) co_await disks_->stop();
}

}  // namespace diskferry::daemon
