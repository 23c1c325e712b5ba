// The retry filter where it keeps what is not flushed: over a server that loses what it was not made to keep.
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/retry.hpp"
#include "tests/support/sector_model.hpp"
#include "tests/support/test_runtime.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <random>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::fill_sectors;
using test::must;
using test::run;
using test::runtime;
using test::sector_bytes;
using test::SectorModel;

constexpr std::uint64_t disk_bytes = 128 * kib;

/// A server whose cache is lost when it is restarted: of each sector that was not flushed it has what it has
/// or what it had. Thread: any.
struct Server {
  explicit Server(std::uint64_t seed) : random(seed) {}

  void restart(bool loses_all = false) {
    std::lock_guard lock(guard);
    for (std::uint64_t at = 0; at < disk_bytes; at += sector_bytes) {
      const auto part = [&](std::vector<std::byte>& bytes) {
        return std::span(bytes).subspan(at, sector_bytes);
      };
      if (loses_all || random() % 2 == 0) {
        std::ranges::copy(part(stable), part(cached).begin());
      } else {
        std::ranges::copy(part(cached), part(stable).begin());
      }
    }
    ++life;
  }

  std::mutex guard;
  std::mt19937_64 random;
  std::vector<std::byte> cached = std::vector<std::byte>(disk_bytes);
  std::vector<std::byte> stable = std::vector<std::byte>(disk_bytes);
  std::uint64_t life = 1;
  int failing_flushes = 0;  // each fails with io, and the next would say yes
  int failing_opens = 0;
  Duration waits_until_gone{};  // that it may come back
  std::atomic<int> opened = 0;
  std::atomic<int> open_now = 0;
};

/// A client of it: one that is lost with its server's life, or one that connects again by itself and tells of
/// what may be lost with the next flush only, as that of NFS does.
class Connection final : public BlockDevice {
 public:
  Connection(Server& server, bool connects_again) : server_(server), connects_again_(connects_again) {
    info_ = {.name = "server",
             .zero = ZeroSupport::fast,
             .is_read_only = false,
             .can_discard = true,
             .can_report_extents = true,
             .can_fua = true};
    std::lock_guard lock(server_.guard);
    life_ = server_.life;
    ++server_.opened;
    // The one before is closed.
    EXPECT_EQ(++server_.open_now, 1);
  }
  ~Connection() override = default;

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return disk_bytes; }
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    return call([=, this] {
      std::ranges::copy(std::span(server_.cached).subspan(offset, into.size()), into.begin());
    });
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    return call([=, this] { change(offset, from, flags.fua); });
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    return call([=, this] { change(range.offset, std::vector<std::byte>(range.length), flags.fua); });
  }
  Task<Result<void>> discard(Range range) override {
    return call([=, this] { change(range.offset, std::vector<std::byte>(range.length), false); });
  }
  Task<Result<void>> flush() override {
    bool is_lost = false;
    bool has_failed = false;
    DISKFERRY_CO_CHECK(co_await call([&] {
      is_lost = unflushed_since_ != 0 && unflushed_since_ != server_.life;
      has_failed = server_.failing_flushes > 0;
      if (has_failed) --server_.failing_flushes;
      if (is_lost || has_failed) return;
      server_.stable = server_.cached;
      unflushed_since_ = 0;
    }));
    if (is_lost) co_return unexpected(fail(ErrorKind::gone, "flush", "server"));
    if (has_failed) co_return unexpected(fail(ErrorKind::io, "flush", "server"));
    co_return Result<void>{};
  }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t) override {
    bool is_zero = false;
    DISKFERRY_CO_CHECK(co_await call([&] {
      is_zero = std::ranges::all_of(std::span(server_.cached).subspan(range.offset, range.length),
                                    [](std::byte one) { return one == std::byte{0}; });
    }));
    co_return std::vector<Extent>{{.offset = range.offset, .length = range.length, .reads_zero = is_zero}};
  }
  Task<Result<void>> close() override {
    --server_.open_now;
    co_return Result<void>{};
  }

 private:
  /// The request takes its time on the way there, and the answer on its way back.
  template <class Done>
  Task<Result<void>> call(Done done) {
    DISKFERRY_CO_CHECK(co_await pass_time());
    {
      std::unique_lock lock(server_.guard);
      if (life_ != server_.life && !connects_again_) {
        lock.unlock();
        if (server_.waits_until_gone != Duration{})
          DISKFERRY_CO_CHECK(co_await runtime().context().clock.sleep_for(server_.waits_until_gone));
        co_return unexpected(gone());
      }
      life_ = server_.life;
      done();
    }
    DISKFERRY_CO_CHECK(co_await pass_time());
    std::lock_guard lock(server_.guard);
    if (life_ != server_.life && !connects_again_) co_return unexpected(gone());
    co_return Result<void>{};
  }
  Task<Result<void>> pass_time() {
    std::int64_t took_us = 0;
    {
      std::lock_guard lock(server_.guard);
      took_us = static_cast<std::int64_t>(server_.random() % 4) * 20;
    }
    if (took_us != 0)
      DISKFERRY_CO_CHECK(co_await runtime().context().clock.sleep_for(std::chrono::microseconds(took_us)));
    co_return Result<void>{};
  }
  /// The server's guard is held.
  void change(std::uint64_t offset, std::span<const std::byte> bytes, bool fua) {
    std::ranges::copy(bytes, server_.cached.begin() + static_cast<std::ptrdiff_t>(offset));
    if (fua) {
      std::ranges::copy(bytes, server_.stable.begin() + static_cast<std::ptrdiff_t>(offset));
    } else if (unflushed_since_ == 0) {
      unflushed_since_ = server_.life;
    }
  }
  static Error gone() { return fail(ErrorKind::gone, "use", "server"); }

  Server& server_;
  const bool connects_again_;
  DeviceInfo info_{};
  std::uint64_t life_ = 0;
  std::uint64_t unflushed_since_ = 0;  // the life in which that began; 0: nothing is unflushed
};

Task<Result<DevicePtr>> connect(Server& server) {
  if (server.failing_opens > 0) {
    --server.failing_opens;
    co_return unexpected(fail(ErrorKind::gone, "open", "server"));
  }
  const bool connects_again = server.opened % 2 == 0;
  co_return checked(std::make_unique<Connection>(server, connects_again));
}

RetryPolicy keeping(std::uint64_t bytes_max) {
  return {.attempts_max = 100,
          .first_delay = std::chrono::milliseconds(1),
          .delay_max = std::chrono::milliseconds(4),
          .repeats_failures = false,
          .keep_bytes_max = bytes_max};
}
DevicePtr over(Server& server, RetryPolicy policy = keeping(1 * mib)) {
  return checked(make_retry_device(
      must(run(connect(server))), [&server] { return connect(server); }, std::move(policy),
      runtime().context().clock));
}
std::vector<std::byte> sectors(std::uint64_t content, std::size_t length = 4096, std::uint64_t first = 0) {
  std::vector<std::byte> bytes(length);
  fill_sectors(bytes, content, first);
  return bytes;
}
std::vector<std::byte> read_of(BlockDevice& device, std::size_t length = 4096) {
  std::vector<std::byte> bytes(length);
  must(run(device.read(0, bytes)));
  return bytes;
}

TEST(RetryKeep, AFlushAfterARestartHasEverythingWrittenAgain) {
  Server server(1);
  auto device = over(server);
  for (std::uint64_t round = 0; round < 4; ++round) {  // of each kind of connection
    must(run(device->write(0, sectors(200 + round), {})));
    must(run(device->write_zeroes({1024, 512}, {})));
    server.restart(true);
    EXPECT_EQ(std::ranges::equal(read_of(*device, 1024), sectors(200 + round, 1024)), true)
        << "what the server has lost is read from memory";
    must(run(device->flush()));
    server.restart(true);
    auto expected = sectors(200 + round);
    std::fill_n(expected.begin() + 1024, 512, std::byte{0});
    EXPECT_EQ(read_of(*device), expected);
  }
  must(run(device->close()));
}

TEST(RetryKeep, ExtentsDoNotSayThatLostContentIsZeros) {
  Server server(1);
  auto device = over(server);
  must(run(device->write(8192, sectors(200), {})));
  server.restart(true);
  const auto before = must(run(device->extents({0, disk_bytes}, 16)));
  EXPECT_EQ(before.front().length, 8192u);
  EXPECT_TRUE(before.front().reads_zero);
  const auto there = must(run(device->extents({8192, disk_bytes - 8192}, 16)));
  EXPECT_EQ(there.front().length, 4096u);
  EXPECT_FALSE(there.front().reads_zero);
  must(run(device->close()));
}

TEST(RetryKeep, AFailedFlushIsNotBelievedTheNextTime) {
  Server server(1);
  auto device = over(server);
  must(run(device->write(0, sectors(200), {})));
  server.failing_flushes = 1;
  must(run(device->flush()));
  EXPECT_EQ(server.opened, 2) << "and given everything again";
  server.restart(true);
  EXPECT_EQ(read_of(*device), sectors(200));
  // One that goes on failing is told of, and what it had to cover stays.
  must(run(device->write(0, sectors(201), {})));
  server.failing_flushes = 8;
  EXPECT_FALSE(run(device->flush()));
  server.failing_flushes = 0;
  must(run(device->flush()));
  server.restart(true);
  EXPECT_EQ(read_of(*device), sectors(201));
  must(run(device->close()));
}

TEST(RetryKeep, AServerThatIsAwayIsWaitedForAndAfterThatTriedAgainWithTheNextCall) {
  Server server(1);
  auto policy = keeping(1 * mib);
  policy.attempts_max = 3;
  auto device = over(server, policy);
  must(run(device->write(0, sectors(200), {})));
  server.restart(true);
  server.failing_opens = 4;
  EXPECT_FALSE(run(device->flush()));
  must(run(device->flush()));
  server.restart(true);
  EXPECT_EQ(read_of(*device), sectors(200));
  must(run(device->close()));
}

TEST(RetryKeep, ADriverThatHasWaitedForLongIsNoReasonNotToTry) {
  Server server(1);
  server.opened = 1;  // connections are lost with it
  server.waits_until_gone = std::chrono::milliseconds(100);
  auto policy = keeping(1 * mib);
  policy.limit = std::chrono::milliseconds(50);
  auto device = over(server, policy);
  must(run(device->write(0, sectors(200), {})));
  server.restart(true);
  server.failing_opens = 1;
  must(run(device->flush()));
  server.restart(true);
  EXPECT_EQ(read_of(*device), sectors(200));
  must(run(device->close()));
}

TEST(RetryKeep, WhatIsDiscardedOrDurableIsNotWrittenAgain) {
  Server server(1);
  std::vector<std::uint64_t> given;
  auto policy = keeping(1 * mib);
  policy.on_reopened = [&given](std::uint64_t bytes) { given.push_back(bytes); };
  auto device = over(server, policy);
  must(run(device->write(0, sectors(200), {})));
  must(run(device->discard({0, 1024})));
  must(run(device->write(1024, sectors(201, 1024, 2), {.fua = true})));
  server.restart(true);
  must(run(device->flush()));
  server.restart(true);
  auto expected = sectors(200);
  std::ranges::copy(sectors(201, 1024, 2), expected.begin() + 1024);
  std::fill_n(expected.begin(), 1024, std::byte{0});
  EXPECT_EQ(read_of(*device), expected);
  ASSERT_FALSE(given.empty());
  EXPECT_EQ(given.front(), 4096u - 2048u) << "and that is told";
  must(run(device->close()));
}

TEST(RetryKeep, WhileItIsOffTheDeviceIsAsItIs) {
  Server server(1);
  auto policy = keeping(1 * mib);
  const auto is_on = std::make_shared<std::atomic<bool>>(false);
  policy.is_on = is_on;
  auto device = over(server, policy);
  must(run(device->write(0, sectors(200), {})));
  server.restart(true);
  const auto flushed = run(device->flush());
  ASSERT_FALSE(flushed);
  EXPECT_EQ(flushed.error().kind(), ErrorKind::gone);
  EXPECT_EQ(server.opened, 1);
  *is_on = true;
  must(run(device->write(0, sectors(201), {})));
  must(run(device->flush()));
  EXPECT_EQ(server.opened, 2);
  server.restart(true);
  EXPECT_EQ(read_of(*device), sectors(201));
  must(run(device->close()));
}

/// Clients that write and read at random while the server is restarted again and again.
struct Trial {
  explicit Trial(std::uint64_t trial_seed)
      : seed(trial_seed), server(trial_seed), model(disk_bytes, 0), device(over(server, keeping(48 * kib))) {}

  Task<Result<void>> client(std::uint64_t number) {
    std::mt19937_64 random(seed * 16 + number);
    for (int i = 0; i < 60; ++i) {
      const std::uint64_t first = random() % (random() % 2 == 0 ? 8 : disk_bytes / sector_bytes - 32);
      const Range range{first * sector_bytes, (1 + random() % 32) * sector_bytes};
      const auto what = random() % 16;
      std::vector<std::byte> bytes(range.length);
      if (what < 8) {
        const std::uint64_t content = 100 + ++contents;
        fill_sectors(bytes, content, first);
        const auto token = model.begin(range, content);
        DISKFERRY_CO_CHECK(co_await device->write(range.offset, bytes, {.fua = what == 0}));
        model.end(token);
      } else if (what < 10) {
        const auto token = model.begin(range, 0);
        DISKFERRY_CO_CHECK(co_await device->write_zeroes(range, {}));
        model.end(token);
      } else if (what < 14) {
        const auto since = model.now();
        DISKFERRY_CO_CHECK(co_await device->read(range.offset, bytes));
        const auto problem = model.check(bytes, range.offset, since);
        EXPECT_EQ(problem, "") << "seed " << seed;
      } else if (what < 15) {
        DISKFERRY_CO_CHECK(co_await device->flush());
      } else if (random() % 4 == 0) {
        server.restart();
      }
    }
    co_return Result<void>{};
  }
  Task<Result<void>> all() {
    TaskGroup group(runtime().reactor(0));
    for (std::uint64_t i = 0; i < 6; ++i) group.spawn_on(runtime().reactor(i), client(i));
    co_return co_await group.join();
  }

  const std::uint64_t seed;
  Server server;
  SectorModel model;
  DevicePtr device;
  std::atomic<std::uint64_t> contents = 0;
};

TEST(RetryKeep, NothingThatWasAcknowledgedIsEverReadAsItWasBeforeOrLostAfterAFlush) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    Trial trial(seed);
    must(run(trial.all()));
    must(run(trial.device->flush()));
    trial.server.restart(true);
    const auto since = trial.model.now();
    EXPECT_EQ(trial.model.check(trial.server.stable, 0, since), "") << "seed " << seed;
    must(run(trial.device->close()));
    EXPECT_EQ(trial.server.open_now, 0);
    if (HasFailure()) break;
  }
}

}  // namespace
}  // namespace diskferry
