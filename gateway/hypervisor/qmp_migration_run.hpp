// A move between two monitors that runs: what it has done so far, so that it can be undone. Internal to this
// room.
#pragma once

#include "gateway/hypervisor/qmp_migration.hpp"

#include <initializer_list>

namespace diskferry {

struct QmpMigrationRun {
  Clock& clock;
  Qmp& source;
  QmpDestination& destination;
  const QmpMigrationPlan plan;
  const QmpMigrationHooks hooks;

  // What is there to be undone.
  std::vector<const QmpDisk*> added_targets{};
  std::vector<const QmpDisk*> running_mirrors{};
  bool memory_was_started = false;
  bool resume_was_sent = false;

  std::uint64_t source_from = 0;  // in its events: where the step that waits begins to look
  std::uint64_t stopped_at_ns = 0;
  std::uint64_t resumed_at_ns = 0;
};

/// Runs the steps in their order; `reached` is the one that runs or failed.
Task<Result<void>> run_qmp_steps(QmpMigrationRun& run, QmpStep& reached);
/// Undoes what was done, and says where the machine runs then. Errors are added to `error`.
Task<QmpWhere> undo_qmp_migration(QmpMigrationRun& run, Error& error);

/// Runs `work` to its end, also where this task is or gets cancelled.
Task<Result<void>> run_to_the_end(Task<Result<void>> work);
/// Ends a mirror that is ready, so that its target is complete (`force` false), or one in any state. The
/// machine may run. Errors also: io, where the target is not complete.
Task<Result<void>> end_qmp_mirror(Qmp& source, const QmpDisk& disk, bool force, Duration limit);
/// Waits for an event MIGRATION with one of these states, the first of which is the wanted one.
Task<Result<QmpEvent>> wait_for_migration(Qmp& monitor, std::uint64_t& from,
                                          std::initializer_list<std::string_view> states, Duration limit);
/// A text of an event or a reply; empty where it is not there.
std::string_view qmp_text(const boost::json::object& object, std::string_view key) noexcept;

}  // namespace diskferry
