// After the commit: the target's disks are its own, the source keeps what it has until it is released.
#include "diskferry/image_uri.hpp"
#include "gateway/move/coordinator.hpp"

#include <filesystem>
#include <fmt/format.h>
#include <system_error>

#include <boost/asio/this_coro.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace json = boost::json;
namespace {
constexpr Duration lease = std::chrono::minutes(10);  // longer than any of these steps
/// The guest runs on the target already and nobody waits: a gateway that is restarted is back by then.
constexpr Duration keep_limit = std::chrono::minutes(2);
/// Where somebody waits for the answer.
constexpr Duration end_limit = std::chrono::seconds(10);
constexpr Duration finish_pause = std::chrono::seconds(1);
}  // namespace

Task<Result<void>> Coordinator::finish_target(TargetEnd end, Duration limit) {
  const TimePoint until = Clock::after(environment_.drivers.clock.now(), limit);
  while (true) {
    auto finished = co_await finish_once(end);
    const bool may_come_back = !finished && (finished.error().kind() == ErrorKind::gone ||
                                             finished.error().kind() == ErrorKind::timed_out);
    if (!may_come_back || environment_.drivers.clock.now() >= until) co_return finished;
    DISKFERRY_CO_CHECK(co_await environment_.drivers.clock.sleep_for(finish_pause));
  }
}

Task<Result<void>> Coordinator::finish_once(TargetEnd end) {
  if (!gateway_) {
    if (auto again = co_await connect_gateway(); !again)
      spdlog::debug("move {}: {}", job_.id, again.error().message());
  }
  if (gateway_) co_return co_await gateway_->finish(job_.id, end);
  // Before anything was prepared there is nothing to end.
  const bool has_any =
      std::ranges::any_of(state_.disks, [](const MoveDiskState& disk) { return !disk.export_name.empty(); });
  if (!has_any) co_return Result<void>{};
  co_return unexpected(
      fail(ErrorKind::gone, "end the move at the other gateway", job_.id).why("it cannot be reached"));
}

Task<Result<void>> Coordinator::commit() {
  if (state_.is_cold) {
    // A machine that is shut off decides nothing by itself: it is where its definition is.
    DISKFERRY_CO_CHECK(co_await enter(Phase::committed));
    // With the source kept the other gateway keeps its record, too: the move can still be taken back.
    if (!request_.keep_source) (void)co_await finish_target(TargetEnd::keep, keep_limit);
    co_return co_await enter(Phase::retained);
  }
  // From here on it only goes forward, and a wish to cancel comes too late.
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  if (source_) {
    if (auto done = co_await source_->completed_job(job_.subject); done && done->downtime_ms && state_.pause)
      state_.pause->hypervisor_ms = *done->downtime_ms;
  }
  DISKFERRY_CO_CHECK(co_await enter(Phase::committed));
  // Nobody writes to the windows any more: libvirt has ended the mirrors, and everything was durable before
  // that.
  if (disks_) {
    final_stats_ = disks_->stats();
    if (auto stopped = co_await disks_->stop(false); !stopped)
      spdlog::debug("move {}: {}", job_.id, stopped.error().message());
    disks_.reset();
  }
  auto finished = co_await finish_target(TargetEnd::keep, keep_limit);
  if (!finished) {
    // What is still offered there is the machine's disk, which nobody asks the export for. The next move of
    // this machine to that gateway ends it.
    state_.leftovers.push_back("the exports of this move at the other gateway: " +
                               finished.error().message());
    spdlog::warn("move {}: {}", job_.id, finished.error().message());
  }
  co_return co_await enter(Phase::retained);
}

Task<Result<void>> Coordinator::let_source_go() {
  if (request_.keep_source) co_return Result<void>{};
  if (ends_) co_await let_qmp_source_go();
  if (state_.is_persistent) {
    if (auto gone = co_await source_->undefine(job_.subject);
        !gone && gone.error().kind() != ErrorKind::not_found) {
      // The guest runs where it should: that this one is still defined is told, and no failure of the move.
      state_.leftovers.push_back("the definition of " + job_.subject + " on the source host");
      spdlog::warn("move {}: {}", job_.id, gone.error().message());
    }
  }
  for (const MoveDiskState& disk : state_.disks)
    if (!disk.source.empty() && disk.route != DiskRoute::shared)
      state_.leftovers.push_back("the disk on the source host: " + disk.source);
  co_return co_await enter(Phase::released);
}

Task<Result<void>> Coordinator::take_over() {
  DISKFERRY_CO_TRY(request_, parse_move_request(job_.request));
  DISKFERRY_CO_TRY(state_, parse_move_state(job_.state));
  if (state_.phase != Phase::retained)
    co_return unexpected(fail(ErrorKind::in_use, "end the move", job_.id)
                             .why(fmt::format("it is {}", to_string(state_.phase)))
                             .remedy("diskferry status " + job_.id));
  DISKFERRY_CO_TRY(job_, co_await environment_.jobs.take_lease(job_.id, environment_.controller, lease));
  co_return co_await connect();
}

Task<Result<void>> Coordinator::release_taken_over() {
  request_.keep_source = false;
  if (state_.is_cold) DISKFERRY_CO_CHECK(co_await finish_target(TargetEnd::keep, end_limit));
  DISKFERRY_CO_CHECK(co_await let_source_go());
  co_return co_await save({.status = JobStatus::done, .report = progress()});
}

Task<Result<void>> Coordinator::release() {
  auto result = co_await take_over();
  if (result) result = co_await release_taken_over();
  co_await close();
  co_return result;
}

Task<Result<void>> Coordinator::revert_taken_over() {
  const auto refuse = [this](std::string why, std::string remedy) {
    return unexpected(
        fail(ErrorKind::in_use, "take the move back", job_.id).why(std::move(why)).remedy(std::move(remedy)));
  };
  if (!state_.is_cold) co_return refuse("the machine moved while it ran", "move it back from the other host");
  DISKFERRY_CO_TRY(const VmState there, co_await target_->state(job_.subject));
  if (there != VmState::shut_off && there != VmState::absent)
    co_return refuse("the machine runs on the other host", "shut it down there, or move it back from there");
  DISKFERRY_CO_CHECK(co_await enter(Phase::aborting));
  if (there == VmState::shut_off) DISKFERRY_CO_CHECK(co_await target_->undefine(job_.subject));
  DISKFERRY_CO_CHECK(co_await finish_target(TargetEnd::remove, end_limit));
  DISKFERRY_CO_CHECK(co_await enter(Phase::aborted));
  co_return co_await save({.status = JobStatus::rolled_back, .report = progress()});
}

Task<Result<void>> Coordinator::revert() {
  auto result = co_await take_over();
  if (result) result = co_await revert_taken_over();
  co_await close();
  co_return result;
}

Task<void> Coordinator::close() {
  if (disks_) {
    (void)co_await disks_->stop(false);
    disks_.reset();
  }
  if (guest_) co_await guest_->close();
  // After a crash there are no disks that would take it with them.
  std::error_code ignored;
  std::filesystem::remove_all(std::filesystem::path(socket()).parent_path(), ignored);
  if (ends_) co_await ends_->close();
  if (gateway_) co_await gateway_->close();
  if (source_) co_await source_->close();
  if (target_) co_await target_->close();
  gateway_.reset();
  source_.reset();
  target_.reset();
}

std::string Coordinator::progress() const {
  json::array disks;
  const auto stats = disks_ ? disks_->stats() : final_stats_;
  for (const auto& disk : stats) {
    const WindowStats& window = disk.window;
    disks.push_back({{"disk", disk.target},
                     {"size-bytes", disk.size_bytes},
                     {"received-bytes", window.acknowledged_bytes + window.zeroed_bytes},
                     {"sent-bytes", window.sent_bytes},
                     {"sent-zero-bytes", window.sent_zero_bytes},
                     {"resent-bytes", window.resent_bytes},
                     {"unchanged-bytes", window.unchanged_bytes},
                     {"superseded-bytes", window.superseded_bytes},
                     {"pending-bytes", window.pending_bytes},
                     {"window-bytes", window.window_bytes},
                     {"verified-bytes", disk.verified_bytes},
                     {"bytes-per-second", window.bytes_per_s}});
  }
  std::lock_guard lock(guard_);
  std::uint64_t received = 0;
  std::uint64_t total = 0;
  for (const auto& disk : stats) {
    total += disk.size_bytes;
    received += std::min(disk.size_bytes, disk.window.acknowledged_bytes + disk.window.zeroed_bytes);
  }
  json::object object{{"subject", job_.subject},
                      {"done", received},
                      {"total", total},
                      {"copied-bytes", copied_bytes_},
                      {"phase", to_string(state_.phase)},
                      {"way", state_.is_cold ? "cold" : to_string(state_.way)},
                      {"word", operators_word(state_.phase)},
                      {"disks", std::move(disks)},
                      {"memory",
                       {{"total-bytes", memory_.memory_total_bytes},
                        {"processed-bytes", memory_.memory_processed_bytes},
                        {"remaining-bytes", memory_.memory_remaining_bytes},
                        {"bytes-per-second", memory_.memory_bytes_per_s},
                        {"dirty-pages-per-second", memory_.memory_dirty_pages_per_s},
                        {"iterations", memory_.memory_iterations}}}};
  if (state_.pause) {
    object["pause"] = {{"until-flush-us", state_.pause->until_flush_us},
                       {"drain-us", state_.pause->drain_us},
                       {"device-state-us", state_.pause->device_state_us},
                       {"total-us", state_.pause->total_us},
                       {"hypervisor-ms", state_.pause->hypervisor_ms}};
  }
  json::array timeline;
  for (const PhaseTime& time : state_.timeline)
    timeline.push_back({{"phase", to_string(time.phase)}, {"at-ms", time.at_ms}});
  object["timeline"] = std::move(timeline);
  object["warnings"] = json::array(state_.warnings.begin(), state_.warnings.end());
  object["leftovers"] = json::array(state_.leftovers.begin(), state_.leftovers.end());
  return json::serialize(object);
}

void Coordinator::set_bytes_per_s(std::uint64_t bytes_per_s) {
  bytes_per_s_ = bytes_per_s;
}

void Coordinator::set_max_pause_ms(std::uint64_t ms) {
  max_pause_ms_ = ms;
}

}  // namespace diskferry
