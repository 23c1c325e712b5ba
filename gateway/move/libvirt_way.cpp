#include "gateway/move/libvirt_way.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/move_failure.hpp"

#include <algorithm>

#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {

TimePoint time_of(const LibvirtEvent& event) {
  return TimePoint(std::chrono::nanoseconds(event.at_ns));
}

Task<Result<void>> LibvirtWay::watch() {
  const auto teller = [this](bool is_source) {
    return [this, is_source](const LibvirtEvent& event) {
      if (event.domain == move_.job.subject) heard(is_source, event);
    };
  };
  DISKFERRY_CO_CHECK(co_await ends_.source->watch(teller(true)));
  co_return co_await ends_.target->watch(teller(false));
}

LibvirtMigration LibvirtWay::memory_migration() const {
  const MoveRequest& request = move_.request;
  LibvirtMigration migration{.domain = request.domain,
                             .destination = request.destination,
                             .destination_xml = move_.state.destination_xml,
                             .persistent_xml = move_.state.persistent_xml,
                             .memory_uri = request.memory_uri,
                             .tls = request.memory_tls,
                             .auto_converge = request.auto_converge,
                             .parallel_connections = request.parallel,
                             .compression = request.compression,
                             .persist_destination = move_.state.is_persistent};
  // Of network storage libvirt thinks the same as we do.
  migration.is_storage_proved = std::ranges::any_of(move_.state.disks, [](const MoveDiskState& disk) {
    return disk.route == DiskRoute::shared && disk.source.starts_with('/');
  });
  return migration;
}

Task<WhoRuns> LibvirtWay::ask_both() {
  WhoRuns said{.was_paused = move_.state.was_paused};
  const auto source = co_await ends_.ask_source(move_);
  const auto target = co_await ends_.ask_target(move_);
  if (source) {
    said.source = source->state;
    said.source_waits = source->is_in_migration;
    const auto job = co_await ends_.source->job(move_.job.subject);
    said.source_job_active = job && job->is_active;
  }
  if (target) {
    said.target = target->state;
    said.target_has_arrived = target->state == VmState::paused && !target->is_in_migration;
  }
  co_return said;
}

Task<Result<void>> LibvirtWay::destroy(Libvirt& host) const {
  auto gone = co_await host.destroy(move_.job.subject);
  if (!gone && gone.error().kind() == ErrorKind::not_found) co_return Result<void>{};
  co_return gone;
}

Task<Result<void>> LibvirtWay::end_paused_source(const WhoRuns& said) {
  if (said.source != VmState::paused) co_return Result<void>{};
  auto gone = co_await destroy(*ends_.source);
  if (!gone) outcome_ = Outcome::undecided;
  co_return gone;
}

Task<Result<void>> LibvirtWay::settle_failure(Error said, std::string remedy) {
  const bool was_cancelled = co_await is_cancelled();
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  spdlog::info("move {}: the hypervisor says: {}{}", move_.job.id, said.message(),
               was_cancelled ? " (cancelled)" : "");
  co_await before_asking();
  DISKFERRY_CO_CHECK(co_await find_out());
  if (outcome_ == Outcome::committed) co_return Result<void>{};
  if (outcome_ == Outcome::split) co_return unexpected(runs_twice());
  if (supervisor_.has_timed_out()) co_return unexpected(took_too_long(std::move(remedy)));
  // Then that is the cause: that the target's machine has ended is what undoing the move looks like.
  if (was_cancelled && outcome_ != Outcome::ended)
    co_return unexpected(cancelled_error("migrate", move_.job.subject));
  co_return unexpected(first_cause_of(std::move(said)));
}

Error LibvirtWay::first_cause_of(Error said) {
  MoveEnding seen{.machine = move_.job.subject,
                  .source_host = move_.environment.here.name,
                  .target_host = host_of(move_.request.destination),
                  .has_ended = outcome_ == Outcome::ended,
                  .was_given_up = was_given_up_,
                  .has_lost_source = ends_.has_lost_source,
                  .has_lost_target = ends_.has_lost_target};
  {
    std::lock_guard lock(guard_);
    seen.source_ended = source_ended_;
    seen.target_ended = target_ended_;
  }
  auto cause = cause_of_ending(said, seen);
  is_cause_known_ = cause.has_value();
  return cause ? *std::move(cause) : std::move(said);
}

Task<Result<void>> LibvirtWay::set_memory_rate(std::uint64_t bytes_per_s) {
  return ends_.source->set_memory_bytes_per_s(move_.job.subject, bytes_per_s);
}

Task<Result<void>> LibvirtWay::set_memory_pause_ms(std::uint64_t ms) {
  return ends_.source->set_downtime_max_ms(move_.job.subject, ms);
}

Task<void> LibvirtWay::take_rate_back() {
  if (supervisor_.has_told_rate() && ends_.source) (void)co_await set_memory_rate(0);
}

Task<void> LibvirtWay::take_measures() {
  if (!ends_.source) co_return;
  if (auto done = co_await ends_.source->completed_job(move_.job.subject);
      done && done->downtime_ms && move_.state.pause)
    move_.state.pause->hypervisor_ms = *done->downtime_ms;
}

}  // namespace diskferry
