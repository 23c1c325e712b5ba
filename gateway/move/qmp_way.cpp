#include "gateway/move/qmp_way.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/barrier.hpp"
#include "gateway/move/persistence.hpp"
#include "gateway/move/qmp_preflight.hpp"
#include "gateway/move/qmp_request.hpp"

#include <algorithm>
#include <chrono>
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

std::uint64_t bandwidth(std::uint64_t bytes_per_s) {
  return bytes_per_s == 0 ? bandwidth_max : bytes_per_s;
}

Result<void> without_libvirt(std::string_view what) {
  return unexpected(fail(ErrorKind::unsupported, "change the move")
                        .why(fmt::format("without libvirt there is no {}", what)));
}

}  // namespace

Result<void> QmpWay::make_ends() {
  if (ends_) return {};
  DISKFERRY_TRY(std::string source, monitor_path(move_.request.domain));
  DISKFERRY_TRY(std::string target, monitor_path(move_.request.destination));
  ends_ = std::make_unique<QmpEnds>(move_.environment.drivers,
                                    QmpEndsOptions{.move = move_.job.id,
                                                   .sockets_folder = move_.environment.qmp_sockets_folder,
                                                   .source = std::move(source),
                                                   .target = std::move(target)});
  return {};
}

Task<Result<void>> QmpWay::connect() {
  DISKFERRY_CO_CHECK(make_ends());
  DISKFERRY_CO_CHECK(co_await move_.connect_gateway());
  ends_->set_gateway(*move_.gateway);
  co_return Result<void>{};
}

Task<Result<void>> QmpWay::prepare() {
  MoveState& state = move_.state;
  state.way = MoveWayKind::qmp;
  DISKFERRY_CO_TRY(const QmpPreflightFacts facts,
                   co_await collect_by_qmp(*ends_, move_.gateway.get(), std::nullopt, move_.request));
  // Of a machine without a UUID, what its monitor is called: a second attempt finds the first one's by it.
  state.machine = facts.here.uuid.empty() ? move_.request.domain : facts.here.uuid;
  std::ranges::replace(state.machine, '/', '-');
  state.is_persistent = false;
  DISKFERRY_CO_CHECK(move_.take_findings(examine_by_qmp(facts)));
  DISKFERRY_CO_TRY(state.disks, choose_disks_by_qmp(move_.request, facts.here));
  DISKFERRY_CO_TRY(std::string monitor, monitor_path(move_.request.destination));
  DISKFERRY_CO_CHECK(co_await move_.prepare_targets(std::move(monitor)));
  co_return co_await move_.open_sources({});
}

std::vector<QmpDisk> QmpWay::mirrors(const QmpMachine* machine) const {
  std::vector<QmpDisk> all;
  for (const MoveDiskState& disk : move_.state.disks) {
    const auto* here = machine == nullptr ? nullptr : disk_named(*machine, disk.target);
    const auto number = all.size();
    all.push_back({.device = here == nullptr ? disk.target : here->node,
                   .job = mirror_name(number),
                   .target_node = fmt::format("diskferry-target-{}", number),
                   .target = {{"driver", "nbd"},
                              {"server", json::object{{"type", "unix"}, {"path", move_.socket}}},
                              {"export", disk.drive},
                              {"discard", "unmap"}}});
  }
  return all;
}

Task<Result<QmpMigrationPlan>> QmpWay::plan() {
  const MoveRequest& request = move_.request;
  DISKFERRY_CO_TRY(const QmpMachine machine, co_await ends_->describe_source());
  QmpMigrationPlan plan{.disks = mirrors(&machine)};
  DISKFERRY_CO_TRY(plan.incoming.listen, memory_address(request.memory_uri));
  plan.incoming.multifd_channels = request.parallel;
  plan.incoming.tls = request.memory_tls;
  plan.synchronous_writes = true;  // the windows answer at once: see what_to_migrate() of intercept_way
  plan.source_parameters = {
      {"max-bandwidth", bandwidth(request.bytes_per_s)},
      {"downtime-limit", std::min(memory_pause_ms(request.max_pause_ms), pause_ms_max)}};
  co_return plan;
}

Task<Result<void>> QmpWay::before_step(QmpStep step) {
  const TimePoint now = move_.clock().now();
  if (step == QmpStep::end_mirrors) {
    times_.stopped = now;
    supervisor_.guest_stopped();
  }
  if (step == QmpStep::barrier) times_.mirrors_ended = now;
  if (step == QmpStep::hand_over) times_.durable = now;
  if (step == QmpStep::start_memory && move_.state.phase == Phase::bulk)
    co_return co_await move_.enter(Phase::delta);
  co_return Result<void>{};
}

/// The guest is stopped and the mirrors have ended: every write of it is in our windows.
Task<Result<void>> QmpWay::barrier() {
  DISKFERRY_CO_CHECK(co_await with_deadline(move_.clock(), durable_limit, "make the targets durable",
                                            move_.disks->make_all_durable()));
  co_return co_await move_.enter(Phase::synchronized);
}

Task<Result<void>> QmpWay::migrate() {
  DISKFERRY_CO_TRY(QmpMigrationPlan wanted, co_await plan());
  DISKFERRY_CO_TRY(Qmp* const source, co_await ends_->source());
  DISKFERRY_CO_CHECK(co_await move_.enter(Phase::bulk));
  QmpMigrationHooks hooks{
      .barrier = [this] { return barrier(); },
      // From here on it may run there, whatever becomes of us.
      .commit = [this] { return move_.enter(Phase::switching); },
      // Once this is written down nobody tells it to run any more, and by itself it does not.
      .fence = [this] { return move_.enter(Phase::aborting); },
      .before_step = [this](QmpStep step) { return before_step(step); }};
  co_await supervisor_.begin();
  const auto end =
      co_await migrate_by_qmp(move_.clock(), *source, ends_->target(), std::move(wanted), std::move(hooks));
  co_await supervisor_.end();
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  co_return co_await settle_end(end);
}

void QmpWay::measure_pause(const QmpMigrationEnd& end) {
  if (end.error) return;
  move_.state.pause = PauseParts{.until_flush_us = us_between(times_.stopped, times_.mirrors_ended),
                                 .drain_us = us_between(times_.mirrors_ended, times_.durable),
                                 .device_state_us = us_between(times_.durable, move_.clock().now()),
                                 .total_us = end.stopped_ms * 1000,
                                 .hypervisor_ms = end.stopped_ms};
}

Task<Result<void>> QmpWay::settle_end(const QmpMigrationEnd& end) {
  if (end.where == QmpWhere::destination) {
    outcome_ = Outcome::committed;
    measure_pause(end);
    co_return Result<void>{};
  }
  if (end.where == QmpWhere::source) outcome_ = Outcome::rolled_back;
  if (end.where == QmpWhere::unknown) {
    spdlog::warn("move {}: where the machine is has to be found out: {}", move_.job.id, end.error->message());
    DISKFERRY_CO_CHECK(co_await find_out());
    if (outcome_ == Outcome::committed) co_return Result<void>{};
  }
  if (supervisor_.has_timed_out()) co_return unexpected(took_too_long("allow more time"));
  co_return unexpected(*end.error);
}

Task<Result<void>> QmpWay::find_out() {
  const TimePoint latest = Clock::after(move_.clock().now(), decide_limit);
  const auto nobody_knows = [](Result<VmState> state) -> std::optional<VmState> {
    return state ? std::optional(*state) : std::nullopt;
  };
  while (true) {
    QmpVerdict verdict = QmpVerdict::back;
    if (move_.state.phase == Phase::switching) {
      const auto there = nobody_knows(co_await ends_->target().state());
      verdict = decide_by_qmp(true, nobody_knows(co_await ends_->source_state()), there);
    }
    if (verdict == QmpVerdict::back) {
      DISKFERRY_CO_CHECK(co_await take_back());
      outcome_ = Outcome::rolled_back;
      co_return Result<void>{};
    }
    if (verdict == QmpVerdict::forward) (void)co_await ends_->target().resume({});
    if (verdict == QmpVerdict::committed) {
      outcome_ = Outcome::committed;
      co_return Result<void>{};
    }
    if (verdict == QmpVerdict::split || move_.clock().now() >= latest) break;
    DISKFERRY_CO_CHECK(co_await move_.clock().sleep_for(decide_pause));
  }
  co_return unexpected(
      fail(ErrorKind::timed_out, "find out which host runs", printable(move_.job.subject))
          .why("it was decided that the other host does, and that cannot be seen")
          .remedy("look at both QEMUs; when both hosts answer again, diskferry resume " + move_.job.id +
                  "; to go back, end the QEMU there for good and say cont at the monitor here"));
}

Task<Result<void>> QmpWay::take_back() {
  const auto once = [this] { return ends_->take_back(mirrors(nullptr)); };
  const auto is_worth_it = [this](const Error& error) {
    spdlog::warn("move {}: back to the source: {}", move_.job.id, error.message());
    return true;
  };
  co_return co_await persist(move_.clock(), {.limit = decide_limit, .pause = decide_pause}, once,
                             is_worth_it);
}

bool QmpWay::has_begun() const {
  return std::ranges::any_of(move_.state.timeline,
                             [](const PhaseTime& time) { return time.phase == Phase::bulk; });
}

/// Whoever drove the move may have left the guest stopped: where the record says that it never was to run
/// elsewhere, it goes on before anything else is looked after.
Task<Result<void>> QmpWay::guest_first() {
  DISKFERRY_CO_CHECK(make_ends());
  const Phase phase = move_.state.phase;
  if (!has_begun() || !can_undo(phase) || phase == Phase::switching) co_return Result<void>{};
  DISKFERRY_CO_CHECK(co_await take_back());
  outcome_ = Outcome::rolled_back;
  co_return Result<void>{};
}

Task<Result<void>> QmpWay::end_target() {
  if (!move_.gateway) DISKFERRY_CO_CHECK(co_await connect());
  co_return co_await ends_->target().end();
}

/// The QEMU there has taken something of the machine, or listens for it: it is of no use any more. One that
/// was not asked for anything is its operator's.
Task<void> QmpWay::undo() {
  if (!has_begun()) co_return;
  auto ended = co_await persist(move_.clock(), {.limit = end_target_limit, .pause = decide_pause},
                                [this] { return end_target(); });
  if (ended) co_return;
  // It waits there for a machine that does not come; what it has is not to be let run.
  move_.state.warnings.push_back("The QEMU on the other host was not ended, and must not be let run: " +
                                 printable(move_.request.destination) + ".");
  spdlog::warn("move {}: {}", move_.job.id, ended.error().message());
}

Task<void> QmpWay::let_source_go() {
  auto ended = co_await ends_->end_source();
  if (ended) co_return;
  move_.state.leftovers.push_back("on this host, never to be let run: the QEMU of " + move_.request.domain);
  spdlog::warn("move {}: {}", move_.job.id, ended.error().message());
}

Task<Result<LibvirtJob>> QmpWay::memory_job() {
  DISKFERRY_CO_TRY(const auto answer, co_await ends_->ask_source("query-migrate", {}));
  LibvirtJob job;
  const auto* object = answer.if_object();
  const auto* ram = object == nullptr ? nullptr : object->if_contains("ram");
  if (ram == nullptr || !ram->is_object()) co_return job;
  const json::object& figures = ram->get_object();
  job.is_active = move_.state.phase == Phase::delta;
  job.memory_total_bytes = number_in(figures, "total");
  job.memory_remaining_bytes = number_in(figures, "remaining");
  job.memory_processed_bytes = number_in(figures, "transferred");
  job.memory_dirty_pages_per_s = number_in(figures, "dirty-pages-rate");
  job.memory_iterations = number_in(figures, "dirty-sync-count");
  if (const auto* rate = figures.if_contains("mbps"); rate != nullptr && rate->is_double())
    job.memory_bytes_per_s = static_cast<std::uint64_t>(std::max(0.0, rate->get_double()) * 125'000);
  co_return job;
}

Task<Result<void>> QmpWay::set_parameter(std::string name, std::uint64_t value) {
  DISKFERRY_CO_CHECK(co_await ends_->ask_source("migrate-set-parameters", {{std::move(name), value}}));
  co_return Result<void>{};
}

Task<Result<void>> QmpWay::set_memory_rate(std::uint64_t bytes_per_s) {
  return set_parameter("max-bandwidth", bandwidth(bytes_per_s));
}

Task<Result<void>> QmpWay::set_memory_pause_ms(std::uint64_t ms) {
  return set_parameter("downtime-limit", std::min(ms, pause_ms_max));
}

Task<Result<void>> QmpWay::abort() {
  // Whichever of the two is going on; the step that waits for it sees its end.
  (void)co_await ends_->ask_source("migrate_cancel", {});
  for (const QmpDisk& disk : mirrors(nullptr))
    (void)co_await ends_->ask_source("block-job-cancel", {{"device", disk.job}, {"force", true}});
  co_return Result<void>{};
}

Task<Result<void>> QmpWay::suspend() {
  co_return without_libvirt("pausing on timeout");
}

Task<Result<void>> QmpWay::start_post_copy() {
  co_return without_libvirt("post-copy");
}

Task<void> QmpWay::close() {
  if (ends_) co_await ends_->close();
}

}  // namespace diskferry
