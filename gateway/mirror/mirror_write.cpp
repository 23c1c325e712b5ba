// The mirror towards guests: what becomes of a read and of a change. See mirror_device.hpp.
#include "gateway/mirror/mirror_device.hpp"

#include <algorithm>

namespace diskferry {

// --- beginning and end of a change ------------------------------------------------------------------------

/// Decides what becomes of the change, and notes that before anything is written. guard_ is held.
void MirrorDevice::begin(const Change& change, Begun& begun) {
  pace_->guest_asks(begun.since);
  begun.write.range = change.range;
  begun.primary = primary_->device;
  begun.mode = mode_;
  begun.latency_max = latency_max_;
  in_flight_.begin_write(begun.write);
  const bool has_target = target_.device && !target_failure_;
  // A discard leaves content that nobody knows: it is copied, whatever it is.
  const bool is_mirrored = has_target && mode_ != MirrorMode::background && !begun.write.is_overtaken &&
                           change.verb != Verb::discard;
  if (!is_mirrored) {
    // Where a copy is under way the granules get dirty at the end, since only then is the content known.
    if (begun.write.is_overtaken) differences_.mark_unsettled(change.range);
    if (!begun.write.is_overtaken || differences_.is_dirty(change.range))
      differences_.mark_written(change.range);
    counters_.left_bytes += change.range.length;
    return;
  }
  differences_.clean_parts(change.range, begun.parts);
  std::uint64_t mirrored = 0;
  for (const Range part : begun.parts) {
    differences_.mark_unsettled(part);
    mirrored += part.length;
  }
  if (mirrored != change.range.length) differences_.note_written(change.range);
  counters_.mirrored_bytes += mirrored;
  counters_.left_bytes += change.range.length - mirrored;
  if (begun.parts.empty()) return;
  begun.target = target_;
  ++target_users_;
}

/// Whether the window would take such a write without a wait. guard_ is held.
bool MirrorDevice::can_tell_at_once(Range range) const {
  return !target_.window || target_failure_ || mode_ == MirrorMode::background ||
         target_.window->can_take(range);
}

/// guard_ is held.
bool MirrorDevice::try_enter(const Change& change, Begun& begun) {
  if (is_held_ || in_flight_.has_write(change.range)) return false;
  begin(change, begun);
  return true;
}

Task<Result<void>> MirrorDevice::enter(const Change& change, Begun& begun) {
  begun.since = context_.clock.now();
  if (!guest_limit_.try_take(change.range.length))
    DISKFERRY_CO_CHECK(co_await guest_limit_.take(change.range.length));
  std::unique_lock lock(guard_);
  while (!try_enter(change, begun)) {
    if (!co_await entrance_.wait(lock)) co_return unexpected(cancelled_error("write", info_.name));
    lock.lock();
  }
  // Waiting for other writes, for a switchover or for the limit on guests is not what the target costs.
  begun.entered = context_.clock.now();
  co_return Result<void>{};
}

void MirrorDevice::leave(const Change& change, Begun& begun, bool is_complete) {
  const TimePoint now = context_.clock.now();
  std::lock_guard lock(guard_);
  in_flight_.end_write(begun.write);
  // A copy that was under way has read what was there before or after, and nobody knows whose is at the
  // target.
  if (begun.write.is_overtaken || !is_complete) {
    differences_.mark_written(change.range);
    counters_.overtaken_bytes += change.range.length;
  }
  if (begun.is_counted) {
    counters_.guest_bytes += change.range.length;
    ++counters_.guest_writes;
    latency_.add(now, now - begun.since);
    const Duration added = now - begun.entered - begun.primary_took;
    added_.add(now, added);
    added_now_.add(now, added);
  }
  if (begun.target.device) --target_users_;
  entrance_.wake_all();
  exits_.wake_all();
}

// --- doing it ---------------------------------------------------------------------------------------------

Task<Result<void>> MirrorDevice::change_primary(const Change& change, BlockDevice& primary) {
  switch (change.verb) {
    case Verb::write:
      return primary.write(change.range.offset, {change.from, change.range.length}, change.write_flags);
    case Verb::zero:
      return primary.write_zeroes(change.range, change.zero_flags);
    case Verb::discard:
      break;
  }
  return primary.discard(change.range);
}

std::span<const std::byte> MirrorDevice::bytes_of(const Change& change, Range part) noexcept {
  return {change.from + (part.offset - change.range.offset), part.length};
}

Task<Result<void>> MirrorDevice::tell(const Change& change, Range part, BlockDevice& target) {
  if (change.verb == Verb::write) return target.write(part.offset, bytes_of(change, part), {});
  return target.write_zeroes(part, {.may_unmap = change.zero_flags.may_unmap});
}

/// The rest of the parts, from begun.told on.
Task<Result<void>> MirrorDevice::tell_rest(const Change& change, Begun& begun) {
  for (; begun.told < begun.parts.size(); ++begun.told)
    DISKFERRY_CO_CHECK(co_await tell(change, begun.parts[begun.told], *begun.target.checked_window));
  if (begun.mode == MirrorMode::synchronous) co_return co_await begun.target.window->settle();
  co_return Result<void>{};
}

/// guard_ is held.
void MirrorDevice::note_not_mirrored(Range part, const Error& why) {
  differences_.mark_written(part);
  if (why.kind() == ErrorKind::timed_out || why.kind() == ErrorKind::cancelled) {
    counters_.spilled_bytes += part.length;
  } else {
    fail_target(why);
  }
}

/// What the window does not take in time is dirty.
Task<void> MirrorDevice::mirror(const Change& change, Begun& begun) {
  const bool may_try = change.verb == Verb::write && begun.mode != MirrorMode::synchronous;
  for (; may_try && begun.told < begun.parts.size(); ++begun.told) {
    const Range part = begun.parts[begun.told];
    const auto told = begun.target.checked_window->try_write(part.offset, bytes_of(change, part));
    if (!told || !*told) break;
  }
  if (begun.told == begun.parts.size() && may_try) co_return;
  const auto told = begun.latency_max == Duration::zero()
                        ? co_await tell_rest(change, begun)
                        : co_await with_deadline(context_.clock, begun.latency_max, "write to the target",
                                                 tell_rest(change, begun));
  if (told) co_return;
  // In synchronous mode all were told, and the window sends them.
  std::lock_guard lock(guard_);
  if (begun.told == begun.parts.size() && told.error().kind() == ErrorKind::timed_out) co_return;
  for (const Range part : std::span(begun.parts).subspan(std::min(begun.told, begun.parts.size() - 1)))
    note_not_mirrored(part, told.error());
}

/// Ends a change however its coroutine ends; one that did not come to its end leaves nobody knows what.
struct MirrorDevice::ChangeEnd {
  MirrorDevice& mirror;
  const Change& change;
  Begun& begun;
  bool is_complete = false;
  ChangeEnd(MirrorDevice& of, const Change& what, Begun& how) : mirror(of), change(what), begun(how) {}
  ~ChangeEnd() { mirror.leave(change, begun, is_complete); }
  ChangeEnd(const ChangeEnd&) = delete;
  ChangeEnd& operator=(const ChangeEnd&) = delete;
};

Task<Result<void>> MirrorDevice::change(Change change) {
  Begun begun;
  DISKFERRY_CO_CHECK(co_await enter(change, begun));
  ChangeEnd end(*this, change, begun);
  const TimePoint begin = context_.clock.now();
  auto done = co_await change_primary(change, *begun.primary);
  begun.primary_took = context_.clock.now() - begin;
  if (done) {
    if (!begun.parts.empty()) co_await mirror(change, begun);
  } else if (!(done.error().kind() == ErrorKind::unsupported && change.zero_flags.fast_only)) {
    // Any part of it may have been written.
    std::lock_guard lock(guard_);
    differences_.mark_written(change.range);
  }
  end.is_complete = true;
  co_return done;
}

// --- verbs ------------------------------------------------------------------------------------------------

/// The primary for as long as this lives, whoever takes its place meanwhile.
class MirrorDevice::PrimaryUse {
 public:
  explicit PrimaryUse(MirrorDevice& mirror) : mirror_(mirror) {
    std::lock_guard lock(mirror_.guard_);
    begin();
  }
  /// The same where the lock is held.
  PrimaryUse(MirrorDevice& mirror, const std::unique_lock<std::mutex>&) : mirror_(mirror) { begin(); }
  ~PrimaryUse() {
    std::lock_guard lock(mirror_.guard_);
    if (--primary_->users == 0) mirror_.exits_.wake_all();
  }
  PrimaryUse(const PrimaryUse&) = delete;
  PrimaryUse& operator=(const PrimaryUse&) = delete;
  BlockDevice* operator->() const noexcept { return primary_->device.get(); }
  /// Whether the guest is told that: no error of what is not the primary any more.
  template <class T>
  bool is_answer(const Result<T>& done) const {
    if (done || done.error().kind() == ErrorKind::cancelled) return true;
    std::lock_guard lock(mirror_.guard_);
    return primary_ == mirror_.primary_;
  }

 private:
  void begin() {
    mirror_.pace_->guest_asks(mirror_.context_.clock.now());
    primary_ = mirror_.primary_;
    ++primary_->users;
  }
  MirrorDevice& mirror_;
  std::shared_ptr<Primary> primary_;
};

// What was the primary when a request began may have become the target meanwhile, and its errors are not for
// guests: the request is made again, of the primary of now.

Task<Result<void>> MirrorDevice::read(std::uint64_t offset, std::span<std::byte> into) {
  while (true) {
    const PrimaryUse from(*this);
    auto done = co_await from->read(offset, into);
    if (from.is_answer(done)) co_return done;
  }
}
std::optional<Result<void>> MirrorDevice::try_read(std::uint64_t offset, std::span<std::byte> into) {
  const PrimaryUse from(*this);
  auto done = from->try_read(offset, into);
  if (done && !from.is_answer(*done)) return std::nullopt;
  return done;
}
Task<Result<void>> MirrorDevice::prefetch(Range range) {
  const PrimaryUse from(*this);
  co_return co_await from->prefetch(range);
}
Task<Result<std::vector<Extent>>> MirrorDevice::extents(Range range, std::size_t extents_max) {
  while (true) {
    const PrimaryUse from(*this);
    auto found = co_await from->extents(range, extents_max);
    if (from.is_answer(found)) co_return found;
  }
}

Task<Result<void>> MirrorDevice::write(std::uint64_t offset, std::span<const std::byte> from,
                                       WriteFlags flags) {
  return change(
      {.verb = Verb::write, .range = {offset, from.size()}, .from = from.data(), .write_flags = flags});
}

/// Without a coroutine where neither side has to be waited for: the primary first, for only then it is known
/// that this can be.
std::optional<Result<void>> MirrorDevice::try_write(std::uint64_t offset, std::span<const std::byte> from) {
  const Change change{.verb = Verb::write, .range = {offset, from.size()}, .from = from.data()};
  Begun begun{.since = context_.clock.now()};
  {
    std::lock_guard lock(guard_);
    if (mode_ == MirrorMode::synchronous || !can_tell_at_once(change.range)) return std::nullopt;
    if (!guest_limit_.try_take(from.size())) return std::nullopt;
    if (!try_enter(change, begun)) {
      guest_limit_.give_back(from.size());
      return std::nullopt;
    }
  }
  auto done = begun.primary->try_write(offset, from);
  begun.primary_took = context_.clock.now() - begun.since;
  bool is_told = true;
  for (const Range part : begun.parts) {
    if (!done) break;  // nothing was written anywhere
    const auto told =
        *done ? begun.target.checked_window->try_write(part.offset, bytes_of(change, part)) : std::nullopt;
    if (told && *told) continue;
    is_told = is_told && (told || !*done);
    std::lock_guard lock(guard_);
    note_not_mirrored(part, told ? told->error() : cancelled_error("write to the target"));
  }
  begun.is_counted = done && is_told;
  begun.entered = begun.since;
  leave(change, begun, true);
  if (done && is_told) return done;
  // The ordinary verb writes it (again).
  guest_limit_.give_back(from.size());
  return std::nullopt;
}

Task<Result<void>> MirrorDevice::write_zeroes(Range range, ZeroFlags flags) {
  return change({.verb = Verb::zero, .range = range, .zero_flags = flags});
}

Task<Result<void>> MirrorDevice::discard(Range range) {
  const DeviceInfo now = primary()->info();
  if (now.zero == ZeroSupport::unmapping) co_return co_await change({.verb = Verb::zero, .range = range});
  if (!now.can_discard) co_return Result<void>{};
  co_return co_await change({.verb = Verb::discard, .range = range});
}

Task<Result<void>> MirrorDevice::flush() {
  while (true) {
    std::unique_lock lock(guard_);
    while (is_held_) {
      if (!co_await entrance_.wait(lock)) co_return unexpected(cancelled_error("flush", info_.name));
      lock.lock();
    }
    const PrimaryUse to(*this, lock);
    lock.unlock();
    auto done = co_await to->flush();
    if (to.is_answer(done)) co_return done;
  }
}

}  // namespace diskferry
