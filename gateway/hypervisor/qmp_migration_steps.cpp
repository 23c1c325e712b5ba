// The steps of a move, in the order that was found to be safe with QEMU 7.2: the mirrors end while the
// machine is stopped before the switch-over, and the destination opens its disks for writing
// (late-block-activate) only when it is told to run.
#include "gateway/hypervisor/qmp_migration_run.hpp"

#include <algorithm>
#include <array>

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

namespace diskferry {
namespace json = boost::json;

std::string_view qmp_text(const json::object& object, std::string_view key) noexcept {
  const auto* value = object.if_contains(key);
  const auto* text = value == nullptr ? nullptr : value->if_string();
  return text == nullptr ? std::string_view() : std::string_view(text->data(), text->size());
}

Task<Result<QmpEvent>> wait_for_migration(Qmp& monitor, std::uint64_t& from,
                                          std::initializer_list<std::string_view> states, Duration limit) {
  const std::vector<std::string> wanted(states.begin(), states.end());
  const auto is_one = [wanted](const QmpEvent& event) {
    return event.name == "MIGRATION" &&
           std::ranges::find(wanted, qmp_text(event.data, "status")) != wanted.end();
  };
  DISKFERRY_CO_TRY(auto event,
                   co_await monitor.wait_event(from, is_one, "migration to be " + wanted.front(), limit));
  const auto status = qmp_text(event.data, "status");
  if (status == wanted.front()) co_return event;
  co_return unexpected(
      fail(ErrorKind::io, "migrate the memory").why("the migration is " + std::string(status)));
}

namespace {
using Run = QmpMigrationRun;

Task<Result<void>> prepare_destination(Run& run) {
  co_return co_await run.destination.receive(run.plan.incoming);
}

Task<Result<void>> add_targets(Run& run) {
  for (const auto& disk : run.plan.disks) {
    json::object node = disk.target;
    node["node-name"] = disk.target_node;
    run.added_targets.push_back(&disk);  // first: it may take effect though its answer is lost
    DISKFERRY_CO_CHECK(
        co_await run.source.execute("blockdev-add", std::move(node), run.plan.switchover_limit));
  }
  co_return Result<void>{};
}

Task<Result<void>> start_mirrors(Run& run) {
  run.source_from = run.source.event_count();
  for (const auto& disk : run.plan.disks) {
    json::object mirror{{"job-id", disk.job},
                        {"device", disk.device},
                        {"target", disk.target_node},
                        {"sync", "full"},
                        {"copy-mode", run.plan.synchronous_writes ? "write-blocking" : "background"},
                        {"on-target-error", "report"},
                        {"auto-dismiss", false}};
    if (run.plan.granularity_bytes > 0) mirror["granularity"] = run.plan.granularity_bytes;
    run.running_mirrors.push_back(&disk);  // first, as above
    DISKFERRY_CO_CHECK(co_await run.source.execute("blockdev-mirror", std::move(mirror)));
  }
  co_return Result<void>{};
}

Task<Result<void>> wait_for_copies(Run& run) {
  for (const auto& disk : run.plan.disks) {
    const auto concerns_it = [job = disk.job](const QmpEvent& event) {
      return event.name.starts_with("BLOCK_JOB_") && qmp_text(event.data, "device") == job;
    };
    DISKFERRY_CO_TRY(const auto event,
                     co_await run.source.wait_event(run.source_from, concerns_it,
                                                    "the copy of " + disk.device, run.plan.copy_limit));
    if (event.name != "BLOCK_JOB_READY")
      co_return unexpected(
          fail(ErrorKind::io, "copy a disk", disk.device).why(event.name + " of the mirror"));
  }
  co_return Result<void>{};
}

Task<Result<void>> start_memory(Run& run) {
  const QmpIncoming& there = run.plan.incoming;
  const bool multifd = there.multifd_channels > 0;
  DISKFERRY_CO_CHECK(
      co_await run.source.execute("migrate-set-capabilities", qmp_migration_capabilities(multifd, false)));
  json::object parameters = run.plan.source_parameters;
  if (multifd) parameters["multifd-channels"] = there.multifd_channels;
  // An empty one takes back what an earlier attempt set.
  parameters["tls-creds"] = "";
  if (there.tls) {
    DISKFERRY_CO_TRY(parameters["tls-creds"], co_await find_tls_credentials(run.source, "client"));
  }
  DISKFERRY_CO_CHECK(co_await run.source.execute("migrate-set-parameters", std::move(parameters)));
  run.source_from = run.source.event_count();
  run.memory_was_started = true;  // also where the answer is lost
  const auto& uri = run.plan.memory.empty() ? there.listen : run.plan.memory;
  DISKFERRY_CO_CHECK(co_await run.source.execute("migrate", {{"uri", uri}}));
  co_return Result<void>{};
}

Task<Result<void>> wait_for_stop(Run& run) {
  DISKFERRY_CO_TRY(const auto stopped,
                   co_await wait_for_migration(run.source, run.source_from,
                                               {"pre-switchover", "failed", "cancelled", "completed"},
                                               run.plan.memory_limit));
  run.stopped_at_ns = stopped.at_ns;
  co_return Result<void>{};
}

Task<Result<void>> end_mirrors(Run& run) {
  while (!run.running_mirrors.empty()) {
    DISKFERRY_CO_CHECK(
        co_await end_qmp_mirror(run.source, *run.running_mirrors.back(), false, run.plan.switchover_limit));
    run.running_mirrors.pop_back();
  }
  // Closing the connections to the targets, which flushes them once more.
  while (!run.added_targets.empty()) {
    DISKFERRY_CO_CHECK(co_await run.source.execute(
        "blockdev-del", {{"node-name", run.added_targets.back()->target_node}}, run.plan.switchover_limit));
    run.added_targets.pop_back();
  }
  co_return Result<void>{};
}

Task<Result<void>> barrier(Run& run) {
  if (run.hooks.barrier) DISKFERRY_CO_CHECK(co_await run.hooks.barrier());
  co_return Result<void>{};
}

Task<Result<void>> hand_over(Run& run) {
  DISKFERRY_CO_CHECK(co_await run.source.execute("migrate-continue", {{"state", "pre-switchover"}}));
  DISKFERRY_CO_CHECK(co_await wait_for_migration(
      run.source, run.source_from, {"completed", "failed", "cancelled"}, run.plan.switchover_limit));
  co_return Result<void>{};
}

Task<Result<void>> wait_for_arrival(Run& run) {
  co_return co_await run.destination.wait_for_arrival(run.plan.switchover_limit);
}

Task<Result<void>> commit(Run& run) {
  if (run.hooks.commit) DISKFERRY_CO_CHECK(co_await run.hooks.commit());
  co_return Result<void>{};
}

Task<Result<void>> resume(Run& run) {
  run.resume_was_sent = true;
  DISKFERRY_CO_CHECK(co_await run.destination.resume(run.plan.switchover_limit));
  run.resumed_at_ns = static_cast<std::uint64_t>(run.clock.now().time_since_epoch().count());
  co_return Result<void>{};
}

struct StepRow {
  QmpStep step;
  std::string_view name;
  Task<Result<void>> (*run)(Run&);
};
constexpr std::array steps{
    StepRow{QmpStep::prepare_destination, "prepare the destination", prepare_destination},
    StepRow{QmpStep::add_targets, "add the targets", add_targets},
    StepRow{QmpStep::start_mirrors, "start the mirrors", start_mirrors},
    StepRow{QmpStep::wait_for_copies, "wait for the copies", wait_for_copies},
    StepRow{QmpStep::start_memory, "start the memory's migration", start_memory},
    StepRow{QmpStep::wait_for_stop, "wait for the machine to stop", wait_for_stop},
    StepRow{QmpStep::end_mirrors, "end the mirrors", end_mirrors},
    StepRow{QmpStep::barrier, "make the target durable", barrier},
    StepRow{QmpStep::hand_over, "hand over", hand_over},
    StepRow{QmpStep::wait_for_arrival, "wait for the arrival", wait_for_arrival},
    StepRow{QmpStep::commit, "commit", commit},
    StepRow{QmpStep::resume, "resume at the destination", resume},
};
}  // namespace

std::string_view to_string(QmpStep step) noexcept {
  return steps[static_cast<std::size_t>(step)].name;
}

Task<Result<void>> run_qmp_steps(QmpMigrationRun& run, QmpStep& reached) {
  for (const auto& row : steps) {
    reached = row.step;
    // After the commit there is no way back, and so no stopping before the machine runs.
    if (row.step != QmpStep::resume && co_await is_cancelled())
      co_return unexpected(cancelled_error("move a machine"));
    const bool is_last = row.step == QmpStep::resume;
    Result<void> done;
    if (run.hooks.before_step && !is_last) done = co_await run.hooks.before_step(row.step);
    if (done && is_last) done = co_await run_to_the_end(row.run(run));
    if (done && !is_last) done = co_await row.run(run);
    if (!done) co_return unexpected(std::move(done).error().in(std::string(row.name)));
  }
  co_return Result<void>{};
}

}  // namespace diskferry
