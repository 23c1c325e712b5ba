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

/// A field of what a query returned.
Task<Result<std::string>> ask(Qmp& monitor, std::string query) {
  DISKFERRY_CO_TRY(const auto answer, co_await monitor.execute(std::move(query)));
  const auto* object = answer.if_object();
  co_return object == nullptr ? std::string() : std::string(qmp_text(*object, "status"));
}

/// Waits until the source's migration is no longer active. Returns its last state.
Task<Result<std::string>> end_memory(QmpMigrationRun& run) {
  // Refused where nothing runs any more, which is as good.
  (void)co_await run.source.execute("migrate_cancel");
  const auto latest = Clock::after(run.clock.now(), undo_limit);
  while (true) {
    DISKFERRY_CO_TRY(auto status, co_await ask(run.source, "query-migrate"));
    if (status.empty() || status == "none" || status == "cancelled" || status == "failed" ||
        status == "completed")
      co_return status;
    if (run.clock.now() >= latest)
      co_return unexpected(fail(ErrorKind::timed_out, "cancel the migration").why("it is " + status));
    DISKFERRY_CO_CHECK(co_await run.clock.sleep_for(poll_interval));
  }
}

/// Ends the destination's QEMU; succeeds only when it is certain that it does not run.
Task<Result<void>> end_destination(QmpMigrationRun& run) {
  const auto told = co_await run.destination.execute("quit");
  const auto nothing = [](const QmpEvent&) { return false; };
  const auto ended =
      co_await run.destination.wait_event(run.destination.event_count(), nothing, "its end", undo_limit);
  if (told && ended.error().kind() == ErrorKind::gone) co_return Result<void>{};
  // It did not answer, or its monitor was lost before, which tells nothing of the machine.
  if (run.hooks.fence) co_return co_await run.hooks.fence();
  co_return unexpected(told ? ended.error() : told.error());
}

Task<Result<void>> run_at_source(QmpMigrationRun& run) {
  DISKFERRY_CO_TRY(const auto status, co_await ask(run.source, "query-status"));
  if (status != "running") DISKFERRY_CO_CHECK(co_await run.source.execute("cont"));
  co_return Result<void>{};
}

/// Where the memory was on its way, or there: back to a source that runs. Errors: what keeps it from being
/// known.
Task<Result<void>> take_back_memory(QmpMigrationRun& run) {
  DISKFERRY_CO_TRY(const auto status, co_await end_memory(run));
  const auto ended = co_await end_destination(run);
  // The whole machine is at the destination: both could run. The source may only where the other cannot.
  if (status == "completed" && !ended) co_return unexpected(ended.error());
  co_return co_await run_at_source(run);
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

Task<Result<void>> end_qmp_mirror(QmpMigrationRun& run, const QmpDisk& disk, bool force) {
  const auto from = run.source.event_count();
  DISKFERRY_CO_CHECK(
      co_await run.source.execute("block-job-cancel", {{"device", disk.job}, {"force", force}}));
  const auto is_concluded = [job = disk.job](const QmpEvent& event) {
    return event.name == "JOB_STATUS_CHANGE" && qmp_text(event.data, "id") == job &&
           qmp_text(event.data, "status") == "concluded";
  };
  const auto what = "the mirror of " + disk.device + " to end";
  DISKFERRY_CO_CHECK(co_await run.source.wait_event(from, is_concluded, what, run.plan.switchover_limit));
  DISKFERRY_CO_TRY(const auto jobs, co_await run.source.execute("query-jobs"));
  std::string problem = "it is not among QEMU's jobs";
  if (const auto* list = jobs.if_array()) {
    for (const auto& one : *list) {
      const auto* job = one.if_object();
      if (job != nullptr && qmp_text(*job, "id") == disk.job) problem = qmp_text(*job, "error");
    }
  }
  DISKFERRY_CO_CHECK(co_await run.source.execute("job-dismiss", {{"id", disk.job}}));
  if (!force && !problem.empty())
    co_return unexpected(fail(ErrorKind::io, "end the mirror", disk.device).why(std::move(problem)));
  co_return Result<void>{};
}

Task<QmpWhere> undo_qmp_migration(QmpMigrationRun& run, Error& error) {
  if (run.resume_was_sent) {
    const auto status = co_await ask(run.destination, "query-status");
    co_return status && *status == "running" ? QmpWhere::destination : QmpWhere::unknown;
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
  for (const auto* disk : run.running_mirrors) {
    // One that failed by itself has concluded, and only waits to be dismissed; one that never began is not
    // there.
    if (co_await end_qmp_mirror(run, *disk, true)) continue;
    (void)co_await run.source.execute("job-dismiss", {{"id", disk->job}});
  }
  for (const auto* disk : run.added_targets) {
    const auto removed = co_await run.source.execute("blockdev-del", {{"node-name", disk->target_node}});
    if (!removed && removed.error().kind() != ErrorKind::not_found) add_error(error, removed.error());
  }
  co_return where;
}

Task<QmpMigrationEnd> migrate_by_qmp(Clock& clock, Qmp& source, Qmp& destination, QmpMigrationPlan plan,
                                     QmpMigrationHooks hooks) {
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
