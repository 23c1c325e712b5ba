#include "gateway/move/cold_way.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/copy/copy_job.hpp"

#include <atomic>
#include <chrono>
#include <fmt/format.h>

#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

constexpr Duration progress_pause = std::chrono::milliseconds(500);
constexpr Duration finish_limit = std::chrono::seconds(30);

/// Tells the bus how far a disk is, at most twice a second.
class CopyProgress final : public ProgressSink {
 public:
  CopyProgress(MoveContext& move, std::string disk) : move_(move), disk_(std::move(disk)) {}
  void update(const ProgressUpdate& now) override {
    const auto time = move_.clock().now().time_since_epoch().count();
    auto last = last_.load();
    if (time - last < progress_pause.count() || !last_.compare_exchange_strong(last, time)) return;
    move_.tell_progress(fmt::format(R"({{"subject":"{}","phase":"{}","done":{},"total":{}}})", disk_,
                                    now.phase, now.bytes_done, now.bytes_total));
  }

 private:
  MoveContext& move_;
  const std::string disk_;
  std::atomic<Duration::rep> last_ = 0;
};

}  // namespace

Task<Result<void>> ColdWay::copy(const MoveDiskState& disk) {
  DISKFERRY_CO_TRY(const ImageUri source, ImageUri::parse(disk.source));
  std::string place = disk.uri;
  if (disk.route != DiskRoute::direct) {
    DISKFERRY_CO_TRY(place,
                     move_.gateway->export_uri({.export_name = disk.export_name}, move_.connections()));
  }
  DISKFERRY_CO_TRY(const ImageUri target, ImageUri::parse(place));
  CopyRequest request;
  request.source = source;
  request.source_options.format = disk.source_format;
  if (!disk.source_part.empty()) request.source_options.part = disk.source_part;
  request.target = target;
  request.target_format = "raw";  // the export shows the disk, whatever format it is kept in
  request.existing = CopyRequest::Existing::use;
  request.verify = move_.request.verify ? VerifyLevel::storage : VerifyLevel::none;
  request.bytes_per_s = move_.bytes_per_s;
  CopyProgress progress(move_, disk.target);
  auto copied = co_await copy_image(move_.environment.drivers, std::move(request), &progress);
  if (!copied) co_return unexpected(std::move(copied).error().in("copy " + disk.target));
  if (!copied->is_good())
    co_return unexpected(fail(ErrorKind::mismatch, "copy " + disk.target, printable(disk.source))
                             .why("the source changed while it was copied")
                             .remedy("find out who writes to it, and begin again"));
  move_.copied_bytes += copied->read_bytes;
  co_return Result<void>{};
}

Task<Result<void>> ColdWay::migrate() {
  DISKFERRY_CO_CHECK(co_await move_.enter(Phase::bulk));
  for (const MoveDiskState& disk : move_.state.disks)
    if (disk.route != DiskRoute::shared) DISKFERRY_CO_CHECK(co_await copy(disk));
  // The machine must not have been started meanwhile: what was copied would be its past.
  DISKFERRY_CO_TRY(const VmState now, co_await ends_.source->state(move_.job.subject));
  if (now != VmState::shut_off)
    co_return unexpected(fail(ErrorKind::in_use, "migrate", printable(move_.job.subject))
                             .why("the machine was started while it was copied")
                             .remedy("shut it down and begin again, or move it running"));
  DISKFERRY_CO_CHECK(co_await move_.enter(Phase::synchronized));
  co_return co_await switch_over();
}

Task<Result<void>> ColdWay::switch_over() {
  DISKFERRY_CO_CHECK(co_await move_.enter(Phase::switching));
  // The disks first, so that who starts the machine there finds them free.
  DISKFERRY_CO_CHECK(co_await move_.finish_target(TargetEnd::leave, finish_limit));
  co_return co_await ends_.target->define(move_.state.persistent_xml);
}

Task<Result<void>> ColdWay::settle() {
  // Defined there and nowhere running: it can be told from the definition alone.
  if (move_.state.phase == Phase::switching) co_return co_await switch_over();
  co_return unexpected(
      fail(ErrorKind::gone, "migrate", move_.job.subject).why("the gateway ended while it copied"));
}

Task<Result<void>> ColdWay::take_from_target() {
  DISKFERRY_CO_TRY(const VmState there, co_await ends_.target->state(move_.job.subject));
  if (there != VmState::shut_off && there != VmState::absent)
    co_return unexpected(fail(ErrorKind::in_use, "take the move back", move_.job.id)
                             .why("the machine runs on the other host")
                             .remedy("shut it down there, or move it back from there"));
  DISKFERRY_CO_CHECK(co_await move_.enter(Phase::aborting));
  if (there == VmState::shut_off) DISKFERRY_CO_CHECK(co_await ends_.target->undefine(move_.job.subject));
  co_return Result<void>{};
}

}  // namespace diskferry
