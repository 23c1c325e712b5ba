// The model: sending W bytes at R bytes a second while D bytes a second are made dirty takes W / (R - D), as
// the rounds W/R, W/R * D/R, ... add up to that; it ends early, with pause * R bytes left for the pause.
#include "gateway/move/prediction.hpp"

#include "diskferry/units.hpp"
#include "gateway/move/link_share.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace diskferry {
namespace {

/// Stopping, the device state, and starting elsewhere, on hosts that have nothing else to do.
constexpr double pause_base_ms = 60;
/// Answers that are waited for while the guest stands still: two flushes, the end of the mirror, the device
/// state, the start there.
constexpr double pause_round_trips = 5;
/// What auto-converge leaves of a guest's speed at most (QEMU: throttled by up to 99 %).
constexpr double throttled_share = 0.01;
/// A guest that dirties this share of what can be sent is as good as one that dirties all of it.
constexpr double share_max = 0.95;
/// What a guest that writes gets of the way while its disks are copied.
constexpr double write_share = 0.5;
/// More of the link than that it does not get beside its memory, and then no more than what is left to the
/// disks.
constexpr double write_share_beside_memory = 0.75;
constexpr double write_share_kept = 1.0 / disks_link_part;

double as_double(std::uint64_t value) {
  return static_cast<double>(value);
}

std::string rate_text(double bytes_per_s) {
  return format_bytes(static_cast<std::uint64_t>(bytes_per_s)) + "/s";
}

void find_slowest(const PredictionInput& input, Prediction& prediction) {
  const std::array<std::pair<std::uint64_t, const char*>, 4> parts{{{input.link_bytes_per_s, "network"},
                                                                    {input.source_bytes_per_s, "source"},
                                                                    {input.target_bytes_per_s, "target"},
                                                                    {input.bound_bytes_per_s, "bound"}}};
  for (const auto& [rate, name] : parts) {
    if (rate == 0 || (prediction.rate_bytes_per_s != 0 && rate >= prediction.rate_bytes_per_s)) continue;
    prediction.rate_bytes_per_s = rate;
    prediction.slowest = name;
  }
}

/// Between the hosts, or within the operator's bound: storage has no part in what the memory gets.
double link_rate(const PredictionInput& input, double otherwise) {
  const double link = as_double(input.link_bytes_per_s);
  const double bound = as_double(input.bound_bytes_per_s);
  if (bound > 0 && (link == 0 || bound < link)) return bound;
  return link > 0 ? link : otherwise;
}

Prediction never(Prediction prediction, Convergence convergence, std::string why) {
  prediction.convergence = convergence;
  prediction.why = std::move(why);
  prediction.pause_ms = 0;
  return prediction;
}

/// What the pause leaves room for, in seconds of sending; 0 where its fixed parts take all of it.
double sending_s(const PredictionInput& input) {
  const double fixed_ms = pause_base_ms + pause_round_trips * as_double(input.round_trip_us) / 1000;
  return std::max(0.0, as_double(input.max_pause_ms) - fixed_ms) / 1000;
}

struct Sending {
  double seconds = 0;
  double bytes = 0;
  double left_bytes = 0;  ///< for the pause
};
/// Precondition: dirty < rate.
Sending send(double bytes, double rate, double dirty, double pause_s) {
  const double left = std::min(bytes, rate * pause_s);
  const double seconds = (bytes - left) / (rate - dirty);
  return {.seconds = seconds, .bytes = seconds * rate, .left_bytes = left};
}

void send_memory(const PredictionInput& input, double rate, double dirty, Prediction& prediction) {
  const Sending memory = send(as_double(input.memory_bytes), rate, dirty, sending_s(input));
  prediction.memory_s = memory.seconds;
  prediction.memory_bytes = static_cast<std::uint64_t>(memory.bytes + memory.left_bytes);
  prediction.pause_ms = pause_base_ms + pause_round_trips * as_double(input.round_trip_us) / 1000 +
                        memory.left_bytes / rate * 1000;
}

Prediction with_memory(const PredictionInput& input, double rate, Prediction prediction) {
  const double dirty = as_double(input.memory_dirty_bytes_per_s);
  if (rate > 0 && dirty < rate * share_max) {
    send_memory(input, rate, dirty, prediction);
    prediction.convergence = Convergence::yes;
    prediction.why =
        fmt::format("the guest changes {} of memory and {} can be sent", rate_text(dirty), rate_text(rate));
    return prediction;
  }
  std::string why = fmt::format("the guest changes {} of memory and only {} can be sent", rate_text(dirty),
                                rate_text(rate));
  if (rate > 0 && input.auto_converge && dirty * throttled_share < rate * share_max) {
    send_memory(input, rate, std::min(dirty, rate / 2), prediction);
    prediction.convergence = Convergence::throttled;
    prediction.why = why + "; auto-converge slows it down";
    return prediction;
  }
  if (rate > 0 && input.post_copy) {
    // One round, then the guest runs there and what is missing follows.
    prediction.memory_s = as_double(input.memory_bytes) / rate;
    prediction.memory_bytes = 2 * input.memory_bytes;
    prediction.pause_ms = pause_base_ms + pause_round_trips * as_double(input.round_trip_us) / 1000;
    prediction.convergence = Convergence::post_copied;
    prediction.why = why + "; post-copy ends that";
    return prediction;
  }
  return never(std::move(prediction), Convergence::never_memory,
               why + "; --auto-converge, --post-copy or a quieter time help");
}

}  // namespace

std::string_view to_string(Convergence convergence) noexcept {
  switch (convergence) {
    case Convergence::yes:
      return "yes";
    case Convergence::throttled:
      return "throttled";
    case Convergence::post_copied:
      return "post-copy";
    case Convergence::writes_wait:
      return "yes: writes wait";
    case Convergence::never_memory:
      return "never: memory";
    case Convergence::too_late:
      return "after the timeout";
    case Convergence::unknown:
      return "unknown";
  }
  return "unknown";
}

Prediction predict(const PredictionInput& input) {
  Prediction prediction;
  find_slowest(input, prediction);
  if (prediction.rate_bytes_per_s == 0)
    return never(std::move(prediction), Convergence::unknown, "no rate of the way is known");
  const double written = input.disk_bytes == 0 ? 0 : as_double(input.disk_written_bytes_per_s);
  const double rate = as_double(prediction.rate_bytes_per_s);
  const Sending disks = send(as_double(input.disk_bytes), rate, std::min(written, rate * write_share), 0);
  prediction.disks_s = disks.seconds;
  prediction.disk_bytes = static_cast<std::uint64_t>(disks.bytes);
  const double link = link_rate(input, rate);
  const double beside_memory = written > link * write_share_beside_memory ? link * write_share_kept : written;
  if (input.memory_bytes == 0) {
    prediction.convergence = Convergence::yes;
    prediction.why = "there is no memory to move";
  } else {
    prediction = with_memory(input, link - beside_memory, std::move(prediction));
  }
  prediction.disk_bytes += static_cast<std::uint64_t>(beside_memory * prediction.memory_s);
  if (written > rate * write_share) {
    if (prediction.convergence == Convergence::yes) prediction.convergence = Convergence::writes_wait;
    prediction.why = fmt::format("the guest writes {} to its disks and the {} takes {}: its writes wait; {}",
                                 rate_text(written), prediction.slowest, rate_text(rate), prediction.why);
  }
  if (comes_to_an_end(prediction.convergence) && input.timeout_s != 0 &&
      prediction.total_s() > as_double(input.timeout_s))
    prediction = never(prediction, Convergence::too_late,
                       fmt::format("it takes about {:.0f} s and the timeout is {} s", prediction.total_s(),
                                   input.timeout_s));
  return prediction;
}

}  // namespace diskferry
