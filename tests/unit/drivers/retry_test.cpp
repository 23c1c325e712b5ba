#include "drivers/filters/retry.hpp"

#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/fault.hpp"
#include "drivers/memory/memory_device.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;

/// Storage that survives its connections: each open() is a new fault device over the same memory, and what is
/// opened later has power again.
struct Storage {
  explicit Storage(const char* rules, std::uint64_t size_bytes = 256 * kib)
      : control(std::make_shared<FaultControl>(must(parse_fault_plan(rules)))),
        memory(checked(make_memory_device({.size_bytes = size_bytes}))) {}

  DevicePtr connect() {
    control->restore_power();
    // Closing a connection does not close the memory behind it.
    class Borrowed final : public BlockDevice {
     public:
      explicit Borrowed(Storage& storage) : storage_(storage) { ++storage_.connected; }
      ~Borrowed() override { --storage_.connected; }
      const DeviceInfo& info() const noexcept override { return storage_.memory->info(); }
      std::uint64_t size_bytes() const noexcept override { return storage_.memory->size_bytes(); }
      Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
        co_return co_await storage_.memory->read(offset, into);
      }
      Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from,
                               WriteFlags flags) override {
        co_return co_await storage_.memory->write(offset, from, flags);
      }
      Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
        co_return co_await storage_.memory->write_zeroes(range, flags);
      }
      Task<Result<void>> discard(Range range) override { co_return co_await storage_.memory->discard(range); }
      Task<Result<void>> flush() override { co_return co_await storage_.memory->flush(); }
      Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
        co_return co_await storage_.memory->extents(range, extents_max);
      }
      Task<Result<void>> close() override {
        ++storage_.closed;
        co_return Result<void>{};
      }

     private:
      Storage& storage_;
    };
    ++opened;
    return checked(
        make_fault_device(checked(std::make_unique<Borrowed>(*this)), control, runtime().context().clock));
  }
  static Task<Result<DevicePtr>> reopen(Storage& storage) {
    if (storage.failing_opens > 0) {
      --storage.failing_opens;
      co_return unexpected(fail(storage.open_error, "open", "storage"));
    }
    if (storage.replacement) co_return std::move(storage.replacement);
    co_return storage.connect();
  }
  DevicePtr retrying(RetryPolicy policy = {.first_delay = std::chrono::milliseconds(1),
                                           .delay_max = std::chrono::milliseconds(4)}) {
    return checked(
        make_retry_device(connect(), [this] { return reopen(*this); }, policy, runtime().context().clock));
  }

  std::shared_ptr<FaultControl> control;
  DevicePtr memory;
  std::atomic<int> opened = 0;
  std::atomic<int> closed = 0;
  std::atomic<int> connected = 0;
  int failing_opens = 0;
  ErrorKind open_error = ErrorKind::gone;
  DevicePtr replacement;
};
ErrorKind kind_of(const Result<void>& result) {
  EXPECT_FALSE(result);
  return result ? ErrorKind::internal : result.error().kind();
}

TEST(RetryDelay, DoublesUpToItsBound) {
  const RetryPolicy policy{.first_delay = std::chrono::milliseconds(100),
                           .delay_max = std::chrono::seconds(1)};
  EXPECT_EQ(retry_delay(policy, 1), std::chrono::milliseconds(100));
  EXPECT_EQ(retry_delay(policy, 4), std::chrono::milliseconds(800));
  EXPECT_EQ(retry_delay(policy, 5), std::chrono::seconds(1));
  EXPECT_EQ(retry_delay(policy, 4000000000u), std::chrono::seconds(1));
}

TEST(Retry, PassingTroubleIsNotSeen) {
  Storage storage("write,fail=io,calls=1-2;read,fail=timed_out,calls=1;write,fail-late=gone,calls=3");
  auto device = storage.retrying();
  const auto data = test::pattern(0, 64 * kib);
  must(run(device->write(0, data, {})));
  std::vector<std::byte> back(data.size());
  must(run(device->read(0, back)));
  EXPECT_EQ(back, data);
  EXPECT_EQ(storage.opened, 2);
  EXPECT_EQ(storage.closed, 1) << "the lost connection is closed before the next is opened";
  must(run(device->close()));
  EXPECT_EQ(storage.closed, 2);
  device.reset();
  EXPECT_EQ(storage.connected, 0);
}

TEST(Retry, WhatWillNotPassIsReportedAtOnce) {
  Storage storage("write,fail=no_space");
  auto device = storage.retrying();
  EXPECT_EQ(kind_of(run(device->write(0, test::pattern(0, 512), {}))), ErrorKind::no_space);
  EXPECT_EQ(storage.control->calls(FaultVerb::write), 1u);
  must(run(device->close()));
}

TEST(Retry, GivesUpAfterItsAttempts) {
  Storage storage("read,fail=io");
  auto device = storage.retrying({.attempts_max = 3, .first_delay = Duration(1000)});
  std::vector<std::byte> bytes(512);
  const auto failed = run(device->read(0, bytes));
  EXPECT_EQ(kind_of(failed), ErrorKind::io);
  EXPECT_NE(failed.error().message().find("3 attempts"), std::string::npos) << failed.error().message();
  EXPECT_EQ(storage.control->calls(FaultVerb::read), 3u);
  must(run(device->close()));
}

TEST(Retry, ServerThatIsAwayForAWhileIsWaitedFor) {
  Storage storage("write,cut,calls=2");
  storage.failing_opens = 3;
  storage.open_error = ErrorKind::not_found;  // its socket
  auto device = storage.retrying();
  must(run(device->write(0, test::pattern(0, 512), {.fua = true})));
  must(run(device->write(512, test::pattern(512, 512), {.fua = true})));
  must(run(device->flush()));
  std::vector<std::byte> back(1024);
  must(run(device->read(0, back)));
  EXPECT_EQ(test::first_difference(back, 0), SIZE_MAX);
  must(run(device->close()));
}

TEST(Retry, AFlushAfterALostConnectionFailsForGood) {
  Storage storage("write,cut,calls=2");
  auto device = storage.retrying();
  must(run(device->write(0, test::pattern(0, 512), {})));
  must(run(device->write(512, test::pattern(512, 512), {})));  // meets the cut, is repeated
  EXPECT_EQ(kind_of(run(device->flush())), ErrorKind::io);
  EXPECT_EQ(kind_of(run(device->flush())), ErrorKind::io) << "repeating the flush must not heal it";
  must(run(device->write(0, test::pattern(0, 512), {})));
  must(run(device->close()));
}

TEST(Retry, AFlushCoversWhatCameBeforeIt) {
  Storage storage("write,cut,calls=2");
  auto device = storage.retrying();
  must(run(device->write(0, test::pattern(0, 512), {})));
  must(run(device->flush()));
  must(run(device->write(512, test::pattern(512, 512), {})));  // nothing was unflushed when the power went
  must(run(device->flush()));
  must(run(device->close()));
}

TEST(Retry, AFailedFlushIsNotRepeatedWhileSomethingIsUnflushed) {
  Storage storage("flush,fail=io,calls=1");
  auto device = storage.retrying();
  must(run(device->write(0, test::pattern(0, 512), {})));
  EXPECT_EQ(kind_of(run(device->flush())), ErrorKind::io);
  EXPECT_EQ(storage.control->calls(FaultVerb::flush), 1u);
  EXPECT_EQ(kind_of(run(device->flush())), ErrorKind::io);
  must(run(device->close()));
}

TEST(Retry, AFlushOfNothingIsRepeated) {
  Storage storage("flush,fail=io,calls=1;flush,fail=gone,calls=2");
  auto device = storage.retrying();
  must(run(device->flush()));
  must(run(device->close()));
}

TEST(Retry, AnotherDiskIsNotTakenForTheOldOne) {
  Storage storage("write,cut,calls=1");
  storage.replacement = checked(make_memory_device({.size_bytes = 1 * mib}));
  auto device = storage.retrying();
  EXPECT_EQ(kind_of(run(device->write(0, test::pattern(0, 512), {}))), ErrorKind::mismatch);
  must(run(device->close()));
}

Task<Result<void>> write_much(BlockDevice& device, std::uint64_t first, int count) {
  for (int i = 0; i < count; ++i) {
    const std::uint64_t offset = (first + static_cast<std::uint64_t>(i) * 8) * 512;
    const auto data = test::pattern(offset, 512);
    DISKFERRY_CO_CHECK(co_await device.write(offset, data, {.fua = true}));
    if (const auto at_once = device.try_write(offset, data)) DISKFERRY_CO_CHECK(*at_once);
  }
  co_return Result<void>{};
}
Task<Result<void>> write_from_many(BlockDevice& device) {
  TaskGroup group(runtime().reactor(0));
  for (std::uint64_t i = 0; i < 8; ++i) group.spawn_on(runtime().reactor(i), write_much(device, i, 60));
  co_return co_await group.join();
}
TEST(Retry, ManyCallsShareOneNewConnection) {
  Storage storage("seed=5;write,fail-late=gone,p=0.03;write,fail=io,p=0.05");
  auto device = storage.retrying();
  must(run(write_from_many(*device)));
  std::vector<std::byte> back(8 * 60 * 512);
  must(run(device->read(0, back)));
  EXPECT_EQ(test::first_difference(back, 0), SIZE_MAX);
  EXPECT_GT(storage.opened, 2);
  must(run(device->close()));
  device.reset();
  EXPECT_EQ(storage.connected, 0);
  EXPECT_EQ(storage.closed, storage.opened);
}

Task<Result<void>> write_and_cancel(BlockDevice& device, Storage& storage) {
  TaskGroup group(runtime().reactor(1));
  group.spawn(write_much(device, 0, 1));
  while (storage.control->faults() == 0)
    DISKFERRY_CO_CHECK(co_await runtime().context().clock.sleep_for(Duration(1000)));
  group.cancel();
  co_return co_await group.join();
}
TEST(Retry, CancellingEndsTheWaitBetweenAttempts) {
  Storage storage("write,fail=io");
  auto device = storage.retrying({.first_delay = std::chrono::hours(1),
                                  .delay_max = std::chrono::hours(1),
                                  .limit = std::chrono::hours(9)});
  EXPECT_EQ(kind_of(run(write_and_cancel(*device, storage))), ErrorKind::cancelled);
  must(run(device->close()));
}

}  // namespace
}  // namespace diskferry
