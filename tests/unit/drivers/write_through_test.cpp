// Each write is durable before it is acknowledged.
#include "drivers/filters/write_through.hpp"

#include "drivers/checked_device.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/drivers/recording_device.hpp"

#include <gtest/gtest.h>

namespace diskferry::test {
namespace {

TEST(WriteThrough, FlushesWithEachChange) {
  auto recording = std::make_unique<RecordingDevice>(std::vector<std::byte>(64 * 1024), false);
  RecordingDevice& below = *recording;
  const std::shared_ptr<BlockDevice> inner = checked(std::move(recording));
  const std::shared_ptr<BlockDevice> device = checked(make_write_through_device(inner));
  must(run(device->write(0, std::vector<std::byte>(512, std::byte{1}), {})));
  must(run(device->write_zeroes({4096, 512}, {})));
  must(run(device->discard({8192, 512})));
  must(run(device->close()));
  ASSERT_EQ(below.changes().size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(below.changes()[i].is_flush, i % 2 == 1) << i;
  // Its owner goes on with it.
  must(run(inner->write(0, std::vector<std::byte>(512, std::byte{2}), {})));
  must(run(inner->close()));
}

}  // namespace
}  // namespace diskferry::test
