// A move by its steps, and undoing it. Both run on, whatever becomes of the task that asked: what is half
// undone would be worse than what is done.
#include "gateway/hypervisor/qmp_migration.hpp"

#include "diskferry/sync.hpp"
#include "diskferry/task_group.hpp"
#include "gateway/hypervisor/qmp_migration_run.hpp"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

namespace diskferry {
namespace json = boost::json;
namespace {
constexpr Duration undo_limit = std::chrono::seconds(30);
constexpr Duration poll_interval = std::chrono::milliseconds(20);

/// Waits until the source's migration is no longer active. Returns its last state.
Task<Result<std::string>> end_memory(Clock& clock, Qmp& source) {
  // Refused where nothing runs any more, which is as good.
  (void)co_await source.execute("migrate_cancel");
  const auto latest = Clock::after(clock.now(), undo_limit);
  while (true) {
    DISKFERRY_CO_TRY(auto status, co_await qmp_status(source, "query-migrate"));
    if (status.empty() || status == "none" || status == "cancelled" || status == "failed" ||
        status == "completed")
      co_return status;
    if (clock.now() >= latest)
      co_return unexpected(fail(ErrorKind::timed_out, "cancel the migration").why("it is " + status));
    DISKFERRY_CO_CHECK(co_await clock.sleep_for(poll_interval));
  }
}

/// Ends the destination's QEMU; succeeds only when it is certain that it does not run, and will not.
Task<Result<void>> end_destination(QmpMigrationRun& run) {
  auto ended = co_await run.destination.end();
  // What was told to run has to be seen ended.
  if (ended || run.resume_was_sent || !run.hooks.fence) co_return ended;
  co_return co_await run.hooks.fence();
}

Task<Result<void>> run_at_source(Qmp& source) {
  DISKFERRY_CO_TRY(const auto status, co_await qmp_status(source, "query-status"));
  if (vm_state_of_qmp(status) == VmState::paused) DISKFERRY_CO_CHECK(co_await source.execute("cont"));
  co_return Result<void>{};
}

/// Where the memory was on its way, or there: back to a source that runs. Errors: what keeps it from being
/// known.
Task<Result<void>> take_back_memory(QmpMigrationRun& run) {
  DISKFERRY_CO_TRY(const auto status, co_await end_memory(run.clock, run.source));
  const auto ended = co_await end_destination(run);
  // The whole machine is at the destination: both could run. The source may only where the other cannot.
  if (status == "completed" && !ended) co_return unexpected(ended.error());
  co_return co_await run_at_source(run.source);
}

/// Where the destination was told to run: whether it said no, and never did. An answer that was lost tells
/// nothing.
Task<QmpWhere> after_resume_was_sent(QmpMigrationRun& run, const Error& error) {
  const auto state = co_await run.destination.state();
  if (state && *state == VmState::running) co_return QmpWhere::destination;
  const bool was_lost = error.kind() == ErrorKind::gone || error.kind() == ErrorKind::timed_out ||
                        error.kind() == ErrorKind::cancelled || error.kind() == ErrorKind::protocol;
  co_return !was_lost && state && *state == VmState::paused ? QmpWhere::source : QmpWhere::unknown;
}

void add_error(Error& error, const Error& more) {
  error = std::move(error).remedy("look at both ends; undoing failed: " + more.message());
}

Task<Result<void>> undo(QmpMigrationRun& run, Error& error, QmpWhere& where) {
  where = co_await undo_qmp_migration(run, error);
  co_return Result<void>{};
}

/// Tells when `work` has ended.
Task<Result<void>> note_end(Task<Result<void>> work, std::mutex& guard, WaitQueue& ended, bool& has_ended) {
  auto result = co_await top_frame(std::move(work));
  std::lock_guard lock(guard);
  has_ended = true;
  ended.wake_all();
  co_return result;
}

}  // namespace

Task<Result<void>> run_to_the_end(Task<Result<void>> work) {
  std::mutex guard;
  WaitQueue ended;
  bool has_ended = false;
  TaskGroup group(co_await boost::asio::this_coro::executor);
  group.spawn(note_end(std::move(work), guard, ended, has_ended));
  {
    std::unique_lock lock(guard);
    if (!has_ended) co_await ended.wait_uncancelled(lock);
  }
  co_return co_await group.join();
}

Task<Result<void>> end_qmp_mirror(Qmp& source, const QmpDisk& disk, bool force, Duration limit) {
  const auto from = source.event_count();
  DISKFERRY_CO_CHECK(co_await source.execute("block-job-cancel", {{"device", disk.job}, {"force", force}}));
  const auto is_concluded = [job = disk.job](const QmpEvent& event) {
    return event.name == "JOB_STATUS_CHANGE" && qmp_text(event.data, "id") == job &&
           qmp_text(event.data, "status") == "concluded";
  };
  const auto what = "the mirror of " + disk.device + " to end";
  DISKFERRY_CO_CHECK(co_await source.wait_event(from, is_concluded, what, limit));
  DISKFERRY_CO_TRY(const auto jobs, co_await source.execute("query-jobs"));
  std::string problem = "it is not among QEMU's jobs";
  if (const auto* list = jobs.if_array()) {
    for (const auto& one : *list) {
      const auto* job = one.if_object();
      if (job != nullptr && qmp_text(*job, "id") == disk.job) problem = qmp_text(*job, "error");
    }
  }
  DISKFERRY_CO_CHECK(co_await source.execute("job-dismiss", {{"id", disk.job}}));
  if (!force && !problem.empty())
    co_return unexpected(fail(ErrorKind::io, "end the mirror", disk.device).why(std::move(problem)));
  co_return Result<void>{};
}

namespace {

/// Whatever is left of a mirror, in any state, and of its target. Errors: why the target's node stays.
Task<Result<void>> drop_mirror(Qmp& source, const QmpDisk& disk) {
  // One that failed by itself has concluded, and only waits to be dismissed; one that never began is not
  // there.
  if (!co_await end_qmp_mirror(source, disk, true, undo_limit))
    (void)co_await source.execute("job-dismiss", {{"id", disk.job}});
  auto removed = co_await source.execute("blockdev-del", {{"node-name", disk.target_node}});
  if (removed || removed.error().kind() == ErrorKind::not_found) co_return Result<void>{};
  co_return unexpected(std::move(removed).error());
}

}  // namespace

Task<QmpWhere> undo_qmp_migration(QmpMigrationRun& run, Error& error) {
  if (run.resume_was_sent) {
    const auto where = co_await after_resume_was_sent(run, error);
    if (where != QmpWhere::source) co_return where;
  }
  auto where = QmpWhere::source;
  if (run.memory_was_started) {
    if (const auto back = co_await take_back_memory(run); !back) {
      add_error(error, back.error());
      where = QmpWhere::unknown;
    }
  } else {
    (void)co_await end_destination(run);  // it holds nothing yet
  }
  for (const auto* disk : run.added_targets)
    if (const auto dropped = co_await drop_mirror(run.source, *disk); !dropped)
      add_error(error, dropped.error());
  co_return where;
}

Task<Result<void>> take_back_by_qmp(Clock& clock, Qmp& source, std::vector<QmpDisk> disks) {
  DISKFERRY_CO_CHECK(co_await end_memory(clock, source));
  DISKFERRY_CO_CHECK(co_await run_at_source(source));
  for (const QmpDisk& disk : disks) DISKFERRY_CO_CHECK(co_await drop_mirror(source, disk));
  co_return Result<void>{};
}

Task<QmpMigrationEnd> migrate_by_qmp(Clock& clock, Qmp& source, QmpDestination& destination,
                                     QmpMigrationPlan plan, QmpMigrationHooks hooks) {
  QmpMigrationRun run{.clock = clock,
                      .source = source,
                      .destination = destination,
                      .plan = std::move(plan),
                      .hooks = std::move(hooks)};
  QmpMigrationEnd end;
  const auto moved = co_await run_qmp_steps(run, end.last_step);
  if (moved) {
    end.where = QmpWhere::destination;
    end.stopped_ms = (run.resumed_at_ns - run.stopped_at_ns) / 1'000'000;
    co_return end;
  }
  end.error = moved.error();
  end.where = QmpWhere::unknown;
  const auto undone = co_await run_to_the_end(undo(run, *end.error, end.where));
  if (!undone) add_error(*end.error, undone.error());
  co_return end;
}

}  // namespace diskferry
