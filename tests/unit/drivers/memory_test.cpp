#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/memory/memory_device.hpp"
#include "drivers/registry.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;

Task<Result<void>> write_and_map(BlockDevice& device) {
  const auto data = test::pattern(100000, 1000);
  DISKFERRY_CO_CHECK(co_await device.write(100000, data, {}));
  DISKFERRY_CO_TRY(auto extents, co_await device.extents({0, device.size_bytes()}, 100));
  EXPECT_EQ(extents.size(), 3u);
  std::vector<std::byte> back(1000);
  DISKFERRY_CO_CHECK(co_await device.read(100000, back));
  EXPECT_EQ(back, data);
  DISKFERRY_CO_CHECK(co_await device.write_zeroes({100000, 1000}, {}));
  DISKFERRY_CO_CHECK(co_await device.read(100000, back));
  EXPECT_TRUE(is_zero(back));
  co_return co_await device.close();
}

TEST(MemoryDevice, RemembersAndReportsHoles) {
  auto device = checked(make_memory_device({.size_bytes = 1 * mib}));
  must(run(write_and_map(*device)));
}

TEST(CheckedDevice, EndsTheProcessOnOurOwnMistakes) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  auto device = checked(make_memory_device({.size_bytes = 1024, .block_bytes = 512, .read_only = true}));
  std::vector<std::byte> bytes(512);
  EXPECT_DEATH((void)device->try_read(1024, bytes), "inside the device");
  EXPECT_DEATH((void)device->try_read(100, bytes), "aligned");
  EXPECT_DEATH((void)device->try_write(0, bytes), "read-only");
}

TEST(Registry, UnknownSchemesAndKeysAreRefusedByName) {
  auto unknown = run(open_storage(test::runtime().context(), must(ImageUri::parse("gopher://x/y")), {}));
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().kind(), ErrorKind::unsupported);
  auto key = run(
      open_storage(test::runtime().context(), must(ImageUri::parse("memory:///?size=1M&colour=red")), {}));
  ASSERT_FALSE(key);
  EXPECT_NE(key.error().message().find("colour"), std::string::npos);
}

}  // namespace
}  // namespace diskferry
