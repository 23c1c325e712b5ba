// What reading and writing of one image share: the cache that loads once, the readers that a writer waits
// for, and storages that take whole blocks only.
#include "diskferry/task_group.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/image/qcow2/device.hpp"
#include "drivers/image/qcow2/loading_cache.hpp"
#include "drivers/image/qcow2/readers.hpp"
#include "drivers/memory/memory_device.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/drivers/tiny_qcow2.hpp"

namespace diskferry::qcow2 {
namespace {
using test::must;
using test::run;

using Cache = LoadingCache<const int>;

struct Askers {
  Cache cache{100};
  AsyncEvent may_load{};
  std::atomic<int> loads = 0;
  std::atomic<int> answers = 0;
};
Task<Result<void>> ask(Askers& askers, std::uint64_t key, bool fails) {
  DISKFERRY_CO_TRY(auto lookup, co_await askers.cache.find_or_claim(key));
  if (!lookup.value) {
    ++askers.loads;
    DISKFERRY_CO_CHECK(co_await askers.may_load.wait());
    if (fails && askers.loads == 1) co_return Result<void>{};  // the claim is given up
    lookup.value = std::make_shared<const int>(7);
    lookup.claim.publish(lookup.value, 10);
  }
  askers.answers += *lookup.value == 7 ? 1 : 0;
  co_return Result<void>{};
}
Task<Result<void>> ask_many(Askers& askers, bool first_fails) {
  TaskGroup tasks(test::runtime().reactor(0));
  for (std::size_t i = 0; i < 20; ++i)
    tasks.spawn_on(test::runtime().reactor(i % 2), ask(askers, 1, first_fails));
  askers.may_load.set();
  co_return co_await tasks.join();
}

TEST(LoadingCache, LoadsOnceHoweverManyAsk) {
  Askers askers;
  must(run(ask_many(askers, false)));
  EXPECT_EQ(askers.loads, 1);
  EXPECT_EQ(askers.answers, 20);
}

TEST(LoadingCache, AFailedLoadLetsTheNextOneTry) {
  Askers askers;
  must(run(ask_many(askers, true)));
  EXPECT_EQ(askers.loads, 2);
  EXPECT_EQ(askers.answers, 19);
}

TEST(LoadingCache, StaysWithinItsLimitAndKeepsWhatIsInUse) {
  Cache cache(100);
  const auto held = std::make_shared<const int>(0);
  cache.insert(1000, held, 10);
  for (std::uint64_t key = 0; key < 50; ++key) cache.insert(key, std::make_shared<const int>(1), 10);
  EXPECT_LE(cache.held_bytes(), 100u);
  EXPECT_EQ(cache.find(1000), held);
  EXPECT_FALSE(cache.find(0));
  EXPECT_TRUE(cache.find(49));
  cache.forget(49);
  EXPECT_FALSE(cache.find(49));
}

Task<Result<void>> load_what_is_forgotten_meanwhile(Cache& cache) {
  DISKFERRY_CO_TRY(auto lookup, co_await cache.find_or_claim(1));
  cache.forget(1);
  lookup.claim.publish(std::make_shared<const int>(1), 10);
  co_return Result<void>{};
}
TEST(LoadingCache, AValueForgottenWhileItWasLoadedDoesNotEnter) {
  Cache cache(100);
  must(run(load_what_is_forgotten_meanwhile(cache)));
  EXPECT_FALSE(cache.find(1));
}

struct Room {
  Readers readers{};
  std::atomic<bool> is_waiting_over = false;
};
Task<Result<void>> wait_for_readers(Room& room) {
  co_await room.readers.wait_for_earlier();
  room.is_waiting_over = true;
  co_return Result<void>{};
}
Task<Result<void>> pass_the_loop() {
  co_await boost::asio::post(co_await boost::asio::this_coro::executor,
                             boost::asio::use_awaitable_t<Executor>{});
  co_return Result<void>{};
}
Task<Result<void>> read_while_the_writer_waits(Room& room) {
  TaskGroup writer(co_await boost::asio::this_coro::executor);
  auto early = std::make_unique<Readers::Token>(room.readers.enter());
  writer.spawn(wait_for_readers(room));
  for (int i = 0; i < 10; ++i) DISKFERRY_CO_CHECK(co_await pass_the_loop());
  EXPECT_FALSE(room.is_waiting_over) << "a reader from before is still reading";
  const auto late = room.readers.enter();
  early.reset();
  DISKFERRY_CO_CHECK(co_await writer.join());
  EXPECT_TRUE(room.is_waiting_over) << "readers that came later do not matter";
  co_return Result<void>{};
}
TEST(Readers, TheWriterWaitsForThoseBeforeItOnly) {
  Room room;
  must(run(read_while_the_writer_waits(room)));
  must(run(wait_for_readers(room)));
}

Task<Result<void>> enter_and_leave(Room& room) {
  for (int i = 0; i < 3000; ++i) {
    const auto token = room.readers.enter();
    if (i % 100 == 0) DISKFERRY_CO_CHECK(co_await pass_the_loop());
  }
  co_return Result<void>{};
}
Task<Result<void>> wait_often(Room& room) {
  for (int i = 0; i < 200; ++i) DISKFERRY_CO_CHECK(co_await wait_for_readers(room));
  co_return Result<void>{};
}
Task<Result<void>> readers_and_a_writer(Room& room) {
  TaskGroup tasks(test::runtime().reactor(0));
  for (std::size_t i = 0; i < 6; ++i) tasks.spawn_on(test::runtime().reactor(i % 2), enter_and_leave(room));
  tasks.spawn_on(test::runtime().reactor(1), wait_often(room));
  co_return co_await tasks.join();
}
TEST(Readers, NobodyIsForgottenOnTwoThreads) {
  Room room;
  must(run(readers_and_a_writer(room)));
}

Task<Result<void>> read_over_blocks(std::uint32_t block) {
  const test::TinyQcow2 tiny(3, 9);
  const std::uint64_t storage_bytes = align_up(tiny.bytes.size(), block);
  std::shared_ptr<BlockDevice> storage =
      checked(make_memory_device({.size_bytes = storage_bytes, .block_bytes = block}));
  auto bytes = tiny.bytes;
  bytes.resize(storage_bytes);
  DISKFERRY_CO_CHECK(co_await storage->write(0, bytes, {}));
  DISKFERRY_CO_TRY(auto header, parse_header(bytes, "tiny"));
  DISKFERRY_CO_TRY(auto opened,
                   co_await Qcow2Device::open(test::runtime().context(),
                                              {.name = "tiny", .header = header, .storage = storage}));
  const DevicePtr device = checked(std::move(opened));
  std::vector<std::byte> data(300);
  DISKFERRY_CO_CHECK(co_await device->read(100, data));
  EXPECT_EQ(data[0], std::byte{0x11});
  DISKFERRY_CO_CHECK(co_await device->read(500, data));
  EXPECT_EQ(data[11], std::byte{0x11});
  EXPECT_EQ(data[12], std::byte{0});
  co_return co_await device->close();
}
TEST(Qcow2Device, ReadsAnyBytesOverStorageOfWholeBlocks) {
  for (const std::uint32_t block : {1u, 512u, 4096u}) must(run(read_over_blocks(block)));
}

}  // namespace
}  // namespace diskferry::qcow2
