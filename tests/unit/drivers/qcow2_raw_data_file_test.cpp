// Overlapping requests to an image with a raw data file: whichever comes last, the file and the tables say
// the same.
#include "diskferry/sync.hpp"
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/image/qcow2/create.hpp"
#include "drivers/image/qcow2/device.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/drivers/recording_device.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry {
namespace {
using test::must;
using test::run;

constexpr std::uint64_t disk_bytes = 1 * mib;

/// Writes of one length wait until they are let go.
class SlowDataFile final : public BlockDevice {
 public:
  explicit SlowDataFile(std::size_t slow_length) : slow_length_(slow_length) {}
  const DeviceInfo& info() const noexcept override { return bytes.info(); }
  std::uint64_t size_bytes() const noexcept override { return bytes.size_bytes(); }
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    return bytes.read(offset, into);
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    if (from.size() == slow_length_) {
      is_writing.set();
      DISKFERRY_CO_CHECK(co_await may_go_on.wait());
    }
    co_return co_await bytes.write(offset, from, flags);
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    return bytes.write_zeroes(range, flags);
  }
  Task<Result<void>> discard(Range range) override { return bytes.discard(range); }
  Task<Result<void>> flush() override { return bytes.flush(); }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    return bytes.extents(range, extents_max);
  }
  Task<Result<void>> close() override { return bytes.close(); }

  test::RecordingDevice bytes{std::vector<std::byte>(disk_bytes)};
  AsyncEvent is_writing;
  AsyncEvent may_go_on;

 private:
  const std::size_t slow_length_;
};

Task<Result<void>> zero(BlockDevice& device, SlowDataFile& data, Range range, AsyncEvent& done) {
  DISKFERRY_CO_CHECK(co_await data.is_writing.wait());
  auto zeroed = co_await device.write_zeroes(range, {});
  done.set();
  co_return zeroed;
}

/// Lets the write go on when the zeroing has ended, or has had more than enough turns to.
Task<Result<void>> let_go(SlowDataFile& data, AsyncEvent& zeroed) {
  DISKFERRY_CO_CHECK(co_await data.is_writing.wait());
  for (unsigned turn = 0; turn < 10'000 && !zeroed.is_set(); ++turn)
    co_await boost::asio::post(co_await boost::asio::this_coro::executor,
                               boost::asio::use_awaitable_t<Executor>{});
  data.may_go_on.set();
  co_return Result<void>{};
}

Task<Result<void>> write(BlockDevice& device, std::uint64_t offset, std::span<const std::byte> from) {
  return device.write(offset, from, {});
}

Task<Result<void>> overlap(BlockDevice& device, SlowDataFile& data, Range zeroed) {
  const auto before = test::pattern(0, 128 * kib);
  const auto slow = test::pattern(7, 5 * 512);
  DISKFERRY_CO_CHECK(co_await device.write(0, before, {}));
  AsyncEvent done;
  TaskGroup group(co_await boost::asio::this_coro::executor);
  group.spawn(write(device, 64 * kib, slow));
  group.spawn(zero(device, data, zeroed, done));
  group.spawn(let_go(data, done));
  co_return co_await group.join();
}

TEST(Qcow2RawDataFile, AZeroingDoesNotOvertakeAWriteInPlace) {
  // Whole clusters, and a part of one.
  for (const Range zeroed : {Range{0, 128 * kib}, Range{64 * kib, 4 * kib}}) {
    const std::shared_ptr<BlockDevice> storage = checked(std::make_unique<test::RecordingDevice>());
    must(run(qcow2::create(*storage, {.size_bytes = disk_bytes})));
    std::vector<std::byte> start(64 * kib);
    must(run(storage->read(0, start)));
    auto header = must(qcow2::parse_header(start, "raw data"));
    header.incompatible_features |= qcow2::incompatible::data_file;
    header.autoclear_features |= qcow2::autoclear::data_file_raw;
    auto owned = std::make_unique<SlowDataFile>(5 * 512);
    SlowDataFile& data = *owned;
    auto device =
        must(run(qcow2::Qcow2Device::open(test::runtime().context(), {.name = "raw data",
                                                                      .header = std::move(header),
                                                                      .storage = storage,
                                                                      .data_file = checked(std::move(owned)),
                                                                      .writable = true})));
    must(run(overlap(*device, data, zeroed)));
    std::vector<std::byte> seen(disk_bytes);
    must(run(device->read(0, seen)));
    EXPECT_TRUE(data.bytes.content() == seen) << "the tables and the file differ";
    // The one that came last counts.
    for (std::uint64_t at = zeroed.offset; at < zeroed.end(); ++at) ASSERT_EQ(seen[at], std::byte{0}) << at;
    must(run(device->close()));
  }
}

}  // namespace
}  // namespace diskferry
