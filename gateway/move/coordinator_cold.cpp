// A machine that is shut off: its disks are copied by the same engine as any image, its definition goes over,
// and the source keeps both until it is released. Nobody writes meanwhile, so there is no delta and no
// barrier.
#include "diskferry/image_uri.hpp"
#include "gateway/copy/copy_job.hpp"
#include "gateway/jobs/event_bus.hpp"
#include "gateway/move/coordinator.hpp"

#include <fmt/format.h>

#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

constexpr Duration progress_pause = std::chrono::milliseconds(500);
constexpr Duration finish_limit = std::chrono::seconds(30);

}  // namespace

/// Tells the bus how far a disk is, at most twice a second.
class Coordinator::CopyProgress final : public ProgressSink {
 public:
  CopyProgress(Coordinator& coordinator, std::string disk)
      : coordinator_(coordinator), disk_(std::move(disk)) {}
  void update(const ProgressUpdate& now) override {
    const auto time = coordinator_.environment_.drivers.clock.now().time_since_epoch().count();
    auto last = last_.load();
    if (time - last < progress_pause.count() || !last_.compare_exchange_strong(last, time)) return;
    coordinator_.environment_.bus.publish(
        {.job = coordinator_.job_.id,
         .sequence = 0,
         .kind = std::string(progress_event),
         .text = fmt::format(R"({{"subject":"{}","phase":"{}","done":{},"total":{}}})", disk_, now.phase,
                             now.bytes_done, now.bytes_total)});
  }

 private:
  Coordinator& coordinator_;
  const std::string disk_;
  std::atomic<Duration::rep> last_ = 0;
};

Task<Result<void>> Coordinator::copy_cold() {
  DISKFERRY_CO_CHECK(co_await enter(Phase::bulk));
  for (const MoveDiskState& disk : state_.disks) {
    if (disk.route == DiskRoute::shared) continue;
    DISKFERRY_CO_TRY(const ImageUri source, ImageUri::parse(disk.source));
    std::string place = disk.uri;
    if (disk.route != DiskRoute::direct) {
      DISKFERRY_CO_TRY(place, gateway_->export_uri({.export_name = disk.export_name}, connections()));
    }
    DISKFERRY_CO_TRY(const ImageUri target, ImageUri::parse(place));
    CopyRequest copy;
    copy.source = source;
    copy.source_options.format = disk.source_format;
    copy.target = target;
    copy.target_format = "raw";  // the export shows the disk, whatever format it is kept in
    copy.existing = CopyRequest::Existing::use;
    copy.verify = request_.verify ? VerifyLevel::storage : VerifyLevel::none;
    copy.bytes_per_s = bytes_per_s_;
    CopyProgress progress(*this, disk.target);
    auto copied = co_await copy_image(environment_.drivers, std::move(copy), &progress);
    if (!copied) co_return unexpected(std::move(copied).error().in("copy " + disk.target));
    if (!copied->is_good())
      co_return unexpected(fail(ErrorKind::mismatch, "copy " + disk.target, printable(disk.source))
                               .why("the source changed while it was copied")
                               .remedy("find out who writes to it, and begin again"));
    copied_bytes_ += copied->read_bytes;
  }
  // The machine must not have been started meanwhile: what was copied would be its past.
  DISKFERRY_CO_TRY(const VmState now, co_await source_->state(job_.subject));
  if (now != VmState::shut_off)
    co_return unexpected(fail(ErrorKind::in_use, "migrate", printable(job_.subject))
                             .why("the machine was started while it was copied")
                             .remedy("shut it down and begin again, or move it running"));
  DISKFERRY_CO_CHECK(co_await enter(Phase::synchronized));
  co_return co_await switch_cold();
}

Task<Result<void>> Coordinator::switch_cold() {
  DISKFERRY_CO_CHECK(co_await enter(Phase::switching));
  // The disks first, so that who starts the machine there finds them free.
  DISKFERRY_CO_CHECK(co_await finish_target(TargetEnd::leave, finish_limit));
  DISKFERRY_CO_CHECK(co_await target_->define(state_.persistent_xml));
  outcome_ = Outcome::committed;
  co_return Result<void>{};
}

}  // namespace diskferry
