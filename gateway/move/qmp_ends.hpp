// Both ends of a move without libvirt, as its coordinator has them: the monitor of the QEMU here, connected
// when it is needed and again when it was lost, and the QEMU on the other host through the gateway there.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/hypervisor/qmp_destination.hpp"
#include "gateway/hypervisor/qmp_machine.hpp"
#include "gateway/hypervisor/qmp_migration.hpp"
#include "gateway/move/target_gateway.hpp"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace diskferry {

struct QmpEndsOptions {
  std::string move{};
  std::string sockets_folder{};  ///< of the monitors here that may be opened
  std::string source{};          ///< path of the monitor here
  std::string target{};          ///< the same there, as that host has it
};

/// The other host's QEMU: each verb is a call of the gateway there. Lifetime: the gateway outlives it.
class QmpRemoteDestination final : public QmpDestination {
 public:
  QmpRemoteDestination(TargetGateway& gateway, std::string move, std::string monitor)
      : gateway_(gateway), move_(std::move(move)), monitor_(std::move(monitor)) {}
  Task<Result<QmpMachine>> describe();
  Task<Result<void>> receive(QmpIncoming incoming) override;
  /// The gateway there has a limit of its own, which is 30 s.
  Task<Result<void>> wait_for_arrival(Duration limit) override;
  Task<Result<void>> resume(Duration limit) override;
  Task<Result<VmState>> state() override;
  Task<Result<void>> end() override;

 private:
  TargetMachineCall call(MachineVerb verb) const;
  TargetGateway& gateway_;
  const std::string move_;
  const std::string monitor_;
};

/// Thread: all on one executor. Lifetime: close() before destruction; the context outlives it.
class QmpEnds {
 public:
  QmpEnds(DriverContext& context, QmpEndsOptions options) : context_(context), options_(std::move(options)) {}
  /// From now on the other end can be asked. Lifetime: the gateway outlives this.
  void set_gateway(TargetGateway& gateway) { there_.emplace(gateway, options_.move, options_.target); }

  /// The monitor here; valid until the next call of this or close(). Errors: permission (another folder),
  /// those of connecting.
  Task<Result<Qmp*>> source();
  /// A command to the monitor here while somebody else has the connection: it is never connected to anew.
  /// Errors: as Qmp::execute; gone where there is no connection.
  Task<Result<boost::json::value>> ask_source(std::string command, boost::json::object arguments);
  /// Asserts set_gateway().
  QmpRemoteDestination& target();
  /// How the machine here stands; absent where no QEMU has the monitor.
  Task<Result<VmState>> source_state();
  Task<Result<QmpMachine>> describe_source();
  /// As take_back_by_qmp(); a success where no QEMU has the monitor: there is nothing to take back to.
  Task<Result<void>> take_back(std::vector<QmpDisk> disks);
  /// Ends the QEMU here, which must have handed its machine over. Errors: in_use (its guest runs). A success
  /// where there is none.
  Task<Result<void>> end_source();
  /// Neither the other end nor the monitor here is touched after that.
  Task<void> close();

 private:
  Task<void> drop();
  DriverContext& context_;
  const QmpEndsOptions options_;
  std::unique_ptr<Qmp> source_{};
  std::optional<QmpRemoteDestination> there_{};
};

enum class QmpVerdict : std::uint8_t {
  back,       ///< it was never told to run there, or goes on here: the source has it
  forward,    ///< it was decided, and may not have been told: tell it to run there
  committed,  ///< it runs there
  split,      ///< both run it: must never be; people have to look
  unknown,    ///< ask again
};
/// What becomes of a move whose driver was away. `was_decided`: the record says that the destination may have
/// been told to run, which is written down before it is told. States are those of vm_state_of_qmp(); nullopt:
/// it cannot be asked. Pure.
QmpVerdict decide_by_qmp(bool was_decided, std::optional<VmState> source,
                         std::optional<VmState> target) noexcept;

}  // namespace diskferry
