// How a replacement stands, for those who watch it. The names of the fields are part of the interface.
#include "gateway/move/replacement_disk.hpp"
#include "gateway/move/state_fields.hpp"

namespace diskferry {

namespace {
/// Zeros at the target, since it could not be read.
struct UnreadablePlace {
  const ReplaceDiskState* disk = nullptr;
  Range range{};
};
constexpr std::size_t places_reported_max = 1024;  // the state has them all

struct View {
  std::string subject{};
  const ReplaceState* state = nullptr;
  std::vector<ReplacedDiskView> disks{};
  std::vector<UnreadablePlace> unreadable{};
};
}  // namespace

template <class Fields>
static void list_fields(Fields& fields, const UnreadablePlace& place) {
  fields.take("disk", place.disk->name);
  fields.take("storage", place.disk->source);
  fields.take("offset", place.range.offset);
  fields.take("length", place.range.length);
}

template <class Fields>
static void list_fields(Fields& fields, const ReplacedDiskView& disk) {
  const MirrorStats& mirror = disk.stats.mirror;
  fields.take("disk", disk.stats.name);
  fields.take("size-bytes", disk.stats.size_bytes);
  fields.take("frontier-bytes", disk.stats.frontier_bytes);
  fields.take("copied-bytes", mirror.copied_bytes);
  fields.take("dirty-bytes", mirror.dirty_bytes);
  fields.take("unreadable-bytes", disk.stats.unreadable_bytes);
  fields.take("sent-bytes", disk.stats.window.sent_bytes);
  fields.take("resent-bytes", disk.stats.window.resent_bytes);
  fields.take("pending-bytes", disk.stats.window.pending_bytes);
  fields.take("guest-bytes", mirror.guest_bytes);
  fields.take("mirrored-bytes", mirror.mirrored_bytes);
  fields.take("spilled-bytes", mirror.spilled_bytes);
  fields.take("overtaken-bytes", mirror.overtaken_bytes);
  fields.take("write-p50-us", mirror.latency.p50_us);
  fields.take("write-p99-us", mirror.latency.p99_us);
  fields.take("added-p50-us", mirror.added.p50_us);
  fields.take("added-p99-us", mirror.added.p99_us);
  fields.take("bytes-per-second", disk.stats.window.bytes_per_s);
  fields.take("mode", std::string(to_string(mirror.mode)));
  fields.take("mode-reason", disk.why);
  fields.take("guest-bytes-per-second-max", disk.step.guest_bytes_per_s);
  if (disk.step.eta)
    fields.take("eta-ms", static_cast<std::int64_t>(
                              std::chrono::duration_cast<std::chrono::milliseconds>(*disk.step.eta).count()));
  if (disk.step.pause != Duration::max())
    fields.take("predicted-pause-ms",
                static_cast<std::int64_t>(
                    std::chrono::duration_cast<std::chrono::milliseconds>(disk.step.pause).count()));
}

template <class Fields>
static void list_fields(Fields& fields, const View& view) {
  std::uint64_t total = 0;
  std::uint64_t left = 0;
  for (const ReplacedDiskView& disk : view.disks) {
    total += disk.stats.size_bytes;
    left += disk.stats.mirror.dirty_bytes;
  }
  fields.take("subject", view.subject);
  fields.take("done", total > left ? total - left : 0);
  fields.take("total", total);
  fields.take("phase", view.state->phase, phase_words);
  fields.take("word", std::string(operators_word(view.state->phase)));
  fields.take_list("disks", view.disks);
  list_outcome(fields, *view.state);
  fields.take_list("unreadable", view.unreadable);
}

std::vector<ReplacedDiskView> Replacement::views() const {
  std::vector<ReplacedDiskView> all;
  for (const Disk& each : disks_) all.push_back({each.disk.stats(), each.step, each.why});
  return all;
}

std::string Replacement::report() const {
  View view{.subject = job_.subject, .state = &state_, .disks = disks_.empty() ? last_views_ : views()};
  for (const ReplaceDiskState& disk : state_.disks)
    for (const Range range : disk.unreadable)
      if (view.unreadable.size() < places_reported_max) view.unreadable.push_back({&disk, range});
  return write_json(view);
}

/// Without the places, which may be many.
std::string Replacement::progress() const {
  return write_json(
      View{.subject = job_.subject, .state = &state_, .disks = disks_.empty() ? last_views_ : views()});
}

}  // namespace diskferry
