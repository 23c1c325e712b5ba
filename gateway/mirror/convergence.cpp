#include "gateway/mirror/convergence.hpp"

#include "diskferry/units.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry {
namespace {

/// Of a second that came in, what it weighs against those before.
constexpr double weight = 0.3;
/// Guests are let have so much of what the target takes, so that copies advance.
constexpr double share_of_guests = 0.5;
constexpr double step_of_guests = 0.7;

double smoothed(double before, double now, bool has_before) {
  return has_before ? before + weight * (now - before) : now;
}
std::optional<Duration> time_for(double bytes, double bytes_per_s) {
  if (bytes <= 0) return Duration::zero();
  if (bytes_per_s <= 0) return std::nullopt;
  constexpr double longest_s = 1e8;
  return std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(std::min(longest_s, bytes / bytes_per_s)));
}

}  // namespace

/// What the rates come to.
void ConvergenceController::judge(const ConvergenceSample& sample, ConvergenceStep& step) {
  const double net = static_cast<double>(sample.copied_bytes) - static_cast<double>(sample.dirtied_bytes);
  net_bytes_per_s_ = smoothed(net_bytes_per_s_, net, has_rates_);
  const auto sent = static_cast<double>(sample.sent_bytes);
  // Who had time to rest has sent what there was, which tells of the guests and not of the target.
  sent_bytes_per_s_ =
      sample.rounds > 0 ? std::max(sent_bytes_per_s_, sent) : smoothed(sent_bytes_per_s_, sent, has_rates_);
  // Before anything moves there is none.
  has_rates_ = has_rates_ || sample.copied_bytes != 0 || sample.sent_bytes != 0;
  step.eta = time_for(static_cast<double>(sample.left_bytes), net_bytes_per_s_);
  const double at_the_end = static_cast<double>(sample.left_bytes + sample.pending_bytes);
  step.pause = time_for(at_the_end, sent_bytes_per_s_).value_or(Duration::max());
  const double pause_s = std::chrono::duration<double>(limits_.pause_max).count();
  step.window_bytes_max = static_cast<std::uint64_t>(sent_bytes_per_s_ * pause_s / 2);
}

/// What is dirty only because guests go on writing is no reason for anything, if it can be copied in the
/// pause.
bool ConvergenceController::is_behind(const ConvergenceSample& sample, const ConvergenceStep& step) const {
  if (sample.left_bytes == 0 || sample.dirtied_bytes == 0) return false;
  if (sample.rounds > 0 && step.pause <= limits_.pause_max) return false;
  return !step.eta || (limits_.deadline && *step.eta > *limits_.deadline);
}

/// That copies make room for guests is the first that has an end: where guests are ahead, and also where only
/// the copies are too slow for the deadline.
std::string ConvergenceController::judge_room(const ConvergenceSample& sample, const ConvergenceStep& step) {
  const bool is_too_slow =
      limits_.deadline && sample.left_bytes != 0 && step.eta.value_or(Duration::max()) > *limits_.deadline;
  if (makes_room_ && (behind_ >= seconds_up - 1 || is_too_slow)) {
    makes_room_ = false;
    return "the end is out of reach: copies go as fast as they can, whatever guests wait for";
  }
  if (!makes_room_ && !is_too_slow && ahead_ >= 4 * seconds_down) {
    makes_room_ = true;
    return "the end is in reach: copies make room for guests";
  }
  return {};
}

std::string ConvergenceController::step_up(const ConvergenceSample& sample) {
  const std::string why = fmt::format("guests make {}/s dirty and {}/s are copied",
                                      format_bytes(sample.dirtied_bytes), format_bytes(sample.copied_bytes));
  if (mode_ == MirrorMode::background) {
    mode_ = MirrorMode::bounded;
    return why + ": their writes go to both storages";
  }
  if (mode_ == MirrorMode::bounded && sample.added_p99_us == 0) {
    mode_ = MirrorMode::synchronous;
    return why + ": their writes wait for both storages";
  }
  // A target that takes nothing is no reason to slow anybody down.
  const bool is_taking = sent_bytes_per_s_ >= static_cast<double>(limits_.guest_bytes_per_s_min);
  if (!limits_.may_slow_guests || !is_taking) return {};
  const double present = guest_bytes_per_s_ != 0 ? static_cast<double>(guest_bytes_per_s_)
                                                 : static_cast<double>(sample.guest_bytes);
  const double wanted = guest_bytes_per_s_ != 0
                            ? present * step_of_guests
                            : std::min(present * step_of_guests, sent_bytes_per_s_ * share_of_guests);
  const std::uint64_t next = std::max(limits_.guest_bytes_per_s_min, static_cast<std::uint64_t>(wanted));
  if (next == guest_bytes_per_s_) return {};
  guest_bytes_per_s_ = next;
  return fmt::format("{}: they are slowed down to {}/s", why, format_bytes(guest_bytes_per_s_));
}

std::string ConvergenceController::step_down(const ConvergenceSample& sample) {
  if (mode_ == MirrorMode::background) return {};
  const auto paid = std::chrono::microseconds(sample.added_p99_us);
  mode_ = mode_ == MirrorMode::synchronous ? MirrorMode::bounded : MirrorMode::background;
  return fmt::format("1 of 100 writes waits {} ms for the target: the mode is {}",
                     std::chrono::duration_cast<std::chrono::milliseconds>(paid).count(), to_string(mode_));
}

ConvergenceStep ConvergenceController::observe(const ConvergenceSample& sample) {
  ConvergenceStep step;
  judge(sample, step);
  const bool is_late = is_behind(sample, step);
  // What waits in the window has been copied as far as rates go, and is at the target later.
  if (const auto sending = time_for(static_cast<double>(sample.pending_bytes), sent_bytes_per_s_);
      step.eta && sending)
    *step.eta += *sending;
  const bool is_dear = std::chrono::microseconds(sample.added_p99_us) > limits_.latency_max;
  behind_ = is_late ? behind_ + 1 : 0;
  // Guests that pay for an end that is out of reach otherwise go on paying: latency_max bounds each write.
  dear_ = is_dear && !is_late ? dear_ + 1 : 0;
  ahead_ = !is_late ? ahead_ + 1 : 0;
  step.reason = judge_room(sample, step);
  if (!limits_.may_slow_guests && guest_bytes_per_s_ != 0) {
    guest_bytes_per_s_ = 0;
    step.reason = "guests are slowed down no more";
  } else if (behind_ >= seconds_up) {
    step.reason = step_up(sample);
    behind_ = 0;
  } else if (dear_ >= seconds_down) {
    step.reason = step_down(sample);
    dear_ = 0;
  } else if (guest_bytes_per_s_ != 0 && ahead_ >= seconds_down) {
    guest_bytes_per_s_ =
        ahead_ >= 4 * seconds_down
            ? 0
            : static_cast<std::uint64_t>(static_cast<double>(guest_bytes_per_s_) / step_of_guests);
    step.reason = guest_bytes_per_s_ == 0 ? "the end is in reach: guests are slowed down no more"
                                          : fmt::format("the end is in reach: guests may write {}/s",
                                                        format_bytes(guest_bytes_per_s_));
  }
  step.mode = mode_;
  step.guest_bytes_per_s = guest_bytes_per_s_;
  step.makes_room = makes_room_;
  return step;
}

}  // namespace diskferry
