// A device whose storage comes later: how long it is waited for, and what it must be when it is there.
#include "drivers/filters/deferred.hpp"

#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/memory/memory_device.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;

/// What the calls of a device in front of it left behind here; outlives the device.
struct Storage {
  std::atomic<int> tries = 0;
  std::atomic<int> tries_at_once = 0;
  std::atomic<int> closed = 0;
  std::atomic<int> told_to_stop_waiting = 0;
  int failing_tries = 0;
  ErrorKind failure = ErrorKind::not_found;
  MemoryOptions memory{.size_bytes = 256 * kib};

  class Device final : public BlockDevice {
   public:
    explicit Device(Storage& storage)
        : storage_(storage), memory_(checked(make_memory_device(storage.memory))) {}
    const DeviceInfo& info() const noexcept override { return memory_->info(); }
    std::uint64_t size_bytes() const noexcept override { return memory_->size_bytes(); }
    Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
      return memory_->read(offset, into);
    }
    Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from,
                             WriteFlags flags) override {
      return memory_->write(offset, from, flags);
    }
    Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
      return memory_->write_zeroes(range, flags);
    }
    Task<Result<void>> discard(Range range) override { return memory_->discard(range); }
    Task<Result<void>> flush() override { return memory_->flush(); }
    Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
      return memory_->extents(range, extents_max);
    }
    Task<Result<void>> close() override {
      ++storage_.closed;
      return memory_->close();
    }
    void stop_waiting() noexcept override { ++storage_.told_to_stop_waiting; }

   private:
    Storage& storage_;
    DevicePtr memory_;
  };

  Task<Result<DevicePtr>> open() {
    EXPECT_EQ(++tries_at_once, 1);
    const int now = ++tries;
    --tries_at_once;
    if (now <= failing_tries) co_return unexpected(fail(failure, "open", "storage"));
    co_return checked(std::make_unique<Device>(*this));
  }
};

class DeferredTest : public testing::Test {
 protected:
  DevicePtr deferred(Clock& on) {
    return checked(make_deferred_device(on,
                                        {.info = {.name = "later",
                                                  .block_bytes = 512,
                                                  .zero = ZeroSupport::unmapping,
                                                  .is_read_only = false,
                                                  .can_discard = true,
                                                  .can_report_extents = true},
                                         .size_bytes = 256 * kib,
                                         .open_limit = std::chrono::seconds(1),
                                         .open_pause = std::chrono::milliseconds(50)},
                                        [this] { return storage.open(); }));
  }
  ErrorKind kind_of_read(BlockDevice& device) {
    std::vector<std::byte> bytes(512);
    const auto result = run(device.read(0, bytes));
    EXPECT_FALSE(result);
    return result ? ErrorKind::internal : result.error().kind();
  }
  /// Moves the fake clock whenever somebody sleeps on it.
  std::jthread moving_clock() {
    return std::jthread([this](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        if (clock.sleepers() > 0) clock.advance(std::chrono::milliseconds(50));
        std::this_thread::yield();
      }
    });
  }

  FakeClock clock;
  Storage storage;
};

TEST_F(DeferredTest, OpensOnFirstUseAndOnce) {
  auto device = deferred(clock);
  EXPECT_EQ(storage.tries, 0);
  EXPECT_EQ(device->size_bytes(), 256 * kib);
  EXPECT_EQ(device->info().name, "later");
  const auto data = test::pattern(4096, 8192);
  must(run(device->write(4096, data, {})));
  must(run(device->write_zeroes({8192, 512}, {})));
  must(run(device->discard({64 * kib, 512})));
  must(run(device->flush()));
  std::vector<std::byte> back(4096);
  must(run(device->read(4096, back)));
  EXPECT_EQ(test::first_difference(back, 4096), SIZE_MAX);
  EXPECT_FALSE(must(run(device->extents({0, 256 * kib}, 16))).empty());
  EXPECT_EQ(storage.tries, 1);
  must(run(device->close()));
  EXPECT_EQ(storage.closed, 1);
}

TEST_F(DeferredTest, ClosingWithoutUseOpensNothing) {
  auto device = deferred(clock);
  device->stop_waiting();
  EXPECT_EQ(device->repeated_requests(), 0u);
  must(run(device->close()));
  EXPECT_EQ(storage.tries, 0);
}

TEST_F(DeferredTest, WaitsUntilTheStorageIsThere) {
  for (const ErrorKind passing :
       {ErrorKind::not_found, ErrorKind::gone, ErrorKind::io, ErrorKind::permission, ErrorKind::timed_out}) {
    SCOPED_TRACE(to_string(passing));
    storage.tries = 0;
    storage.failing_tries = 5;
    storage.failure = passing;
    auto device = deferred(clock);
    const auto ticking = moving_clock();
    must(run(device->flush()));
    EXPECT_EQ(storage.tries, 6);
    must(run(device->close()));
  }
}

TEST_F(DeferredTest, GivesUpAtTheLimitForGood) {
  storage.failing_tries = 1000;
  auto device = deferred(clock);
  const TimePoint began = clock.now();
  {
    const auto ticking = moving_clock();
    EXPECT_EQ(kind_of_read(*device), ErrorKind::not_found);
  }
  EXPECT_GE(clock.now() - began, std::chrono::seconds(1));
  EXPECT_EQ(storage.tries, 21);
  EXPECT_EQ(kind_of_read(*device), ErrorKind::not_found) << "without another try";
  EXPECT_EQ(storage.tries, 21);
  must(run(device->close()));
}

TEST_F(DeferredTest, WhatWillNotPassIsFinalAtOnce) {
  for (const ErrorKind lasting : {ErrorKind::invalid_argument, ErrorKind::unsupported, ErrorKind::protocol}) {
    storage.tries = 0;
    storage.failing_tries = 1;
    storage.failure = lasting;
    auto device = deferred(clock);
    EXPECT_EQ(kind_of_read(*device), lasting);
    EXPECT_EQ(kind_of_read(*device), lasting);
    EXPECT_EQ(storage.tries, 1);
    must(run(device->close()));
  }
}

TEST_F(DeferredTest, StorageThatIsLessThanPromisedIsClosedAndRefused) {
  struct Row {
    const char* name;
    MemoryOptions memory;
  };
  for (const Row& row : {Row{"smaller", {.size_bytes = 128 * kib}}, Row{"larger", {.size_bytes = 512 * kib}},
                         Row{"coarser", {.size_bytes = 256 * kib, .block_bytes = 4096}},
                         Row{"read-only", {.size_bytes = 256 * kib, .read_only = true}}}) {
    SCOPED_TRACE(row.name);
    storage.memory = row.memory;
    storage.closed = 0;
    auto device = deferred(clock);
    EXPECT_EQ(kind_of_read(*device), ErrorKind::mismatch);
    EXPECT_EQ(storage.closed, 1);
    must(run(device->close()));
  }
}

Task<Result<void>> use(BlockDevice& device) {
  co_return co_await device.flush();
}
Task<Result<void>> use_at_once(BlockDevice& device) {
  TaskGroup group(co_await boost::asio::this_coro::executor);
  for (std::size_t i = 0; i < 8; ++i)
    group.spawn_on(runtime().reactor(i % runtime().reactor_count()), use(device));
  co_return co_await group.join();
}

TEST_F(DeferredTest, ManyFirstCallsOpenOnce) {
  storage.failing_tries = 3;
  auto device = deferred(clock);
  const auto ticking = moving_clock();
  must(run(use_at_once(*device)));
  EXPECT_EQ(storage.tries, 4);
  must(run(device->close()));
}

Task<Result<void>> cancel_while_it_waits(FakeClock& clock, BlockDevice& device) {
  TaskGroup group(co_await boost::asio::this_coro::executor);
  group.spawn(use(device));
  SystemClock real;
  while (clock.sleepers() == 0) DISKFERRY_CO_CHECK(co_await real.sleep_for(std::chrono::milliseconds(1)));
  group.cancel();
  co_return co_await group.join();
}

TEST_F(DeferredTest, WhoIsCancelledSpoilsNothingForOthers) {
  storage.failing_tries = 1;
  auto device = deferred(clock);
  const auto result = run(cancel_while_it_waits(clock, *device));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind(), ErrorKind::cancelled);
  must(run(device->flush()));
  must(run(device->close()));
}

TEST_F(DeferredTest, WhoEndsDoesNotWaitForStorageThatIsAway) {
  storage.failing_tries = 1000;
  auto device = deferred(clock);
  device->stop_waiting();
  EXPECT_EQ(kind_of_read(*device), ErrorKind::not_found);
  EXPECT_EQ(storage.tries, 1);
  must(run(device->close()));
}

TEST_F(DeferredTest, TheEndIsToldToTheStorageWhetherItIsOpenOrNot) {
  auto open_before = deferred(clock);
  must(run(open_before->flush()));
  open_before->stop_waiting();
  EXPECT_EQ(storage.told_to_stop_waiting, 1);
  must(run(open_before->close()));
  auto open_after = deferred(clock);
  open_after->stop_waiting();
  must(run(open_after->flush()));
  EXPECT_EQ(storage.told_to_stop_waiting, 2);
  must(run(open_after->close()));
}

}  // namespace
}  // namespace diskferry
