// The list of steps of an adoption, and the way back. See adoption.hpp.
#include "gateway/move/adoption.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/registry.hpp"
#include "gateway/copy/target.hpp"
#include "gateway/move/adoption_plan.hpp"
#include "gateway/move/persistence.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
bool is_there(const Error& error) noexcept {
  return error.kind() != ErrorKind::not_found;
}
}  // namespace

Adoption::Adoption(ReplaceEnvironment& environment, JobRecord job)
    : environment_(environment), record_(environment, std::move(job)) {}
Adoption::~Adoption() = default;

namespace {
std::unexpected<Error> refused(std::string why, std::string remedy) {
  return unexpected(
      fail(ErrorKind::unsupported, "change the job").why(std::move(why)).remedy(std::move(remedy)));
}
}  // namespace

Result<void> Adoption::accepts(Wish wish) const {
  switch (wish) {
    case Wish::fall_back:
      return refused("the hypervisor has let go of the old storage",
                     "move the disk back with diskferry replace, onto another target");
    case Wish::pause:
      return refused("the hypervisor copies, and does not rest", "bound it with diskferry set JOB --rate");
  }
  return {};
}

Result<void> Adoption::set(const ReplaceSettings& settings) {
  if (settings.max_pause_ms || settings.max_write_latency_ms || settings.deadline_s || settings.on_read_error)
    return refused("the hypervisor copies, and goes over when all is written", "only --rate can be set");
  if (settings.bytes_per_s) bytes_per_s_ = *settings.bytes_per_s;
  return {};
}

// --- the record -------------------------------------------------------------------------------------------

Task<Result<void>> Adoption::load() {
  DISKFERRY_CO_CHECK(co_await record_.load());
  const ReplaceRequest& request = record_.request();
  if (environment_.disk_exports == nullptr || !is_adoption(request))
    co_return unexpected(fail(ErrorKind::unsupported, "move the machine's disk")
                             .why("this gateway has no exports for disks of machines"));
  const ReplaceDisk& wanted = request.disks.front();
  if (record_.state().disks.empty())
    record_.state().disks.push_back({.name = wanted.name, .uri = wanted.uri, .format = wanted.format});
  const auto& limits = record_.state().limits;
  bytes_per_s_ = limits ? limits->bytes_per_s : request.bytes_per_s;
  DISKFERRY_CO_TRY(DomainDiskNames names, names_of(environment_, request));
  disk_.emplace(environment_.drivers, std::move(names));
  destination_ = make_destination({.environment = environment_, .record = record_, .disk = *disk_});
  co_return Result<void>{};
}

/// Of the target, where the disk is not all of it.
std::uint64_t Adoption::part_bytes() {
  return disk_state().is_part ? disk_state().size_bytes : 0;
}

// --- the job ----------------------------------------------------------------------------------------------

/// The export is not offered before it is known which storage the disk is on: a copy that an earlier process
/// was in the middle of must not go on as if nothing had been lost.
Task<Result<void>> Adoption::take_up() {
  auto loaded = co_await load();
  is_taken_up_ = true;
  co_return loaded;
}

Task<void> Adoption::leave_to_next() {
  // A copy that nobody receives would hold up the guest's writes.
  if (disk_ && record_.state().phase >= Phase::prepared && record_.state().phase < Phase::committed) {
    const auto view = co_await disk_->look(false);
    if (view && view->place == DiskPlace::copying) (void)co_await disk_->end_copy();
  }
  if (disk_) co_await disk_->close();
}

Task<Result<void>> Adoption::run() {
  if (!is_taken_up_) {
    if (auto loaded = co_await load(); !loaded)
      co_return co_await record_.note_end(loaded, "{}", [] { return true; });
  }
  auto result = co_await forward();
  // Whatever happened, cancellation included, is followed through.
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  const Phase phase = record_.state().phase;
  if (!result && is_gateway_stopping_ && !is_final(phase)) {
    co_await leave_to_next();
    co_return result;
  }
  if (!result && can_undo(phase))
    result = co_await undo(record_.end_reason(std::move(result).error(), is_cancel_wanted_));
  co_await disk_->close();
  co_return co_await record_.note_end(std::move(result), progress(),
                                      [this] { return is_gateway_stopping_.load(); });
}

Task<Result<void>> Adoption::forward() {
  const Phase phase = record_.state().phase;
  // An earlier process came to the end, and not to noting it.
  if (phase == Phase::released) co_return Result<void>{};
  if (phase == Phase::aborted || phase == Phase::aborting)
    co_return unexpected(
        cancelled_error("replace", record_.job().subject).with_step("an earlier process gave it up"));
  (void)co_await record_.save({.status = JobStatus::running, .error = std::string()});
  if (phase == Phase::planned) DISKFERRY_CO_CHECK(co_await prepare());
  if (phase < Phase::committed) DISKFERRY_CO_CHECK(co_await bring_over());
  co_return co_await commit();
}

// --- before anything is copied ----------------------------------------------------------------------------

Task<Result<void>> Adoption::look_and_note() {
  DISKFERRY_CO_TRY(const AdoptionFacts facts,
                   co_await collect_adoption(*disk_, *environment_.disk_exports, record_.request()));
  const auto findings = examine(facts);
  DISKFERRY_CO_CHECK(refuse_adoption(findings, record_.job().subject));
  for (const Finding& each : findings) record_.state().warnings.push_back(each.text);
  ReplaceDiskState& state = disk_state();
  DISKFERRY_CO_TRY(state.size_bytes, co_await disk_->size_bytes());
  note_source(state, facts);
  const AdoptionTarget target{
      .state = state, .overwrite = record_.request().overwrite, .was_made = state.was_created};
  DISKFERRY_CO_TRY(const bool makes, co_await look_at_adoption_target(environment_.drivers, target, facts));
  state.was_created = state.was_created || makes;
  co_return Result<void>{};
}

Task<Result<void>> Adoption::make_target() {
  ReplaceDiskState& state = disk_state();
  const AdoptionTarget target{.state = state, .overwrite = record_.request().overwrite, .was_made = false};
  co_return co_await make_adoption_target(environment_.drivers, target);
}

/// Everything is looked at before anything is made.
Task<Result<void>> Adoption::prepare() {
  // By an earlier process that did not come further.
  const bool was_made_before = disk_state().was_created;
  DISKFERRY_CO_CHECK(co_await look_and_note());
  // Written down first, so that a crash leaves nothing behind that nobody knows of.
  DISKFERRY_CO_CHECK(co_await record_.save({}));
  if (was_made_before) DISKFERRY_CO_CHECK(co_await remove_target());
  auto made = co_await make_target();
  if (!made && !is_gateway_stopping_)
    co_return unexpected(co_await record_.note_unmade(disk_state(), std::move(made).error()));
  if (!made) co_return made;
  co_return co_await record_.enter(Phase::prepared);
}

// --- over -------------------------------------------------------------------------------------------------

/// Returns when the disk is on its target.
Task<Result<void>> Adoption::bring_over() {
  // It was told to go over if an earlier process tried to.
  const bool may_be_over = record_.state().phase == Phase::switching;
  is_commit_wanted_ = is_commit_wanted_ || may_be_over;
  if (may_be_over) {
    DISKFERRY_CO_CHECK(co_await destination_->offer());
    DISKFERRY_CO_CHECK(co_await destination_->make_lasting());
  }
  // What an earlier process began is over, one way or the other.
  DISKFERRY_CO_TRY(const DiskPlace place, co_await settle());
  if (place == DiskPlace::target) co_return Result<void>{};
  if (may_be_over) DISKFERRY_CO_CHECK(co_await record_.enter(Phase::delta));
  DISKFERRY_CO_CHECK(co_await destination_->offer());
  DISKFERRY_CO_CHECK(co_await note_bound(bytes_per_s_));
  DISKFERRY_CO_CHECK(co_await disk_->start_copy(bounded_to_, part_bytes()));
  if (record_.state().phase == Phase::prepared) DISKFERRY_CO_CHECK(co_await record_.enter(Phase::bulk));
  while (true) {
    DISKFERRY_CO_CHECK(co_await copy_until_ready());
    DISKFERRY_CO_TRY(const bool is_over, co_await go_over_to_the_end());
    if (is_over) co_return Result<void>{};
  }
}

/// The disk is on its target: only forward.
Task<Result<void>> Adoption::commit() {
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  ReplaceState& state = record_.state();
  const auto gives_up = [this] { return is_gateway_stopping_.load(); };
  state.switchovers = 1;
  // Somebody may have had the hypervisor go over.
  if (state.phase == Phase::bulk)
    DISKFERRY_CO_CHECK(co_await record_.enter_for_sure(Phase::delta, {}, gives_up));
  if (state.phase == Phase::delta)
    DISKFERRY_CO_CHECK(co_await record_.enter_for_sure(Phase::synchronized, {}, gives_up));
  if (state.phase == Phase::synchronized)
    DISKFERRY_CO_CHECK(co_await record_.enter_for_sure(Phase::switching, {}, gives_up));
  if (state.phase < Phase::committed)
    DISKFERRY_CO_CHECK(
        co_await record_.enter_for_sure(Phase::committed, destination_->commit_record(), gives_up));
  co_await destination_->settle_in();
  const auto kept = co_await persist(environment_.drivers.clock, hypervisor_patience,
                                     [this] { return disk_->keep_definition(part_bytes()); });
  if (!kept)
    state.leftovers.push_back("the machine's definition names the old storage: " + kept.error().message());
  DISKFERRY_CO_CHECK(co_await record_.enter_for_sure(Phase::retained, {}, gives_up));
  co_return co_await record_.enter_for_sure(Phase::released, {}, gives_up);
}

// --- back -------------------------------------------------------------------------------------------------

Task<Result<void>> Adoption::remove_target() {
  DISKFERRY_CO_TRY(ImageUri uri, ImageUri::parse(disk_state().uri));
  co_return co_await remove_created_target(environment_.drivers, std::move(uri));
}

/// Where the disk is, with nothing copied any more. Errors: it could not be asked for long.
Task<Result<DiskPlace>> Adoption::end_copying() {
  DiskPlace place = DiskPlace::source;
  const auto ended = co_await persist(
      environment_.drivers.clock, hypervisor_patience,
      [this, &place] { return disk_->end_copy_if_any(place); }, is_there);
  if (ended) co_return place;
  // A machine that is gone is on no storage; but one that was going over may have been on the export.
  if (ended.error().kind() == ErrorKind::not_found && can_remove_unseen_) co_return DiskPlace::source;
  co_return unexpected(ended.error());
}

Task<Result<void>> Adoption::undo(Error why) {
  ReplaceState& state = record_.state();
  can_remove_unseen_ = state.phase < Phase::switching;
  const auto place = co_await end_copying();
  if (place && *place == DiskPlace::target) co_return co_await commit();
  spdlog::warn("replacement {} of {}: undone: {}", record_.job().id, printable(record_.job().subject),
               why.message());
  DISKFERRY_CO_CHECK(co_await record_.enter(Phase::aborting));
  if (auto withdrawn = co_await destination_->withdraw(); !withdrawn)
    spdlog::warn("replacement {}: {}", record_.job().id, withdrawn.error().message());
  if (!place) {
    state.leftovers.push_back(fmt::format("{}, in case the machine has it: {}", shown_name(disk_state().uri),
                                          place.error().message()));
  } else if (disk_state().was_created) {
    if (auto removed = co_await remove_target(); !removed)
      state.leftovers.push_back(shown_name(disk_state().uri) + ": " + removed.error().message());
  }
  DISKFERRY_CO_CHECK(co_await record_.enter(Phase::aborted));
  co_return unexpected(std::move(why));
}

}  // namespace diskferry
