// Rules are evaluated under one mutex; chance is a hash of seed, rule and call number, so that it does not
// depend on which thread came first.
#include "drivers/filters/fault.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/units.hpp"

#include <algorithm>
#include <cstring>

namespace diskferry {
namespace {

constexpr std::uint64_t sector_bytes = 512;  // what a disk writes whole or not at all

/// SplitMix64's finaliser (public domain, Sebastiano Vigna).
constexpr std::uint64_t mix(std::uint64_t x) noexcept {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

bool touches(const FaultRule& rule, Range range) noexcept {
  if (range.empty()) return true;
  // Not Range::overlaps: a rule's range may reach to the end of the numbers.
  return range.end() > rule.range.offset &&
         (range.offset < rule.range.offset || range.offset - rule.range.offset < rule.range.length);
}

}  // namespace

FaultControl::FaultControl(FaultPlan plan) : seed_(plan.seed) {
  for (FaultRule& rule : plan.rules) add(rule);
}

void FaultControl::add(FaultRule rule) {
  std::lock_guard lock(guard_);
  rules_.push_back({rule, ++rules_added_, 0});
}
void FaultControl::clear() {
  std::lock_guard lock(guard_);
  rules_.clear();
}
void FaultControl::cut_power() {
  std::lock_guard lock(guard_);
  power_is_cut_ = true;
}
void FaultControl::restore_power() {
  std::lock_guard lock(guard_);
  power_is_cut_ = false;
}
bool FaultControl::is_power_cut() const {
  std::lock_guard lock(guard_);
  return power_is_cut_;
}
std::uint64_t FaultControl::calls(FaultVerb verb) const {
  std::lock_guard lock(guard_);
  return calls_[static_cast<std::size_t>(verb)];
}
std::uint64_t FaultControl::faults() const {
  std::lock_guard lock(guard_);
  return faults_;
}

FaultControl::Decision FaultControl::decide(FaultVerb verb, Range range) {
  std::lock_guard lock(guard_);
  ++calls_[static_cast<std::size_t>(verb)];
  Decision decision;
  if (power_is_cut_) {
    decision.acts = true;
    decision.action = FaultAction::fail;
    decision.error = ErrorKind::gone;
    return decision;
  }
  for (Counted& counted : rules_) {
    const FaultRule& rule = counted.rule;
    const bool verb_matches = rule.verb == FaultVerb::any ? verb != FaultVerb::close : rule.verb == verb;
    if (!verb_matches || !touches(rule, range)) continue;
    ++counted.matched;
    if (counted.matched < rule.first_call || counted.matched > rule.last_call) continue;
    const std::uint64_t random = mix(seed_ ^ mix(counted.index ^ mix(counted.matched)));
    // 53 bits of the hash as a number in [0, 1).
    if (static_cast<double>(random >> 11) * 0x1.0p-53 >= rule.probability) continue;
    ++faults_;
    if (rule.action == FaultAction::delay) {
      decision.delay = Clock::after(TimePoint(decision.delay), rule.delay).time_since_epoch();  // no overflow
    } else if (!decision.acts) {
      decision.acts = true;
      decision.action = rule.action;
      decision.error = rule.action == FaultAction::cut_power ? ErrorKind::gone : rule.error;
      decision.corrupt_bytes = rule.corrupt_bytes;
      decision.torn = rule.torn;
      decision.random = mix(random);
    }
  }
  if (decision.acts && decision.action == FaultAction::cut_power) power_is_cut_ = true;
  return decision;
}

namespace {

void corrupt(std::span<std::byte> bytes, const FaultControl::Decision& decision) {
  const std::size_t count = std::min<std::size_t>(decision.corrupt_bytes, bytes.size());
  if (count == 0) return;
  const std::size_t at = decision.random % (bytes.size() - count + 1);
  // Never xor with zero: a corrupted byte differs.
  for (std::size_t i = 0; i < count; ++i)
    bytes[at + i] ^= static_cast<std::byte>((mix(decision.random + i) & 0xff) | 1);
}

class FaultDevice final : public BlockDevice {
 public:
  FaultDevice(std::shared_ptr<BlockDevice> inner, std::shared_ptr<FaultControl> control, Clock& clock)
      : inner_(std::move(inner)), control_(std::move(control)), clock_(clock), info_(inner_->info()) {}

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return inner_->size_bytes(); }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    const Call call{FaultVerb::read, "read", {offset, into.size()}};
    DISKFERRY_CO_TRY(const auto decision, co_await meet(call));
    if (is(decision, FaultAction::ignore)) {
      std::ranges::fill(into, std::byte{0});
    } else {
      DISKFERRY_CO_CHECK(co_await inner_->read(offset, into));
    }
    if (is(decision, FaultAction::corrupt)) corrupt(into, decision);
    co_return leave(call, decision);
  }

  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    const Call call{FaultVerb::write, "write", {offset, from.size()}};
    const auto decision = control_->decide(call.verb, call.range);
    if (decision.torn && (is(decision, FaultAction::fail) || is(decision, FaultAction::cut_power)))
      DISKFERRY_CO_CHECK(co_await tear(offset, from, decision));
    DISKFERRY_CO_CHECK(co_await act(call, decision));
    if (is(decision, FaultAction::corrupt)) {
      std::vector<std::byte> changed(from.begin(), from.end());
      corrupt(changed, decision);
      DISKFERRY_CO_CHECK(co_await inner_->write(offset, changed, flags));
    } else if (!is(decision, FaultAction::ignore)) {
      DISKFERRY_CO_CHECK(co_await inner_->write(offset, from, flags));
    }
    co_return leave(call, decision);
  }

  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    const Call call{FaultVerb::write_zeroes, "write zeros", range};
    DISKFERRY_CO_TRY(const auto decision, co_await meet(call));
    if (!is(decision, FaultAction::ignore)) DISKFERRY_CO_CHECK(co_await inner_->write_zeroes(range, flags));
    co_return leave(call, decision);
  }

  Task<Result<void>> discard(Range range) override {
    const Call call{FaultVerb::discard, "discard", range};
    DISKFERRY_CO_TRY(const auto decision, co_await meet(call));
    if (!is(decision, FaultAction::ignore)) DISKFERRY_CO_CHECK(co_await inner_->discard(range));
    co_return leave(call, decision);
  }

  Task<Result<void>> flush() override {
    const Call call{FaultVerb::flush, "flush", {}};
    DISKFERRY_CO_TRY(const auto decision, co_await meet(call));
    if (!is(decision, FaultAction::ignore)) DISKFERRY_CO_CHECK(co_await inner_->flush());
    co_return leave(call, decision);
  }

  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    const Call call{FaultVerb::extents, "map", range};
    DISKFERRY_CO_TRY(const auto decision, co_await meet(call));
    std::vector<Extent> found{{.offset = range.offset, .length = range.length}};
    if (!is(decision, FaultAction::ignore)) {
      DISKFERRY_CO_TRY(found, co_await inner_->extents(range, extents_max));
    }
    DISKFERRY_CO_CHECK(leave(call, decision));
    co_return found;
  }

  Task<Result<void>> close() override {
    const Call call{FaultVerb::close, "close", {}};
    const auto decision = control_->decide(call.verb, call.range);
    const auto met = co_await act(call, decision);
    const auto closed = co_await inner_->close();  // whatever was met: what is not closed would leak
    if (!met) co_return met;
    if (!closed) co_return closed;
    co_return leave(call, decision);
  }

  std::uint64_t repeated_requests() const noexcept override { return inner_->repeated_requests(); }
  void stop_waiting() noexcept override { inner_->stop_waiting(); }

 private:
  using Decision = FaultControl::Decision;
  struct Call {
    FaultVerb verb;
    const char* name;
    Range range;
  };

  static bool is(const Decision& decision, FaultAction action) noexcept {
    return decision.acts && decision.action == action;
  }
  Error error_of(const Call& call, ErrorKind kind) const {
    auto error = fail(kind, call.name, info_.name).why("a fault was asked for");
    if (!call.range.empty()) return std::move(error).at(call.range.offset, call.range.length);
    return error;
  }

  Task<Result<Decision>> meet(Call call) {
    const auto decision = control_->decide(call.verb, call.range);
    DISKFERRY_CO_CHECK(co_await act(call, decision));
    co_return decision;
  }

  /// What happens before the inner device is called.
  Task<Result<void>> act(Call call, Decision decision) {
    if (decision.delay > Duration::zero()) DISKFERRY_CO_CHECK(co_await clock_.sleep_for(decision.delay));
    if (is(decision, FaultAction::fail) || is(decision, FaultAction::cut_power))
      co_return unexpected(error_of(call, decision.error));
    if (is(decision, FaultAction::hang)) {
      AsyncEvent never;
      (void)co_await never.wait();
      co_return unexpected(cancelled_error(call.name, info_.name));
    }
    if (control_->is_power_cut()) co_return unexpected(error_of(call, ErrorKind::gone));
    co_return Result<void>{};
  }

  /// What the caller is told when the inner device has done it.
  Result<void> leave(const Call& call, const Decision& decision) const {
    if (is(decision, FaultAction::fail_late)) return unexpected(error_of(call, decision.error));
    if (control_->is_power_cut()) return unexpected(error_of(call, ErrorKind::gone));
    return {};
  }

  /// Writes a beginning of `from`, up to the end of some sector.
  Task<Result<void>> tear(std::uint64_t offset, std::span<const std::byte> from, Decision decision) {
    const std::uint64_t unit = std::max<std::uint64_t>(sector_bytes, info_.block_bytes);
    const std::uint64_t kept = align_down(decision.random % (from.size() + 1), unit);
    if (kept != 0) DISKFERRY_CO_CHECK(co_await inner_->write(offset, from.first(kept), {}));
    co_return Result<void>{};
  }

  const std::shared_ptr<BlockDevice> inner_;
  const std::shared_ptr<FaultControl> control_;
  Clock& clock_;
  const DeviceInfo info_;
};

}  // namespace

DevicePtr make_fault_device(std::shared_ptr<BlockDevice> inner, std::shared_ptr<FaultControl> control,
                            Clock& clock) {
  DISKFERRY_ASSERT(inner && control, "a fault device needs a device and rules");
  return std::make_unique<FaultDevice>(std::move(inner), std::move(control), clock);
}

}  // namespace diskferry
