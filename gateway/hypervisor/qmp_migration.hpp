// Moving a machine between two QEMUs by their monitors, without libvirt: the disks are mirrored to wherever
// the destination's disks are, the memory is migrated, and between the two stands a place where the machine
// is stopped, all writes have arrived, and the caller makes them durable. The steps are a list; on an error
// or when cancelled the move is undone from wherever it stands, and the machine runs on at the source unless
// that cannot be known.
#pragma once

#include "diskferry/clock.hpp"
#include "gateway/hypervisor/qmp.hpp"
#include "gateway/hypervisor/qmp_destination.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

namespace diskferry {

struct QmpDisk {
  std::string device{};          ///< what is mirrored at the source: a node's name
  std::string job{};             ///< the mirror's name; unique in the machine
  std::string target_node{};     ///< the name of the node that is added for the target; unique too
  boost::json::object target{};  ///< arguments of blockdev-add for it, but for its name
};

struct QmpMigrationPlan {
  std::vector<QmpDisk> disks{};
  QmpIncoming incoming{};  ///< what the destination is asked for; it waits with "-incoming defer"
  std::string memory{};    ///< where the source sends the memory; empty: where the destination listens
  bool synchronous_writes = false;      ///< the guest's writes wait for the target
  std::uint32_t granularity_bytes = 0;  ///< of the mirrors; 0: QEMU's choice
  /// More of migrate-set-parameters for the source: "max-bandwidth", "downtime-limit", ...
  boost::json::object source_parameters{};
  Duration copy_limit = std::chrono::hours(24 * 7);
  Duration memory_limit = std::chrono::hours(24);
  Duration switchover_limit = std::chrono::seconds(60);  ///< for each step while the machine is stopped
};

enum class QmpStep : std::uint8_t {
  prepare_destination,
  add_targets,
  start_mirrors,
  wait_for_copies,
  start_memory,
  wait_for_stop,     ///< the machine is stopped from here on
  end_mirrors,       ///< every write has arrived at the target
  barrier,           ///< the caller's: make it durable; nothing is decided yet
  hand_over,         ///< the last of the memory and the devices
  wait_for_arrival,  ///< both ends have finished; neither runs
  commit,            ///< the caller's: from its success on the machine belongs to the destination
  resume,
};
std::string_view to_string(QmpStep step) noexcept;

/// What the caller does in between. Empty ones do nothing. They run on the caller's executor.
struct QmpMigrationHooks {
  std::function<Task<Result<void>>()> barrier{};
  std::function<Task<Result<void>>()> commit{};
  /// Makes sure that the destination's QEMU does not run and will not, where it does not answer any more.
  std::function<Task<Result<void>>()> fence{};
  /// Before each step but `resume`; an error undoes the move. Steps from `wait_for_stop` on wait for it with
  /// the machine stopped.
  std::function<Task<Result<void>>(QmpStep)> before_step{};
};

enum class QmpWhere : std::uint8_t {
  source,       ///< it runs there, as before
  destination,  ///< it runs there
  unknown,  ///< somebody must look: it runs at neither end, or the destination was told to run and is silent
};
struct QmpMigrationEnd {
  QmpWhere where = QmpWhere::source;
  std::optional<Error> error{};  ///< why it did not move; also what went wrong with undoing
  QmpStep last_step = QmpStep::prepare_destination;
  std::uint64_t stopped_ms = 0;  ///< how long the machine stood still, where it moved
};

/// Moves it. `destination` was started with "-incoming defer"; it is ended (quit) where the move fails.
/// Cancel: undoes what was done, and waits for that; a move that is past `commit` goes on.
/// Lifetime: both ends until the task ends; all on the executor that they belong to.
Task<QmpMigrationEnd> migrate_by_qmp(Clock& clock, Qmp& source, QmpDestination& destination,
                                     QmpMigrationPlan plan, QmpMigrationHooks hooks);

/// Ends what a move left at its source whose driver is lost: the memory's migration, the mirrors and their
/// targets; then lets the machine run. Call it only where the destination was never told to run. May be
/// repeated. Errors: those of the monitor; timed_out.
Task<Result<void>> take_back_by_qmp(Clock& clock, Qmp& source, std::vector<QmpDisk> disks);

}  // namespace diskferry
