// The copying and the going over, which the hypervisor does; here it is asked for, watched, and told apart
// what came of it.
#include "diskferry/image_uri.hpp"
#include "diskferry/task_group.hpp"
#include "gateway/move/adoption.hpp"
#include "gateway/move/persistence.hpp"

#include <fmt/format.h>

#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
/// Each look is two short calls of libvirt.
constexpr Duration look_interval = std::chrono::milliseconds(250);
constexpr Duration ask_again_after = std::chrono::seconds(1);
}  // namespace

/// Which storage the disk is on, once nothing is copied any more. Waits for an answer for as long as the disk
/// may have gone over, which only the hypervisor knows.
Task<Result<DiskPlace>> Adoption::settle() {
  const bool may_be_over = record_.state().phase == Phase::switching;
  bool is_told = false;
  while (true) {
    const auto view = co_await disk_->look(false);
    if (view && view->place != DiskPlace::copying) co_return view->place;
    const auto ended = view ? co_await disk_->end_copy() : Result<void>(unexpected(view.error()));
    if (!view && !may_come_back(view.error())) co_return unexpected(view.error());
    if (!ended && !is_told)
      spdlog::warn("replacement {} of {}: {}; asked again until it is known where the disk is",
                   record_.job().id, printable(record_.job().subject), ended.error().message());
    is_told = is_told || !ended;
    if (is_gateway_stopping_ || (is_cancel_wanted_ && !may_be_over))
      co_return unexpected(cancelled_error("replace", record_.job().subject));
    DISKFERRY_CO_CHECK(co_await environment_.drivers.clock.sleep_for(ask_again_after));
  }
}

/// For whoever goes on.
Task<Result<void>> Adoption::note_bound(std::uint64_t bytes_per_s) {
  bounded_to_ = bytes_per_s;
  ReplaceLimits limits = limits_of(record_.request(), 0);
  limits.bytes_per_s = bytes_per_s;
  record_.state().limits = limits;
  co_return co_await record_.save({});
}

/// What is worth writing down, and telling.
Task<Result<void>> Adoption::note_view(const DomainDiskView& view) {
  if (view.job) {
    done_bytes_ = view.job->done_bytes;
    total_bytes_ = view.job->total_bytes;
  }
  tell_progress();
  if (const std::uint64_t wanted = bytes_per_s_; wanted != bounded_to_) {
    DISKFERRY_CO_CHECK(co_await disk_->set_bytes_per_s(wanted));
    DISKFERRY_CO_CHECK(co_await note_bound(wanted));
  }
  const bool is_ready = view.disk.mirror && view.disk.mirror->is_ready;
  const Phase phase = record_.state().phase;
  if (is_ready && phase == Phase::bulk) DISKFERRY_CO_CHECK(co_await record_.enter(Phase::delta));
  if (is_ready && record_.request().commit_by_hand && record_.state().phase == Phase::delta)
    DISKFERRY_CO_CHECK(co_await record_.enter(Phase::synchronized));
  co_return Result<void>{};
}

Task<Result<void>> Adoption::copy_until_ready() {
  while (true) {
    if (is_end_wanted()) co_return unexpected(cancelled_error("replace", record_.job().subject));
    const auto view = co_await disk_->look();
    if (!view && !may_come_back(view.error())) co_return unexpected(view.error());
    if (view && view->place == DiskPlace::target) co_return Result<void>{};
    if (view && view->place == DiskPlace::source)
      co_return unexpected(fail(ErrorKind::io, "copy the disk", printable(record_.job().subject))
                               .why(is_alive(view->machine)
                                        ? "the hypervisor has ended the copy; the disk is where it was"
                                        : "the machine was shut off; the disk is where it was")
                               .remedy("see the logs of the gateway and of the machine's QEMU for the first "
                                       "error, and begin again"));
    if (view) {
      if (const auto noted = co_await note_view(*view); !noted)
        spdlog::warn("replacement {}: {}", record_.job().id, noted.error().message());
      const ReplaceRequest& request = record_.request();
      const bool may_go =
          is_commit_wanted_ || (!request.commit_by_hand && environment_.now_ms() >= request.commit_at_ms);
      if (may_go && view->disk.mirror->is_ready) co_return Result<void>{};
    }
    DISKFERRY_CO_CHECK(co_await environment_.drivers.clock.sleep_for(look_interval));
  }
}

/// False: somebody has changed their mind while it was not in step.
///
/// The order is what makes it safe to be killed here. What QEMU was told is written is durable first. Then it
/// is written down that the disk may go over, and from there on whoever comes after offers the export at
/// once, before anything is asked: QEMU, which waits for it, has lost nothing. Only then is QEMU told to
/// wait, so that a guest that has gone over never sees an error.
Task<Result<bool>> Adoption::go_over() {
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  if (record_.state().phase == Phase::bulk) DISKFERRY_CO_CHECK(co_await record_.enter(Phase::delta));
  DISKFERRY_CO_CHECK(co_await record_.enter(Phase::synchronized));
  DISKFERRY_CO_CHECK(co_await destination_->make_lasting());
  DISKFERRY_CO_CHECK(co_await record_.enter(Phase::switching));
  DISKFERRY_CO_CHECK(co_await destination_->before_pivot());
  Clock& clock = environment_.drivers.clock;
  while (!is_end_wanted()) {
    const TimePoint begin = clock.now();
    const auto gone = co_await disk_->go_over();
    if (gone) {
      const std::uint64_t us = us_between(begin, clock.now());
      record_.state().hold = HoldParts{.switch_us = us, .total_us = us};
      co_return true;
    }
    // Not in step at that moment.
    if (gone.error().kind() == ErrorKind::in_use) {
      (void)co_await clock.sleep_for(look_interval);
      continue;
    }
    DISKFERRY_CO_TRY(const DiskPlace place, co_await settle());
    if (place == DiskPlace::target) co_return true;
    co_return unexpected(gone.error());
  }
  co_return false;
}

/// In a task of its own, which nothing cuts short.
Task<Result<bool>> Adoption::go_over_to_the_end() {
  if (const auto view = co_await disk_->look(false); view && view->place == DiskPlace::target) co_return true;
  Result<bool> result = false;
  TaskGroup whole(co_await boost::asio::this_coro::executor);
  whole.spawn(go_over_into(result));
  DISKFERRY_CO_CHECK(co_await whole.join());
  co_return result;
}

Task<Result<void>> Adoption::go_over_into(Result<bool>& result) {
  result = co_await go_over();
  co_return Result<void>{};
}

}  // namespace diskferry
