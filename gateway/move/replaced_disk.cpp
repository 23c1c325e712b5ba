// See the header. Guests never wait here, but where the job has their writes held.
#include "gateway/move/replaced_disk.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/align.hpp"
#include "drivers/filters/slice.hpp"
#include "drivers/image/image.hpp"
#include "drivers/registry.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "gateway/copy/target.hpp"
#include "gateway/move/mirror_work.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>

#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/this_coro.hpp>

namespace diskferry {
namespace {

/// Guests wait behind each on a busy processor: with 512 KiB 1 of 100 writes waited 12 to 19 ms during a
/// copy, with this 4 to 8, and it took no longer. More than what the window takes for a guest's.
constexpr std::uint64_t request_bytes = 128 * kib;
constexpr unsigned requests = 16;
/// What is settled is forgotten so often; a crash or a target that is lost costs what was told meanwhile.
constexpr Duration checkpoint_interval = std::chrono::seconds(5);
/// What a target that is let go has for its last flush.
constexpr Duration last_checkpoint_max = std::chrono::seconds(2);
/// Between rounds that found nothing.
constexpr Duration round_pause = std::chrono::milliseconds(100);
constexpr Duration age = std::chrono::seconds(2);
/// Disks take their time over what they cannot read.
constexpr Duration look_again_after = std::chrono::seconds(5);

CopyRequest creation(const ImageUri& uri, const ReplaceDiskState& state, bool may_overwrite) {
  CopyRequest copy;
  copy.target = uri;
  copy.target_format = state.format;
  copy.existing = may_overwrite ? CopyRequest::Existing::overwrite : CopyRequest::Existing::refuse;
  return copy;
}

/// A device together with what has to live as long.
template <class Kept>
std::shared_ptr<BlockDevice> holding(std::shared_ptr<BlockDevice> device, Kept kept) {
  struct Both {
    Kept kept;
    std::shared_ptr<BlockDevice> device;
  };
  auto both = std::make_shared<Both>(std::move(kept), std::move(device));
  return {both, both->device.get()};
}

}  // namespace

ReplacedDisk::ReplacedDisk(DriverContext& context, Endpoints& endpoints, ReplaceDiskState& state,
                           ReplacedDiskOptions options)
    : context_(context),
      endpoints_(endpoints),
      state_(state),
      options_(std::move(options)),
      salvage_(state.unreadable) {}

ReplacedDisk::~ReplacedDisk() {
  DISKFERRY_ASSERT(!is_borrowed_, "a replaced disk has ended before it is destroyed");
}

// --- before anything moves --------------------------------------------------------------------------------

Task<Result<void>> ReplacedDisk::look() {
  DISKFERRY_CO_TRY(lent_, endpoints_.borrow(state_.name));
  is_borrowed_ = true;
  state_.source = lent_.uri;
  state_.source_format = lent_.format;
  state_.source_storages = lent_.storages;
  state_.configured = lent_.configured;
  state_.size_bytes = lent_.device->size_bytes();
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(state_.uri));
  if (state_.format.empty()) state_.format = format_for_target(uri);
  const CopyRequest copy = creation(uri, state_, options_.overwrite || options_.was_made);
  DISKFERRY_CO_TRY(const TargetState target, co_await look_at_sized_target(context_, copy));
  DISKFERRY_CO_CHECK(decide_target(target, copy));
  std::vector<ImageUri> layers;
  for (const std::string& layer : lent_.storages) {
    DISKFERRY_CO_TRY(layers.emplace_back(), ImageUri::parse(layer));
  }
  DISKFERRY_CO_TRY(const auto seen, co_await look_at_layers(context_, std::move(layers)));
  DISKFERRY_CO_CHECK(refuse_same_storage(seen, target, uri));
  DISKFERRY_CO_TRY(const ImageUri source, ImageUri::parse(state_.source));
  DISKFERRY_CO_TRY(const VolumeFacts source_facts, co_await look_at_volume(context_, source, {}));
  state_.source_identity = source_facts.identity;
  if (!target.volume.obstacles.empty()) co_return unexpected(target.volume.obstacles.front());
  DISKFERRY_CO_CHECK(refuse_too_small(target, copy, state_.size_bytes));
  makes_target_ = !target.volume.exists;
  co_return Result<void>{};
}

Task<Result<void>> ReplacedDisk::make_target() {
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(state_.uri));
  const CopyRequest copy = creation(uri, state_, options_.overwrite || options_.was_made);
  DISKFERRY_CO_TRY(const TargetState target, co_await look_at_target(context_, copy));
  DISKFERRY_CO_TRY(const TargetAction action, decide_target(target, copy));
  if (action != TargetAction::open)
    DISKFERRY_CO_CHECK(co_await create_target(context_, copy, state_.size_bytes));
  co_return Result<void>{};
}

Task<Result<void>> ReplacedDisk::identify_target() {
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(state_.uri));
  DISKFERRY_CO_TRY(const VolumeFacts made, co_await look_at_volume(context_, uri, {}));
  state_.target_identity = made.identity;
  co_return Result<void>{};
}

Task<Result<std::shared_ptr<BlockDevice>>> ReplacedDisk::open_side(std::string name, std::string format) {
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(name));
  // What it loses as a target is copied again; see switch_over().
  auto keeps = std::make_shared<std::atomic<bool>>(false);
  DISKFERRY_CO_TRY(Image image,
                   co_await open_image(
                       context_, uri,
                       {.format = format,
                        .writable = true,
                        .connections = options_.connections,
                        .keep = KeepOptions{.is_on = keeps, .on_reopened = log_of_reopened(state_.name)}}));
  const std::shared_ptr<BlockDevice>& device = image.shared_device();
  if (device->size_bytes() < state_.size_bytes) {
    const Error error = too_small(uri, device->size_bytes(), state_.size_bytes);
    (void)co_await device->close();
    co_return unexpected(error);
  }
  auto part = slice_of(device, {0, state_.size_bytes});
  if (!part) {
    (void)co_await device->close();
    co_return unexpected(std::move(part).error());
  }
  target_keeps_ = std::move(keeps);
  co_return with_byte_granularity(*std::move(part));
}

// --- the mirror -------------------------------------------------------------------------------------------

Task<Result<void>> ReplacedDisk::begin(bool is_again, bool target_is_in_charge) {
  auto begun = co_await begin_now(is_again, target_is_in_charge);
  // As in end().
  if (!begun) (void)remove_map();
  co_return begun;
}

/// False: it is there still.
bool ReplacedDisk::remove_map() const {
  std::error_code failed;
  std::filesystem::remove(options_.map_path, failed);
  return !failed;
}

/// An edited configuration may have put the export elsewhere, which then is the truth.
Result<void> ReplacedDisk::check_place(bool target_is_in_charge) const {
  const std::string& place = target_is_in_charge ? state_.uri : state_.source;
  if (lent_.uri == place) return {};
  return unexpected(fail(ErrorKind::mismatch, "mirror", printable(state_.name))
                        .why(fmt::format("it is at {} now, and the job left it at {}", shown_name(lent_.uri),
                                         shown_name(place)))
                        .remedy("have the configuration name the former image again, or cancel the job"));
}

Task<Result<void>> ReplacedDisk::begin_now(bool is_again, bool target_is_in_charge) {
  if (!is_borrowed_) {
    DISKFERRY_CO_TRY(lent_, endpoints_.borrow(state_.name));
    is_borrowed_ = true;
  }
  // What the commit writes down is compared with the configuration of today.
  state_.configured = lent_.configured;
  DISKFERRY_CO_CHECK(check_place(target_is_in_charge));
  if (lent_.device->size_bytes() != state_.size_bytes)
    co_return unexpected(fail(ErrorKind::mismatch, "mirror", printable(state_.name))
                             .why(fmt::format("its storage has {} bytes and had {}",
                                              lent_.device->size_bytes(), state_.size_bytes))
                             .remedy("give the storage its former size, or cancel the job"));
  const DifferenceShape shape = difference_shape(state_.size_bytes);
  const std::string key =
      fmt::format("{}\n{}\n{}\n{}", state_.name, state_.source, state_.uri, state_.target_identity);
  auto map = co_await context_.blocking_pool.run([&] {
    if (is_again) {
      auto found = DifferenceFile::open(options_.map_path, shape, key);
      if (found) return found;
    }
    return DifferenceFile::create(options_.map_path, shape, key);
  });
  if (!map) co_return unexpected(std::move(map).error());
  std::shared_ptr<DifferenceFile> kept = *std::move(map);
  auto mirror = std::make_unique<MirrorDevice>(
      context_, lent_.device,
      MirrorOptions{.latency_max = options_.latency_max, .kept = kept->words(), .pace = options_.pace});
  mirror_ = mirror.get();
  primary_keeps_ = lent_.keeps_unflushed;
  checked_mirror_ = holding(std::shared_ptr<BlockDevice>(checked(std::move(mirror))), kept);
  if (auto put = co_await endpoints_.put(state_.name, checked_mirror_); !put) {
    (void)mirror_->dissolve();
    mirror_ = nullptr;
    checked_mirror_.reset();
    co_return put;
  }
  co_return Result<void>{};
}

Task<Result<void>> ReplacedDisk::attach(bool is_back) {
  // Open still, where it was not kept in step.
  if (const auto former = co_await mirror_->take_former()) (void)co_await former->close();
  DISKFERRY_CO_CHECK(is_back ? co_await check_follower(state_.source, state_.source_identity)
                             : co_await check_follower(state_.uri, state_.target_identity));
  DISKFERRY_CO_TRY(auto target, is_back ? co_await open_side(state_.source, state_.source_format)
                                        : co_await open_side(state_.uri, state_.format));
  mirror_->attach(std::move(target), {.window_bytes = options_.window_bytes});
  is_in_step_ = false;
  old_is_primary_ = !is_back;
  co_return Result<void>{};
}

/// Another storage that has come to be under its name has nothing of the disk.
Task<Result<void>> ReplacedDisk::check_follower(std::string name, std::string identity) {
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(name));
  DISKFERRY_CO_TRY(const VolumeFacts now, co_await look_at_volume(context_, uri, {}));
  if (now.identity == identity) co_return Result<void>{};
  co_return unexpected(fail(ErrorKind::mismatch, "follow", uri.to_string())
                           .why("it is not the storage that was there when the job began")
                           .remedy("put that back, or cancel the job and begin another"));
}

Task<void> ReplacedDisk::let_target_go(bool may_come_back) {
  is_in_step_ = false;
  // Nobody is slowed down for what does not follow.
  mirror_->set_guest_bytes_per_s(0);
  // What the target has been told and has not made durable would be copied again. One that fails says so at
  // once, or in this time.
  if (may_come_back)
    (void)co_await with_deadline(context_.clock, last_checkpoint_max, "flush the target", checkpoint());
  if (const auto target = co_await mirror_->detach()) (void)co_await target->close();
}

// --- copying ----------------------------------------------------------------------------------------------

namespace {
EngineOptions engine_options(const BlockDevice& target) {
  return {.request_bytes = request_bytes,
          .requests = requests,
          .granularity_bytes = std::max<std::uint64_t>(4096, target.info().block_bytes)};
}
}  // namespace

Task<Result<void>> ReplacedDisk::bulk(CopyEngine& engine, BlockDevice& primary, BlockDevice& target) {
  const std::uint64_t granule = difference_shape(state_.size_bytes).granule_bytes;
  CopyPlan plan({primary, &target}, {.source_bytes = state_.size_bytes,
                                     .target_bytes = state_.size_bytes,
                                     .align_bytes = granule,
                                     .request_bytes = std::max(request_bytes, granule)});
  MirrorWork work(*mirror_, &plan,
                  {.request_bytes = std::max(request_bytes, granule), .paced_by = &context_.clock});
  co_return co_await engine.run(work);
}

Task<Result<void>> ReplacedDisk::rounds(CopyEngine& engine, BlockDevice& primary) {
  TimePoint aged = context_.clock.now();
  std::optional<std::uint64_t> first_round;
  while (!co_await is_cancelled()) {
    if (old_is_primary_) DISKFERRY_CO_CHECK(co_await take_up_loss(primary));
    const std::uint64_t before = mirror_->stats().copied_bytes;
    MirrorWork work(*mirror_, nullptr,
                    {.request_bytes = request_bytes, .skip_recent = true, .paced_by = &context_.clock});
    DISKFERRY_CO_CHECK(co_await engine.run(work));
    ++rounds_;
    // What it had copied may wait in the window for long.
    if (!first_round) first_round = mirror_->mark_pending();
    is_in_step_ = is_in_step_ || mirror_->has_settled(*first_round);
    if (auto failure = mirror_->target_failure()) co_return unexpected(*std::move(failure));
    if (context_.clock.now() - aged >= age) {
      mirror_->next_age();
      aged = context_.clock.now();
    }
    if (mirror_->stats().copied_bytes == before)
      DISKFERRY_CO_CHECK(co_await context_.clock.sleep_for(round_pause));
  }
  co_return unexpected(cancelled_error("copy", state_.name));
}

Task<Result<void>> ReplacedDisk::checkpoints() {
  while (true) {
    DISKFERRY_CO_CHECK(co_await context_.clock.sleep_for(checkpoint_interval));
    DISKFERRY_CO_CHECK(co_await checkpoint());
  }
}

/// What was skipped is forgotten only when the job's record has it.
Task<Result<void>> ReplacedDisk::checkpoint() {
  if (loss_noted_ != salvage_.changes()) co_return Result<void>{};
  co_return co_await mirror_->checkpoint();
}

namespace {
/// Ends the others when it fails.
Task<Result<void>> or_end(Task<Result<void>> task, TaskGroup& others) {
  auto ended = co_await std::move(task);
  others.cancel();
  co_return ended;
}
}  // namespace

Task<Result<void>> ReplacedDisk::copy_all(CopyEngine& engine, BlockDevice& primary, BlockDevice& target) {
  if (!is_bulk_done_) DISKFERRY_CO_CHECK(co_await bulk(engine, primary, target));
  is_bulk_done_ = true;
  co_return co_await rounds(engine, primary);
}

Task<Result<void>> ReplacedDisk::follow() {
  const auto primary = mirror_->primary();
  const auto target = mirror_->copy_target();
  CopyEngine engine(context_, {*primary, *target}, engine_options(*target),
                    hooks([this, &engine] { frontier_bytes_ = engine.counters().done_bytes.load(); }));
  TaskGroup both(co_await boost::asio::this_coro::executor);
  both.spawn(or_end(copy_all(engine, *primary, *target), both));
  both.spawn(or_end(checkpoints(), both));
  co_return co_await both.join();
}

Task<Result<void>> ReplacedDisk::copy_rest() {
  const auto primary = mirror_->primary();
  const auto target = mirror_->copy_target();
  CopyEngine engine(context_, {*primary, *target}, engine_options(*target), hooks({}));
  while (mirror_->dirty_bytes() > 0) {
    if (co_await is_cancelled()) co_return unexpected(cancelled_error("copy", state_.name));
    MirrorWork work(*mirror_, nullptr, {.request_bytes = request_bytes});
    DISKFERRY_CO_CHECK(co_await engine.run(work));
  }
  co_return Result<void>{};
}

// --- what cannot be read ----------------------------------------------------------------------------------

EngineHooks ReplacedDisk::hooks(std::function<void()> progress) {
  salvage_.clear_failure();
  return {.progress = std::move(progress), .salvage = old_is_primary_ ? &salvage_ : nullptr};
}

/// What was skipped is copied where it can be read by now, a guest having written there, and all of it where
/// it must not be skipped any more. The target has zeros there, or what a guest has written since.
Task<Result<void>> ReplacedDisk::take_up_loss(BlockDevice& primary) {
  if (!salvage_.skips()) {
    for (const Range range : salvage_.forget()) mirror_->mark_dirty(range);
    co_return Result<void>{};
  }
  const TimePoint begin = context_.clock.now();
  if (salvage_.lost_bytes() == 0 || begin < look_again_at_) co_return Result<void>{};
  DISKFERRY_CO_TRY(const std::vector<Range> found, co_await salvage_.look_again(primary));
  for (const Range range : found) mirror_->mark_dirty(range);
  const TimePoint end = context_.clock.now();
  look_again_at_ = Clock::after(end, std::max(look_again_after, 10 * (end - begin)));
  co_return Result<void>{};
}

bool ReplacedDisk::has_loss_to_take_up() const {
  return old_is_primary_ && !salvage_.skips() && salvage_.lost_bytes() != 0;
}

bool ReplacedDisk::note_loss() {
  const std::uint64_t changes = salvage_.changes();
  if (changes == loss_noted_) return false;
  state_.unreadable = salvage_.lost();
  loss_noted_ = changes;
  return true;
}

// --- changing places --------------------------------------------------------------------------------------

Task<Result<void>> ReplacedDisk::make_durable() {
  TaskGroup both(co_await boost::asio::this_coro::executor);
  const auto primary = mirror_->primary();
  both.spawn(mirror_->checkpoint());
  both.spawn(primary->flush());
  co_return co_await both.join();
}

Task<void> ReplacedDisk::switch_over(bool keep_in_step) {
  // Both are durable, and nobody writes.
  if (target_keeps_) target_keeps_->store(true);
  if (primary_keeps_) primary_keeps_->store(false);
  primary_keeps_.swap(target_keeps_);
  co_await mirror_->switch_over();
  old_is_primary_ = !old_is_primary_;
  if (keep_in_step) mirror_->attach_former({.window_bytes = options_.window_bytes});
}

Task<Result<void>> ReplacedDisk::end(bool target_is_in_charge) {
  if (!is_borrowed_) co_return Result<void>{};
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  if (mirror_ == nullptr) {
    endpoints_.give_back(state_.name, std::move(lent_));
    is_borrowed_ = false;
    co_return Result<void>{};
  }
  // Clients that do not go through the mirror any more are not followed by what is attached.
  co_await let_target_go(false);
  // What is written without the mirror is not in the map, so that no later process may believe it.
  const bool is_map_removed = remove_map();
  if (target_is_in_charge) {
    lent_.uri = state_.uri;
    lent_.format = state_.format;
    lent_.storages = {state_.uri};
  } else {
    // An earlier process may have begun when the target was in charge.
    lent_.uri = state_.source;
    lent_.format = state_.source_format;
    lent_.storages = state_.source_storages;
  }
  const bool is_put = is_map_removed && co_await endpoints_.put(state_.name, mirror_->primary());
  if (const auto former = co_await mirror_->take_former()) (void)co_await former->close();
  if (!is_put) {
    // Also where it can do less than clients were promised: the mirror stays in front of it.
    leave();
    co_return Result<void>{};
  }
  lent_.device = mirror_->dissolve();
  lent_.keeps_unflushed = std::move(primary_keeps_);
  checked_mirror_.reset();
  mirror_ = nullptr;
  endpoints_.give_back(state_.name, std::move(lent_));
  is_borrowed_ = false;
  co_return Result<void>{};
}

void ReplacedDisk::leave() {
  if (!is_borrowed_) return;
  if (checked_mirror_) lent_.device = checked_mirror_;
  checked_mirror_.reset();
  mirror_ = nullptr;
  endpoints_.give_back(state_.name, std::move(lent_));
  is_borrowed_ = false;
}

ReplacedDiskStats ReplacedDisk::stats() const {
  ReplacedDiskStats stats{.name = state_.name,
                          .size_bytes = state_.size_bytes,
                          .frontier_bytes = std::min(state_.size_bytes, frontier_bytes_.load()),
                          .rounds = rounds_};
  stats.unreadable_bytes = salvage_.lost_bytes();
  if (mirror_ == nullptr) return stats;
  stats.mirror = mirror_->stats();
  stats.window = mirror_->window_stats();
  return stats;
}

}  // namespace diskferry
