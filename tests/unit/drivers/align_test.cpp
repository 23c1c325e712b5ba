#include "drivers/filters/align.hpp"

#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/fault.hpp"
#include "drivers/memory/memory_device.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;

TEST(SplitAtBlocks, CutsWhereBlocksBegin) {
  struct Row {
    const char* what;
    Range range;
    std::uint64_t size_bytes;
    BlockPieces expected;
  };
  for (const Row& row : {
           Row{"whole blocks", {512, 1024}, 4096, {{512, 0}, {512, 1024}, {1536, 0}}},
           Row{"inside one block", {100, 50}, 4096, {{100, 50}, {150, 0}, {150, 0}}},
           Row{"from a block's begin", {512, 50}, 4096, {{512, 0}, {512, 0}, {512, 50}}},
           Row{"to a block's end", {600, 424}, 4096, {{600, 424}, {1024, 0}, {1024, 0}}},
           Row{"over one border", {500, 100}, 4096, {{500, 12}, {512, 0}, {512, 88}}},
           Row{"both edges", {500, 1100}, 4096, {{500, 12}, {512, 1024}, {1536, 64}}},
           Row{"short last block is whole", {512, 88}, 600, {{512, 0}, {512, 88}, {600, 0}}},
           Row{"end of the short last block", {520, 80}, 600, {{520, 80}, {600, 0}, {600, 0}}},
           Row{"nothing", {512, 0}, 4096, {{512, 0}, {512, 0}, {512, 0}}},
       }) {
    EXPECT_EQ(split_at_blocks(row.range, 512, row.size_bytes), row.expected) << row.what;
  }
  EXPECT_EQ(whole_blocks_around({100, 50}, 512, 120), (Range{0, 120}));
  EXPECT_EQ(whole_blocks_around({500, 100}, 512, 4096), (Range{0, 1024}));
}

TEST(Align, PassesTheDeviceItselfWhereNothingIsToDo) {
  std::shared_ptr<BlockDevice> device = checked(make_memory_device({.size_bytes = 4096}));
  EXPECT_EQ(with_byte_granularity(device), device);
  must(run(device->close()));
}

/// Two tasks write alternating bytes of the same blocks, a third one whole blocks beside and over them.
Task<Result<void>> write_single_bytes(BlockDevice& device, std::uint64_t first, std::uint64_t step,
                                      int rounds) {
  for (int round = 0; round < rounds; ++round) {
    const std::byte value{static_cast<unsigned char>(round + 1)};
    for (std::uint64_t at = first; at < 512; at += step)
      DISKFERRY_CO_CHECK(co_await device.write(at, std::span(&value, 1), {}));
  }
  co_return Result<void>{};
}
Task<Result<void>> write_one_block_from_many(BlockDevice& device) {
  TaskGroup group(runtime().reactor(0));
  for (std::uint64_t i = 0; i < 8; ++i)
    group.spawn_on(runtime().reactor(i), write_single_bytes(device, i, 8, 10));
  co_return co_await group.join();
}
TEST(Align, NoByteIsLostWhenManyWriteIntoOneBlock) {
  // A delay in the device below makes reading and writing back two separate moments.
  auto control = std::make_shared<FaultControl>(
      FaultPlan{.rules = {{.action = FaultAction::delay, .delay = std::chrono::microseconds(1)}}});
  std::shared_ptr<BlockDevice> slow =
      checked(make_fault_device(checked(make_memory_device({.size_bytes = 1000, .block_bytes = 512})),
                                control, runtime().context().clock));
  auto device = with_byte_granularity(slow);
  EXPECT_EQ(device->info().block_bytes, 1u);
  must(run(write_one_block_from_many(*device)));
  std::vector<std::byte> back(512);
  must(run(device->read(0, back)));
  EXPECT_EQ(back, std::vector<std::byte>(512, std::byte{10}));
  must(run(device->close()));
}

TEST(Align, FastZeroingThatIsNotFastChangesNothing) {
  auto device = with_byte_granularity(
      checked(make_memory_device({.size_bytes = 4096, .block_bytes = 512, .zero = ZeroSupport::none})));
  const auto data = test::pattern(0, 4096);
  must(run(device->write(0, data, {})));
  const auto zeroed = run(device->write_zeroes({100, 2000}, {.fast_only = true}));
  ASSERT_FALSE(zeroed);
  EXPECT_EQ(zeroed.error().kind(), ErrorKind::unsupported);
  std::vector<std::byte> back(4096);
  must(run(device->read(0, back)));
  EXPECT_EQ(back, data);
  must(run(device->close()));
}

TEST(Align, DiscardTouchesOnlyWholeBlocks) {
  auto device = with_byte_granularity(checked(make_memory_device({.size_bytes = 4096, .block_bytes = 512})));
  const auto data = test::pattern(0, 4096);
  must(run(device->write(0, data, {})));
  must(run(device->discard({100, 1000})));
  std::vector<std::byte> back(4096);
  must(run(device->read(0, back)));
  EXPECT_TRUE(std::equal(back.begin(), back.begin() + 512, data.begin()));
  EXPECT_TRUE(is_zero(std::span(back).subspan(512, 512)));
  EXPECT_TRUE(std::equal(back.begin() + 1024, back.end(), data.begin() + 1024));
  must(run(device->close()));
}

}  // namespace
}  // namespace diskferry
