// Many calls at once from both reactors, overlapping, and cancelled at random moments.
#include "diskferry/task_group.hpp"
#include "tests/contract/contract_test.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <random>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry::test {
namespace {

std::uint64_t seed_of_run() {
  if (const char* given = std::getenv("DISKFERRY_SEED")) return std::strtoull(given, nullptr, 10);
  return std::random_device{}();
}

/// Each write fills its range with one value of its own, so that a block of two values is a torn block.
bool is_one_value(std::span<const std::byte> block) {
  return std::ranges::all_of(block, [&](std::byte one) { return one == block.front(); });
}

struct Arena {
  BlockDevice& device;
  std::uint64_t block_bytes;  // the unit in which writes are whole
  std::uint64_t blocks;
  std::atomic<bool> is_torn = false;
};

Task<Result<void>> write_and_read_overlapping(Arena& arena, std::uint64_t seed, int rounds) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes;
  for (int i = 0; i < rounds; ++i) {
    const std::uint64_t first = random() % arena.blocks;
    const std::uint64_t count = 1 + random() % std::min<std::uint64_t>(4, arena.blocks - first);
    bytes.assign(count * arena.block_bytes, static_cast<std::byte>(1 + random() % 255));
    const std::uint64_t offset = first * arena.block_bytes;
    switch (random() % 4) {
      case 0:
        DISKFERRY_CO_CHECK(co_await arena.device.write_zeroes({offset, bytes.size()}, {}));
        break;
      case 1:
        DISKFERRY_CO_CHECK(co_await arena.device.read(offset, bytes));
        for (std::uint64_t block = 0; block < count; ++block) {
          if (!is_one_value(std::span(bytes).subspan(block * arena.block_bytes, arena.block_bytes)))
            arena.is_torn = true;
        }
        break;
      default:
        DISKFERRY_CO_CHECK(co_await arena.device.write(offset, bytes, {}));
    }
  }
  co_return Result<void>{};
}
Task<Result<void>> many_overlapping(Arena& arena, std::uint64_t seed, int rounds) {
  TaskGroup group(runtime().reactor(0));
  for (unsigned i = 0; i < 8; ++i)
    group.spawn_on(runtime().reactor(i), write_and_read_overlapping(arena, seed + i, rounds));
  co_return co_await group.join();
}

TEST_P(DeviceContract, EveryBlockHoldsOneOfTheWritesWhole) {
  const auto seed = seed_of_run();
  SCOPED_TRACE(fmt::format("DISKFERRY_SEED={}", seed));
  BlockDevice& device = open(512 * kib);
  const std::uint64_t block = device.info().block_bytes;
  Arena arena{
      .device = device, .block_bytes = block, .blocks = std::min<std::uint64_t>(16, 512 * kib / block)};
  must(run(many_overlapping(arena, seed, times(60))));
  EXPECT_FALSE(arena.is_torn) << "a read saw a block of two writes";
  for (std::uint64_t i = 0; i < arena.blocks; ++i)
    EXPECT_TRUE(is_one_value(read({i * block, block}))) << "block " << i;
}

Task<Result<void>> write_pattern(BlockDevice& device, Range range, std::uint64_t seed) {
  const auto data = pattern(range.offset, range.length, seed);
  co_return co_await device.write(range.offset, data, {});
}
Task<Result<void>> many_disjoint(BlockDevice& device, std::uint64_t unit, unsigned count) {
  TaskGroup group(runtime().reactor(0));
  for (unsigned i = 0; i < count; ++i)
    group.spawn_on(runtime().reactor(i), write_pattern(device, {i * unit, unit}, 7));
  co_return co_await group.join();
}
TEST_P(DeviceContract, ManyRequestsAtOnce) {
  constexpr unsigned count = 200;
  BlockDevice& device = open(count * 64 * kib);
  // Where single bytes are allowed, neighbours share the blocks below and must not disturb each other.
  const std::uint64_t unit = device.info().block_bytes == 1 ? 1337 : device.info().block_bytes;
  must(run(many_disjoint(device, unit, count)));
  EXPECT_EQ(first_difference(read({0, count * unit}), 0, 7), SIZE_MAX);
}

/// One operation on memory of its own, which is freed the moment the operation has ended.
Task<Result<void>> touch_and_free(BlockDevice& device, Range range, unsigned kind) {
  // Exactly as large as the request: one byte too far, or one moment too late, is AddressSanitizer's to find.
  auto memory = std::make_unique<std::byte[]>(range.length);
  const std::span bytes(memory.get(), range.length);
  std::ranges::fill(bytes, std::byte{0x5a});
  Result<void> done;
  switch (kind % 4) {
    case 0:
      done = co_await device.read(range.offset, bytes);
      break;
    case 1:
      done = co_await device.write(range.offset, bytes, {});
      break;
    case 2:
      done = co_await device.write(range.offset, bytes, {.fua = true});
      break;
    default:
      done = co_await device.write_zeroes(range, {});
  }
  memory.reset();
  if (!done && done.error().kind() != ErrorKind::cancelled) co_return done;
  co_return Result<void>{};
}
Task<Result<void>> cancel_in_the_middle(BlockDevice& device, std::vector<Range> ranges,
                                        std::uint64_t random) {
  TaskGroup group(runtime().reactor(0));
  for (std::size_t i = 0; i < ranges.size(); ++i)
    group.spawn_on(runtime().reactor(i), touch_and_free(device, ranges[i], static_cast<unsigned>(i)));
  // From "before it began" to "long done".
  for (std::uint64_t turn = random % 20; turn > 0; --turn) {
    const Executor executor = co_await boost::asio::this_coro::executor;
    co_await boost::asio::post(executor, boost::asio::use_awaitable_t<Executor>{});
  }
  group.cancel();
  const auto joined = co_await group.join();
  if (!joined && joined.error().kind() != ErrorKind::cancelled) co_return joined;
  co_return Result<void>{};
}

TEST_P(DeviceContract, CancelledCallsLetGoOfMemoryAndLeaveTheDeviceUsable) {
  const auto seed = seed_of_run();
  SCOPED_TRACE(fmt::format("DISKFERRY_SEED={}", seed));
  std::mt19937_64 random(seed);
  BlockDevice& device = open(1 * mib);
  if (GetParam().has_faults_below)
    opened().faults_below->add(
        {.action = FaultAction::delay, .probability = 0.5, .delay = std::chrono::microseconds(50)});
  for (int i = 0; i < times(60); ++i) {
    std::vector<Range> ranges;
    for (int k = 0; k < 8; ++k) ranges.push_back(whole({random() % (900 * kib), 1 + random() % (100 * kib)}));
    must(run(cancel_in_the_middle(device, ranges, random())));
  }
  if (GetParam().has_faults_below) opened().faults_below->clear();
  const Range all{0, device.size_bytes()};
  must(run(device.write(0, pattern(0, all.length, 8), {})));
  EXPECT_EQ(first_difference(read(all), 0, 8), SIZE_MAX);
  must(run(device.flush()));
}

}  // namespace
}  // namespace diskferry::test
