// The rate of the way to another gateway, on a clock that only the senders move.
#include "gateway/move/link_probe.hpp"

#include "diskferry/units.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>

namespace diskferry::test {
namespace {

/// A way of so many bytes a second: the clock moves on by what a part takes.
struct Way {
  FakeClock clock;
  double bytes_per_s = 100e6;
  std::atomic<std::uint64_t> sent = 0;
  std::atomic<std::size_t> largest = 0;
  bool is_broken = false;

  LinkSender sender() {
    return [this](std::string text) { return send(std::move(text)); };
  }
  Task<Result<void>> send(std::string text) {
    if (is_broken)
      co_return unexpected(fail(ErrorKind::not_found, "ask gateway").why("there is no such verb"));
    sent += text.size();
    largest = std::max(largest.load(), text.size());
    clock.advance(std::chrono::duration_cast<Duration>(
        std::chrono::duration<double>(static_cast<double>(text.size()) / bytes_per_s)));
    co_return Result<void>{};
  }
  Result<std::uint64_t> measure(LinkProbe limits = {}) {
    return run(measure_link(clock, {sender(), sender()}, limits));
  }
};

TEST(LinkProbe, MeasuresTheRateAndKeepsToItsBytes) {
  Way way;
  const auto rate = must(way.measure());
  EXPECT_NEAR(static_cast<double>(rate), 100e6, 5e6);
  EXPECT_LE(way.sent, 64 * mib);
  EXPECT_GT(way.sent, 60 * mib);
}

TEST(LinkProbe, KeepsToItsTimeWhereTheWayIsSlow) {
  Way way;
  way.bytes_per_s = 2e6;
  const auto rate = must(way.measure());
  EXPECT_NEAR(static_cast<double>(rate), 2e6, 0.3e6);
  EXPECT_LT(way.sent, 5 * mib);
}

TEST(LinkProbe, PartsStayBelowWhatARequestMayHold) {
  Way way;
  way.bytes_per_s = 10e9;
  must(way.measure());
  EXPECT_LT(way.largest, mib);
}

TEST(LinkProbe, TellsWhyItCouldNot) {
  Way way;
  way.is_broken = true;
  const auto rate = way.measure();
  ASSERT_FALSE(rate);
  EXPECT_EQ(rate.error().kind(), ErrorKind::not_found);
}

}  // namespace
}  // namespace diskferry::test
