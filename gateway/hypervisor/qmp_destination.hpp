// The destination's QEMU of a move by monitors: the few things it is asked for. An interface, because the
// monitor is a socket of its host: there the verbs are commands of the monitor (QmpIncomingMonitor); on the
// source's host they go through the gateway over there, which gives away these verbs and not the monitor.
#pragma once

#include "diskferry/clock.hpp"
#include "gateway/hypervisor/qmp.hpp"
#include "gateway/hypervisor/virtual_machine.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

/// A disk that the destination's QEMU offers to whoever writes it, over its own NBD server.
struct QmpExport {
  std::string node{};  ///< the node's name
  std::string name{};  ///< the export's
};

struct QmpIncoming {
  std::string listen{};           ///< where it takes the memory: "tcp:10.0.0.2:4444"
  unsigned multifd_channels = 0;  ///< 0: one connection, without multifd
  bool tls = false;               ///< the memory comes encrypted; its QEMU was started with the credentials
  /// Where its NBD server listens (a UNIX socket) for `exports`; none are offered where there are none.
  std::string exports_socket{};
  std::vector<QmpExport> exports{};
};

/// Errors of all: those of Qmp::execute. Cancel: ends the wait; what was asked for may be done all the same.
class QmpDestination {
 public:
  virtual ~QmpDestination() = default;
  /// Sets it up and lets it listen. It will not run before resume(), however it was started.
  virtual Task<Result<void>> receive(QmpIncoming incoming) = 0;
  /// The whole machine is there, paused. Errors also: io (the memory's migration failed), timed_out.
  virtual Task<Result<void>> wait_for_arrival(Duration limit) = 0;
  /// Lets it run; returns once it does. Errors also: those of opening the disks for writing.
  virtual Task<Result<void>> resume(Duration limit) = 0;
  /// How it stands, by vm_state_of_qmp(); absent where no QEMU has that monitor.
  virtual Task<Result<VmState>> state() = 0;
  /// Ends the QEMU; succeeds only when it is certain that it does not run.
  virtual Task<Result<void>> end() = 0;
};

/// The verbs as commands of a monitor of this host. Lifetime: clock and monitor outlive it.
class QmpIncomingMonitor final : public QmpDestination {
 public:
  QmpIncomingMonitor(Clock& clock, Qmp& monitor) : clock_(clock), monitor_(monitor) {}
  Task<Result<void>> receive(QmpIncoming incoming) override;
  Task<Result<void>> wait_for_arrival(Duration limit) override;
  Task<Result<void>> resume(Duration limit) override;
  Task<Result<VmState>> state() override;
  Task<Result<void>> end() override;

 private:
  Clock& clock_;
  Qmp& monitor_;
};

/// What the words of query-status mean for a move. `running` is everything in which the guest has had its
/// processors and has the disks (also "io-error" and "suspended"); `paused` is what never ran there, or
/// stands still and can go on.
VmState vm_state_of_qmp(std::string_view status) noexcept;

/// The field "status" of what a query returned; empty where there is none.
Task<Result<std::string>> qmp_status(Qmp& monitor, std::string query);

/// The id of the one object with TLS credentials for that end ("client", "server") that a QEMU was started
/// with. Errors: not_found, too_large (more than one fits: it is not known which is meant).
Task<Result<std::string>> find_tls_credentials(Qmp& monitor, std::string endpoint);

/// The capabilities that both ends of a move need. `on_destination`: its disks are opened for writing by
/// resume() and not before.
boost::json::object qmp_migration_capabilities(bool multifd, bool on_destination);

}  // namespace diskferry
