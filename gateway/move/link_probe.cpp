// A task for each connection sends part after part until time or bytes are used up. What counts is what the
// other end has answered.
#include "gateway/move/link_probe.hpp"

#include "diskferry/task_group.hpp"

#include <algorithm>
#include <atomic>
#include <string>

#include <boost/asio/this_coro.hpp>

namespace diskferry {
namespace {

/// A part grows until it takes this long: then what is on its way at the end is little of the whole.
constexpr Duration part_time = std::chrono::milliseconds(50);
constexpr std::size_t part_bytes_min = std::size_t{64} << 10;
/// Below the control API's bound on a request's body.
constexpr std::size_t part_bytes_max = std::size_t{768} << 10;

/// Text that does not compress well, if anything on the way tries.
std::string make_text() {
  constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
  std::string text;
  std::uint64_t state = 0x9e3779b97f4a7c15ull;
  while (text.size() < part_bytes_max) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    text += letters[state >> 58];
  }
  return text;
}

struct Probe {
  Clock& clock;
  const LinkProbe limits;
  const TimePoint end;
  const std::string text = make_text();
  std::atomic<std::uint64_t> begun_bytes = 0;
  std::atomic<std::uint64_t> done_bytes = 0;
};

Task<Result<void>> send_parts(Probe& probe, const LinkSender& send) {
  std::size_t bytes = part_bytes_min;
  while (probe.clock.now() < probe.end) {
    if (probe.begun_bytes.fetch_add(bytes) + bytes > probe.limits.bytes_max) break;
    const TimePoint begin = probe.clock.now();
    DISKFERRY_CO_CHECK(co_await send(probe.text.substr(0, bytes)));
    probe.done_bytes += bytes;
    if (probe.clock.now() - begin < part_time) bytes = std::min(bytes * 2, part_bytes_max);
  }
  co_return Result<void>{};
}

}  // namespace

Task<Result<std::uint64_t>> measure_link(Clock& clock, std::vector<LinkSender> senders, LinkProbe limits) {
  const TimePoint begin = clock.now();
  Probe probe{.clock = clock, .limits = limits, .end = Clock::after(begin, limits.time_max)};
  TaskGroup group(co_await boost::asio::this_coro::executor);
  for (const LinkSender& each : senders) group.spawn(send_parts(probe, each));
  // A part that is on its way at the end of the time is not waited for; what had arrived until then counts.
  auto joined = co_await with_deadline(clock, limits.time_max, "measure the link", group.join());
  const double took_s = std::chrono::duration<double>(clock.now() - begin).count();
  const std::uint64_t bytes = probe.done_bytes;
  if (!joined && joined.error().kind() != ErrorKind::timed_out)
    co_return unexpected(std::move(joined).error());
  if (bytes == 0 || took_s <= 0)
    co_return unexpected(fail(ErrorKind::timed_out, "measure the link").why("nothing arrived in time"));
  co_return static_cast<std::uint64_t>(static_cast<double>(bytes) / took_s);
}

}  // namespace diskferry
