#include "gateway/move/flush_ahead.hpp"

namespace diskferry {
namespace {
constexpr Duration pause_between = std::chrono::milliseconds(100);
/// A disk of 100 MB/s writes this in a third of a second.
constexpr std::uint64_t bytes_at_once = 32ull << 20;
}  // namespace

Task<Result<void>> flush_ahead(Clock& clock, FlushAhead what) {
  std::uint64_t flushed = 0;
  while (true) {
    DISKFERRY_CO_CHECK(co_await clock.sleep_for(pause_between));
    const std::uint64_t sent = what.sent_bytes();
    if (sent == flushed || (!what.is_near() && sent - flushed < bytes_at_once)) continue;
    DISKFERRY_CO_CHECK(co_await what.make_durable());
    flushed = sent;
  }
}

}  // namespace diskferry
