// The NBD client against nbdkit, qemu-nbd and nbd-server: every verb, as those servers understand it.
#include "tests/interop/nbd_client_support.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using namespace test;

Task<Result<void>> write_read_zero(BlockDevice& device) {
  const auto data = pattern(300 * kib, 400 * kib);
  DISKFERRY_CO_CHECK(co_await device.write(300 * kib, data, {}));
  std::vector<std::byte> back(data.size());
  DISKFERRY_CO_CHECK(co_await device.read(300 * kib, back));
  EXPECT_EQ(first_difference(back, 300 * kib), SIZE_MAX);
  DISKFERRY_CO_CHECK(co_await device.write_zeroes({400 * kib, 64 * kib}, {}));
  DISKFERRY_CO_CHECK(co_await device.read(400 * kib, std::span(back).first(64 * kib)));
  EXPECT_TRUE(is_zero(std::span(back).first(64 * kib)));
  DISKFERRY_CO_CHECK(co_await device.write(0, std::span(data).first(4096), {.fua = true}));
  DISKFERRY_CO_CHECK(co_await device.discard({1 * mib, 64 * kib}));
  DISKFERRY_CO_CHECK(co_await device.prefetch({0, 64 * kib}));
  co_return co_await device.flush();
}

TEST(NbdClient, ReadsWritesZeroesAndFlushesOnNbdkit) {
  auto server = nbdkit({"memory", "16M"});
  OpenDevice device(server.uri(), {.writable = true});
  EXPECT_EQ(device->size_bytes(), 16 * mib);
  EXPECT_TRUE(device->info().can_fua);
  EXPECT_TRUE(device->info().can_multi_connection);
  must(run(write_read_zero(*device)));
  const auto extents = must(run(device->extents({0, 16 * mib}, 100)));
  EXPECT_FALSE(extents.front().reads_zero);
  EXPECT_TRUE(extents.back().reads_zero);
  EXPECT_EQ(extents.back().end(), 16 * mib);
}

}  // namespace
}  // namespace diskferry
