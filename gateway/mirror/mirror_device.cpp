// The mirror's owner's side: targets that come and go, and the switchover. See mirror_device.hpp; guests'
// writes are in mirror_write.cpp, copies in mirror_copy.cpp.
#include "gateway/mirror/mirror_device.hpp"

#include "diskferry/assert.hpp"
#include "drivers/checked_device.hpp"

namespace diskferry {

std::string_view to_string(MirrorMode mode) noexcept {
  switch (mode) {
    case MirrorMode::background:
      return "background";
    case MirrorMode::bounded:
      return "bounded";
    case MirrorMode::synchronous:
      return "synchronous";
  }
  return "unknown";
}

MirrorDevice::MirrorDevice(DriverContext& context, std::shared_ptr<BlockDevice> primary,
                           MirrorOptions options)
    : context_(context),
      size_bytes_(primary->size_bytes()),
      info_([&] {
        DeviceInfo info = primary->info();
        info.can_grow = false;
        info.starts_zeroed = false;  // that was when it was opened
        return info;
      }()),
      guest_limit_(context.clock, options.guest_bytes_per_s),
      pace_(options.pace ? std::move(options.pace) : std::make_shared<CopyPace>()),
      primary_(std::make_shared<Primary>(std::move(primary))),
      differences_(options.granule_bytes == 0 ? difference_shape(size_bytes_)
                                              : DifferenceShape{size_bytes_, options.granule_bytes},
                   options.kept),
      mode_(options.mode),
      latency_max_(options.latency_max) {
  DISKFERRY_ASSERT(!info_.is_read_only, "what is mirrored is written to");
}

MirrorDevice::~MirrorDevice() {
  DISKFERRY_ASSERT(!primary_ && !target_.device, "a mirror is closed before it is destroyed");
}

Task<Result<void>> MirrorDevice::close() {
  const Target target = co_await take_target();
  std::vector<std::shared_ptr<BlockDevice>> devices{target.device};
  {
    std::lock_guard lock(guard_);
    if (former_follows_) former_.reset();
    for (auto* one : {&former_, &primary_})
      if (const auto used = std::exchange(*one, nullptr)) devices.push_back(used->device);
  }
  Result<void> result;
  for (const auto& device : devices) {
    if (!device) continue;
    auto closed = co_await device->close();
    if (!closed) result = std::move(closed);
  }
  co_return result;
}

std::shared_ptr<BlockDevice> MirrorDevice::primary() const {
  std::lock_guard lock(guard_);
  return primary_->device;
}
MirrorDevice::Target MirrorDevice::target() const {
  std::lock_guard lock(guard_);
  return target_;
}
std::shared_ptr<BlockDevice> MirrorDevice::copy_target() const {
  return target().checked_window;
}

std::uint64_t MirrorDevice::repeated_requests() const noexcept {
  const Target followed = target();
  return primary()->repeated_requests() + (followed.device ? followed.device->repeated_requests() : 0);
}
void MirrorDevice::stop_waiting() noexcept {
  primary()->stop_waiting();
  if (const Target followed = target(); followed.device) followed.device->stop_waiting();
}

// --- the target -------------------------------------------------------------------------------------------

void MirrorDevice::attach(std::shared_ptr<BlockDevice> target, WindowOptions options) {
  DISKFERRY_ASSERT(target->size_bytes() == size_bytes_, "a target has the primary's size");
  DISKFERRY_ASSERT(target->info().block_bytes <= info_.block_bytes, "a target takes what guests write");
  Target attached{.device = std::move(target)};
  auto window = std::make_unique<Window>(context_, attached.device, std::move(options));
  Window* const made = window.get();
  attached.checked_window = checked(std::move(window));
  attached.window = std::shared_ptr<Window>(attached.checked_window, made);
  std::lock_guard lock(guard_);
  DISKFERRY_ASSERT(!target_.device, "a mirror has one target");
  target_ = std::move(attached);
  // What was written while nothing followed is not what guests keep writing.
  differences_.forget_recent();
}

void MirrorDevice::attach_same(std::shared_ptr<BlockDevice> target, WindowOptions options) {
  options.is_used = true;
  attach(std::move(target), std::move(options));
  std::lock_guard lock(guard_);
  DISKFERRY_ASSERT(in_flight_.writes().empty(), "nothing is written while the target is said to be the same");
  differences_.mark_all_settled();
}

/// The window stopped and used by nobody any more, and what it stood in front of.
Task<MirrorDevice::Target> MirrorDevice::take_target() {
  Target taken;
  {
    std::lock_guard lock(guard_);
    taken = std::exchange(target_, {});
    ending_window_ = taken.window;
    target_failure_.reset();
    if (taken.device) differences_.lose_unsettled();
  }
  if (!taken.device) co_return taken;
  (void)co_await taken.window->stop();
  // Those who began before have the window; it answers none of them any more.
  std::unique_lock lock(guard_);
  while (target_users_ != 0 || !in_flight_.copies().empty() || (former_follows_ && former_->users != 0)) {
    co_await exits_.wait_uncancelled(lock);
    lock.lock();
  }
  if (std::exchange(former_follows_, false)) former_.reset();
  ended_windows_.add_counters_of(taken.window->stats());
  ending_window_.reset();
  co_return taken;
}

Task<std::shared_ptr<BlockDevice>> MirrorDevice::detach() {
  co_return (co_await take_target()).device;
}

std::optional<Error> MirrorDevice::target_failure() const {
  std::lock_guard lock(guard_);
  return target_failure_;
}
WindowStats MirrorDevice::window_stats() const {
  std::lock_guard lock(guard_);
  const auto& present = target_.window ? target_.window : ending_window_;
  WindowStats stats = present ? present->stats() : WindowStats{};
  stats.add_counters_of(ended_windows_);
  return stats;
}

std::uint64_t MirrorDevice::mark_pending() {
  const Target followed = target();
  DISKFERRY_ASSERT(followed.window, "what is pending is so for a target");
  return followed.window->mark();
}
bool MirrorDevice::has_settled(std::uint64_t mark) const {
  const Target followed = target();
  return followed.window && followed.window->has_settled(mark);
}

/// guard_ is held.
void MirrorDevice::fail_target(const Error& error) {
  if (target_.device && !target_failure_) target_failure_ = error;
}

// --- switchover -------------------------------------------------------------------------------------------

Task<Result<void>> MirrorDevice::hold() {
  std::unique_lock lock(guard_);
  is_held_ = true;
  while (!in_flight_.writes().empty()) {
    const bool woken = co_await exits_.wait(lock);
    lock.lock();
    if (woken) continue;
    is_held_ = false;
    entrance_.wake_all();
    co_return unexpected(cancelled_error("hold the guest's writes", info_.name));
  }
  co_return Result<void>{};
}

void MirrorDevice::let_go() {
  std::lock_guard lock(guard_);
  is_held_ = false;
  entrance_.wake_all();
}

Task<void> MirrorDevice::switch_over() {
  {
    std::lock_guard lock(guard_);
    DISKFERRY_ASSERT(is_held_ && in_flight_.writes().empty() && in_flight_.copies().empty(),
                     "nobody writes during the switchover");
    DISKFERRY_ASSERT(target_.device && !target_failure_ && differences_.is_settled(),
                     "primary and target are the same, durably");
  }
  Target target = co_await take_target();
  std::lock_guard lock(guard_);
  DISKFERRY_ASSERT(!former_, "what was the primary before is taken");
  former_ = std::exchange(primary_, std::make_shared<Primary>(std::move(target.device)));
}

void MirrorDevice::attach_former(WindowOptions options) {
  std::shared_ptr<BlockDevice> device;
  {
    std::lock_guard lock(guard_);
    DISKFERRY_ASSERT(former_ && !former_follows_, "there was a switchover");
    former_follows_ = true;
    device = former_->device;
  }
  attach_same(std::move(device), std::move(options));
}

std::shared_ptr<BlockDevice> MirrorDevice::dissolve() {
  std::lock_guard lock(guard_);
  DISKFERRY_ASSERT(!target_.device && !former_ && in_flight_.writes().empty() && primary_->users == 0,
                   "nobody uses a mirror that is dissolved");
  return std::exchange(primary_, nullptr)->device;
}

Task<std::shared_ptr<BlockDevice>> MirrorDevice::take_former() {
  std::unique_lock lock(guard_);
  if (former_follows_) co_return nullptr;
  const auto taken = std::exchange(former_, nullptr);
  if (!taken) co_return nullptr;
  while (taken->users != 0) {
    co_await exits_.wait_uncancelled(lock);
    lock.lock();
  }
  co_return std::move(taken->device);
}

// --- what it tells ----------------------------------------------------------------------------------------

void MirrorDevice::set_mode(MirrorMode mode) {
  std::lock_guard lock(guard_);
  mode_ = mode;
}
void MirrorDevice::set_latency_max(Duration limit) {
  std::lock_guard lock(guard_);
  latency_max_ = limit;
}
void MirrorDevice::set_copy_bytes_per_s(std::uint64_t bytes_per_s) {
  if (const Target followed = target(); followed.window) followed.window->set_bytes_per_s(bytes_per_s);
}
void MirrorDevice::set_window_bytes(std::uint64_t bytes) {
  if (const Target followed = target(); followed.window) followed.window->set_window_bytes(bytes);
}
std::uint64_t MirrorDevice::dirty_bytes() const {
  std::lock_guard lock(guard_);
  return differences_.dirty_bytes();
}
MirrorStats MirrorDevice::stats() const {
  const TimePoint now = context_.clock.now();
  std::lock_guard lock(guard_);
  MirrorStats stats = counters_;
  stats.dirty_bytes = differences_.dirty_bytes();
  stats.mode = mode_;
  stats.has_target = target_.device && !target_failure_;
  stats.latency = latency_.summary(now);
  stats.added = added_.summary(now);
  stats.added_p99_now_us = added_now_.summary(now).p99_us;
  return stats;
}

}  // namespace diskferry
