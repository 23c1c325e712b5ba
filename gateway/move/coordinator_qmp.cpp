// The way "qmp": a machine without libvirt. This coordinator is the one that decides which host runs, so it
// writes `switching` down before the destination is told to run: a process that comes later knows from the
// record alone whether the source may go on.
#include "gateway/move/coordinator.hpp"
#include "gateway/move/preflight_report.hpp"
#include "gateway/move/qmp_preflight.hpp"
#include "gateway/move/qmp_request.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace json = boost::json;
namespace {

/// How long it is tried to get an answer from a monitor, or from the other gateway, that decides.
constexpr Duration decide_limit = std::chrono::minutes(15);
constexpr Duration decide_pause = std::chrono::milliseconds(500);
/// The guest is on the source already; nobody waits for more than a gateway that is restarted.
constexpr Duration end_target_limit = std::chrono::seconds(30);
/// Making all targets durable while the guest stands still; as the barrier's.
constexpr Duration durable_limit = Barrier::hold_limit_default;
/// What QEMU takes for "no bound".
constexpr std::uint64_t bandwidth_max = std::uint64_t{1} << 40;
constexpr std::uint64_t pause_ms_max = 2'000'000;  ///< QEMU's bound of downtime-limit

/// Names that are ours in any QEMU: a later process finds by them what this one left.
std::string mirror_name(std::size_t number) {
  return fmt::format("diskferry-mirror-{}", number);
}

std::uint64_t number_in(const json::object& object, std::string_view key) {
  const auto* value = object.if_contains(key);
  boost::system::error_code failed;
  const auto number = value == nullptr ? 0 : value->to_number<std::uint64_t>(failed);
  return failed ? 0 : number;
}

}  // namespace

Result<void> Coordinator::make_ends() {
  if (ends_) return {};
  DISKFERRY_TRY(std::string source, monitor_path(request_.domain));
  DISKFERRY_TRY(std::string target, monitor_path(request_.destination));
  ends_ = std::make_unique<QmpEnds>(environment_.drivers,
                                    QmpEndsOptions{.move = job_.id,
                                                   .sockets_folder = environment_.qmp_sockets_folder,
                                                   .source = std::move(source),
                                                   .target = std::move(target)});
  return {};
}

Task<Result<void>> Coordinator::connect_by_qmp() {
  DISKFERRY_CO_CHECK(make_ends());
  DISKFERRY_CO_CHECK(co_await connect_gateway());
  ends_->set_gateway(*gateway_);
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::prepare_by_qmp() {
  state_.way = MoveWay::qmp;
  DISKFERRY_CO_TRY(const QmpPreflightFacts facts,
                   co_await collect_by_qmp(*ends_, gateway_.get(), std::nullopt, request_));
  // Of a machine without a UUID, what its monitor is called: a second attempt finds the first one's by it.
  state_.machine = facts.here.uuid.empty() ? request_.domain : facts.here.uuid;
  std::ranges::replace(state_.machine, '/', '-');
  state_.is_persistent = false;
  const auto findings = examine_by_qmp(facts);
  for (const Finding& finding : findings)
    if (finding.severity == Severity::warning) state_.warnings.push_back(finding.text);
  DISKFERRY_CO_CHECK(refuse_blockers(findings));
  DISKFERRY_CO_TRY(state_.disks, choose_disks_by_qmp(request_, facts.here));
  DISKFERRY_CO_TRY(target_monitor_, monitor_path(request_.destination));
  DISKFERRY_CO_CHECK(co_await prepare_targets());
  DISKFERRY_CO_CHECK(co_await open_sources());
  co_return co_await enter(Phase::prepared);
}

std::vector<QmpDisk> Coordinator::mirrors(const QmpMachine* machine) const {
  std::vector<QmpDisk> all;
  for (const MoveDiskState& disk : state_.disks) {
    const auto* here = machine == nullptr ? nullptr : disk_named(*machine, disk.target);
    const auto number = all.size();
    all.push_back({.device = here == nullptr ? disk.target : here->node,
                   .job = mirror_name(number),
                   .target_node = fmt::format("diskferry-target-{}", number),
                   .target = {{"driver", "nbd"},
                              {"server", json::object{{"type", "unix"}, {"path", socket()}}},
                              {"export", disk.drive},
                              {"discard", "unmap"}}});
  }
  return all;
}

Task<Result<QmpMigrationPlan>> Coordinator::plan_by_qmp() {
  DISKFERRY_CO_TRY(const QmpMachine machine, co_await ends_->describe_source());
  QmpMigrationPlan plan{.disks = mirrors(&machine)};
  DISKFERRY_CO_TRY(plan.incoming.listen, memory_address(request_.memory_uri));
  plan.incoming.multifd_channels = request_.parallel;
  plan.incoming.tls = request_.memory_tls;
  plan.source_parameters = {
      {"max-bandwidth", request_.bytes_per_s == 0 ? bandwidth_max : request_.bytes_per_s},
      {"downtime-limit", std::min(request_.max_pause_ms, pause_ms_max)}};
  co_return plan;
}

Task<Result<void>> Coordinator::before_qmp_step(QmpStep step) {
  if (step == QmpStep::end_mirrors) qmp_times_.stopped = environment_.drivers.clock.now();
  if (step == QmpStep::barrier) qmp_times_.mirrors_ended = environment_.drivers.clock.now();
  if (step == QmpStep::hand_over) qmp_times_.durable = environment_.drivers.clock.now();
  if (step == QmpStep::start_memory && state_.phase == Phase::bulk) co_return co_await enter(Phase::delta);
  co_return Result<void>{};
}

/// The guest is stopped and the mirrors have ended: every write of it is in our windows.
Task<Result<void>> Coordinator::barrier_by_qmp() {
  DISKFERRY_CO_CHECK(co_await with_deadline(environment_.drivers.clock, durable_limit,
                                            "make the targets durable", disks_->make_all_durable()));
  co_return co_await enter(Phase::synchronized);
}

Task<Result<void>> Coordinator::migrate_by_monitors() {
  DISKFERRY_CO_TRY(QmpMigrationPlan plan, co_await plan_by_qmp());
  DISKFERRY_CO_TRY(Qmp* const source, co_await ends_->source());
  DISKFERRY_CO_CHECK(co_await enter(Phase::bulk));
  QmpMigrationHooks hooks{
      .barrier = [this] { return barrier_by_qmp(); },
      // From here on it may run there, whatever becomes of us.
      .commit = [this] { return enter(Phase::switching); },
      // Once this is written down nobody tells it to run any more, and by itself it does not.
      .fence = [this] { return enter(Phase::aborting); },
      .before_step = [this](QmpStep step) { return before_qmp_step(step); }};
  is_over_ = false;
  TaskGroup side(co_await boost::asio::this_coro::executor);
  side.spawn(supervise());
  const auto end = co_await migrate_by_qmp(environment_.drivers.clock, *source, ends_->target(),
                                           std::move(plan), std::move(hooks));
  is_over_ = true;
  side.cancel();
  (void)co_await side.join();
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  co_return co_await settle_by_qmp(end);
}

Task<Result<void>> Coordinator::settle_by_qmp(const QmpMigrationEnd& end) {
  if (end.where == QmpWhere::destination) {
    outcome_ = Outcome::committed;
    const TimePoint now = environment_.drivers.clock.now();
    if (!end.error)
      state_.pause = PauseParts{.until_flush_us = us_between(qmp_times_.stopped, qmp_times_.mirrors_ended),
                                .drain_us = us_between(qmp_times_.mirrors_ended, qmp_times_.durable),
                                .device_state_us = us_between(qmp_times_.durable, now),
                                .total_us = end.stopped_ms * 1000,
                                .hypervisor_ms = end.stopped_ms};
    co_return Result<void>{};
  }
  if (end.where == QmpWhere::source) outcome_ = Outcome::rolled_back;
  if (end.where == QmpWhere::unknown) {
    spdlog::warn("move {}: where the machine is has to be found out: {}", job_.id, end.error->message());
    DISKFERRY_CO_CHECK(co_await find_out_by_qmp());
    if (outcome_ == Outcome::committed) co_return Result<void>{};
  }
  if (has_timed_out_)
    co_return unexpected(fail(ErrorKind::timed_out, "migrate", printable(job_.subject))
                             .why(fmt::format("it took longer than {} s", request_.timeout_s))
                             .remedy("allow more time"));
  co_return unexpected(*end.error);
}

Task<Result<void>> Coordinator::find_out_by_qmp() {
  const TimePoint latest = Clock::after(environment_.drivers.clock.now(), decide_limit);
  const auto nobody_knows = [](Result<VmState> state) -> std::optional<VmState> {
    return state ? std::optional(*state) : std::nullopt;
  };
  while (true) {
    QmpVerdict verdict = QmpVerdict::back;
    if (state_.phase == Phase::switching) {
      const auto there = nobody_knows(co_await ends_->target().state());
      verdict = decide_by_qmp(true, nobody_knows(co_await ends_->source_state()), there);
    }
    if (verdict == QmpVerdict::back) {
      DISKFERRY_CO_CHECK(co_await take_back_by_monitors());
      outcome_ = Outcome::rolled_back;
      co_return Result<void>{};
    }
    if (verdict == QmpVerdict::forward) (void)co_await ends_->target().resume({});
    if (verdict == QmpVerdict::committed) {
      outcome_ = Outcome::committed;
      co_return Result<void>{};
    }
    if (verdict == QmpVerdict::split || environment_.drivers.clock.now() >= latest) break;
    DISKFERRY_CO_CHECK(co_await environment_.drivers.clock.sleep_for(decide_pause));
  }
  co_return unexpected(
      fail(ErrorKind::timed_out, "find out which host runs", printable(job_.subject))
          .why("it was decided that the other host does, and that cannot be seen")
          .remedy("look at both QEMUs; when both hosts answer again, diskferry resume " + job_.id +
                  "; to go back, end the QEMU there for good and say cont at the monitor here"));
}

Task<Result<void>> Coordinator::take_back_by_monitors() {
  const TimePoint latest = Clock::after(environment_.drivers.clock.now(), decide_limit);
  while (true) {
    auto taken = co_await ends_->take_back(mirrors(nullptr));
    if (taken) co_return taken;
    spdlog::warn("move {}: back to the source: {}", job_.id, taken.error().message());
    if (environment_.drivers.clock.now() >= latest) co_return taken;
    DISKFERRY_CO_CHECK(co_await environment_.drivers.clock.sleep_for(decide_pause));
  }
}

bool Coordinator::has_begun() const noexcept {
  return std::ranges::any_of(state_.timeline,
                             [](const PhaseTime& time) { return time.phase == Phase::bulk; });
}

/// Whoever drove the move may have left the guest stopped: where the record says that it never was to run
/// elsewhere, it goes on before anything else is looked after.
Task<Result<void>> Coordinator::guest_first() {
  DISKFERRY_CO_CHECK(make_ends());
  if (!has_begun() || !can_undo(state_.phase) || state_.phase == Phase::switching) co_return Result<void>{};
  DISKFERRY_CO_CHECK(co_await take_back_by_monitors());
  outcome_ = Outcome::rolled_back;
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::end_qmp_target() {
  const TimePoint latest = Clock::after(environment_.drivers.clock.now(), end_target_limit);
  while (true) {
    Result<void> ended;
    if (!gateway_) ended = co_await connect_by_qmp();
    if (ended) ended = co_await ends_->target().end();
    const bool may_come_back =
        !ended && (ended.error().kind() == ErrorKind::gone || ended.error().kind() == ErrorKind::timed_out);
    if (!may_come_back || environment_.drivers.clock.now() >= latest) co_return ended;
    DISKFERRY_CO_CHECK(co_await environment_.drivers.clock.sleep_for(decide_pause));
  }
}

/// The QEMU there has taken something of the machine, or listens for it: it is of no use any more. One that
/// was not asked for anything is its operator's.
Task<void> Coordinator::undo_by_qmp() {
  if (!has_begun()) co_return;
  auto ended = co_await end_qmp_target();
  if (ended) co_return;
  // It waits there for a machine that does not come; what it has is not to be let run.
  state_.warnings.push_back("The QEMU on the other host was not ended, and must not be let run: " +
                            printable(request_.destination) + ".");
  spdlog::warn("move {}: {}", job_.id, ended.error().message());
}

Task<void> Coordinator::let_qmp_source_go() {
  auto ended = co_await ends_->end_source();
  if (ended) co_return;
  state_.leftovers.push_back("on this host, never to be let run: the QEMU of " + request_.domain);
  spdlog::warn("move {}: {}", job_.id, ended.error().message());
}

Task<Result<LibvirtJob>> Coordinator::memory_job() {
  if (!ends_) co_return co_await source_->job(job_.subject);
  DISKFERRY_CO_TRY(const auto answer, co_await ends_->ask_source("query-migrate", {}));
  LibvirtJob job;
  const auto* object = answer.if_object();
  const auto* ram = object == nullptr ? nullptr : object->if_contains("ram");
  if (ram == nullptr || !ram->is_object()) co_return job;
  const json::object& figures = ram->get_object();
  job.is_active = state_.phase == Phase::delta;
  job.memory_total_bytes = number_in(figures, "total");
  job.memory_remaining_bytes = number_in(figures, "remaining");
  job.memory_processed_bytes = number_in(figures, "transferred");
  job.memory_dirty_pages_per_s = number_in(figures, "dirty-pages-rate");
  job.memory_iterations = number_in(figures, "dirty-sync-count");
  if (const auto* rate = figures.if_contains("mbps"); rate != nullptr && rate->is_double())
    job.memory_bytes_per_s = static_cast<std::uint64_t>(std::max(0.0, rate->get_double()) * 125'000);
  co_return job;
}

Task<Result<void>> Coordinator::set_memory_rate(std::uint64_t bytes_per_s) {
  if (!ends_) co_return co_await source_->set_memory_bytes_per_s(job_.subject, bytes_per_s);
  DISKFERRY_CO_CHECK(co_await ends_->ask_source("migrate-set-parameters", {{"max-bandwidth", bytes_per_s}}));
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::abort_at_source() {
  if (!ends_) co_return co_await source_->abort_job(job_.subject);
  // Whichever of the two is going on; the step that waits for it sees its end.
  (void)co_await ends_->ask_source("migrate_cancel", {});
  for (const QmpDisk& disk : mirrors(nullptr))
    (void)co_await ends_->ask_source("block-job-cancel", {{"device", disk.job}, {"force", true}});
  co_return Result<void>{};
}

}  // namespace diskferry
