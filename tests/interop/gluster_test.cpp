// The GlusterFS driver against a real volume: what a copy's own tests cannot see.
#include "drivers/registry.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/storage_server.hpp"
#include "tests/support/test_runtime.hpp"

#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>

#include <gtest/gtest.h>

namespace diskferry::test {
namespace {

constexpr std::uint64_t disk_bytes = 1 << 20;

class GlusterDriver : public testing::Test {
 protected:
  ImageUri uri(const std::string& file, const std::string& keys = "") {
    return must(ImageUri::parse(fmt::format("{}/{}{}", server_.variable("GLUSTER_URI"), file, keys)));
  }
  void create(const ImageUri& at) { must(run(create_storage(context(), at, {.size_bytes = disk_bytes}))); }
  DevicePtr open(const ImageUri& at, OpenOptions options = {.writable = true}) {
    return must(run(open_storage(context(), at, options)));
  }
  VolumeFacts look(const ImageUri& at) {
    return must(run((*must(find_driver(at))).look(context(), at, {.for_writing = true})));
  }
  static DriverContext& context() { return runtime().context(); }
  static std::size_t threads() {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator("/proc/self/task"), {}));
  }
  std::string brick(const std::string& file) { return server_.variable("GLUSTER_BRICK") + "/" + file; }

  StorageServer server_{"gluster"};
};

/// No request is under way when the brick goes and comes back: the library itself would open the file again
/// and flush what is there, whatever was lost.
TEST_F(GlusterDriver, AFlushAfterARestartThatNobodyMetFails) {
  create(uri("disk"));
  const auto device = open(uri("disk"));
  const auto other = open(uri("disk"), {.force_share = true});
  must(run(device->write(0, pattern(0, 4096), {})));
  must(run(device->flush()));
  must(run(device->write(4096, pattern(4096, 4096), {})));
  server_.tell("kill9");
  server_.tell("start");
  std::vector<std::byte> back(4096);
  must(run(other->read(0, back)));  // the mount that both share is connected again
  must(run(other->close()));
  must(run(device->read(0, back)));
  EXPECT_EQ(first_difference(back, 0), SIZE_MAX);
  const auto flushed = run(device->flush());
  ASSERT_FALSE(flushed);
  EXPECT_EQ(flushed.error().kind(), ErrorKind::gone);
  EXPECT_FALSE(run(device->flush())) << "a second flush must not say that all is well";
  must(run(device->close()));
}

TEST_F(GlusterDriver, AFlushAfterARestartWithNothingToFlushSucceeds) {
  create(uri("disk"));
  const auto device = open(uri("disk"));
  must(run(device->write(0, pattern(0, 4096), {})));
  must(run(device->flush()));
  server_.tell("kill9");
  server_.tell("start");
  must(run(device->flush()));
  must(run(device->write(4096, pattern(4096, 4096), {})));
  must(run(device->flush()));
  EXPECT_GT(device->repeated_requests(), 0u);
  must(run(device->close()));
}

TEST_F(GlusterDriver, AnotherFileOfTheSameNameIsNotWrittenTo) {
  create(uri("disk"));
  const auto device = open(uri("disk"));
  must(run(device->write(0, pattern(0, 4096), {})));
  server_.tell("kill9");
  server_.tell("start");
  must(run(find_driver(uri("disk")).value()->remove(context(), uri("disk"))));
  create(uri("disk"));
  const auto written = run(device->write(4096, pattern(4096, 4096), {}));
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().kind(), ErrorKind::gone);
  must(run(device->close()));
}

TEST_F(GlusterDriver, DevicesShareOneMount) {
  constexpr int rounds = 5;
  create(uri("disk"));
  std::vector<DevicePtr> devices;
  devices.push_back(open(uri("disk"), {}));
  const std::size_t with_one = threads();
  for (int i = 0; i < rounds; ++i) devices.push_back(open(uri("disk"), {}));
  for (const auto& device : devices) must(run(device->close()));
  for (int i = 0; i < rounds; ++i) {
    const auto device = open(uri("disk"));
    must(run(device->close()));
  }
  EXPECT_EQ(threads(), with_one) << "a device costs no thread, and neither does opening again";
}

TEST_F(GlusterDriver, AWriterIsAlone) {
  create(uri("disk"));
  const auto writer = open(uri("disk"));
  for (const OpenOptions& other : {OpenOptions{.writable = true}, OpenOptions{}}) {
    const auto opened = run(open_storage(context(), uri("disk"), other));
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().kind(), ErrorKind::in_use);
  }
  const auto facts = look(uri("disk"));
  ASSERT_EQ(facts.obstacles.size(), 1u);
  EXPECT_EQ(facts.obstacles.front().kind(), ErrorKind::in_use);
  EXPECT_FALSE(run(find_driver(uri("disk")).value()->remove(context(), uri("disk"))));
  EXPECT_FALSE(run(create_storage(context(), uri("disk"), {.size_bytes = 1, .replace = true})));
  EXPECT_EQ(std::filesystem::file_size(brick("disk")), disk_bytes);
  const auto shared = open(uri("disk"), {.force_share = true});
  must(run(shared->close()));
  must(run(writer->close()));
  EXPECT_TRUE(look(uri("disk")).obstacles.empty());
}

TEST_F(GlusterDriver, AnotherServerIsAskedWhereTheFirstIsAway) {
  const std::string address = server_.variable("GLUSTER_ADDRESS");
  for (const char* first : {"nowhere.invalid", "127.0.0.1:1"}) {
    const auto at =
        must(ImageUri::parse(fmt::format("gluster://{}/vol0/disk?backup-servers={}", first, address)));
    must(run(create_storage(context(), at, {.size_bytes = disk_bytes, .replace = true})));
  }
}

TEST_F(GlusterDriver, ToldOfAVolumeIsWhatIsThere) {
  const VolumeFacts before = look(uri("disk"));
  EXPECT_FALSE(before.exists);
  EXPECT_TRUE(before.identity.empty());
  EXPECT_TRUE(before.obstacles.empty());
  EXPECT_GT(before.free_bytes.value_or(0), 0u);
  create(uri("disk"));
  const VolumeFacts facts = look(uri("disk"));
  EXPECT_TRUE(facts.exists);
  EXPECT_TRUE(facts.can_be_emptied);
  EXPECT_EQ(facts.size_bytes, disk_bytes);
  EXPECT_NE(facts.modified_ns, 0);
  EXPECT_TRUE(facts.identity.starts_with("gluster|")) << facts.identity;
  EXPECT_EQ(facts.identity, look(uri("disk", "?stall-timeout=7")).identity);
  create(uri("other"));
  EXPECT_NE(facts.identity, look(uri("other")).identity);
  const VolumeFacts nowhere = look(uri("none/disk"));
  ASSERT_EQ(nowhere.obstacles.size(), 1u);
  EXPECT_EQ(nowhere.obstacles.front().kind(), ErrorKind::not_found);
}

TEST_F(GlusterDriver, CreatesPreallocatesReplacesAndRemoves) {
  must(run(create_storage(context(), uri("disk"), {.size_bytes = disk_bytes, .preallocate = true})));
  struct stat status{};
  ASSERT_EQ(::stat(brick("disk").c_str(), &status), 0);
  EXPECT_GE(static_cast<std::uint64_t>(status.st_blocks) * 512, disk_bytes);
  const auto again = run(create_storage(context(), uri("disk"), {.size_bytes = 1}));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().kind(), ErrorKind::already_exists);
  must(run(create_storage(context(), uri("disk"), {.size_bytes = 2 * disk_bytes, .replace = true})));
  EXPECT_EQ(std::filesystem::file_size(brick("disk")), 2 * disk_bytes);
  EXPECT_EQ(std::filesystem::status(brick("disk")).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  const Driver& driver = *must(find_driver(uri("disk")));
  must(run(driver.remove(context(), uri("disk"))));
  EXPECT_FALSE(std::filesystem::exists(brick("disk")));
  EXPECT_EQ(run(driver.remove(context(), uri("disk"))).error().kind(), ErrorKind::not_found);
}

/// A format's storage grows by writes and by zeros past its end.
TEST_F(GlusterDriver, GrowsByWhatIsWrittenPastItsEnd) {
  must(run(create_storage(context(), uri("disk"), {})));
  const auto device = open(uri("disk"));
  ASSERT_TRUE(device->info().can_grow);
  must(run(device->write(8192, pattern(8192, 512), {})));
  EXPECT_EQ(device->size_bytes(), 8704u);
  must(run(device->write_zeroes({.offset = 4096, .length = 100'001}, {})));
  EXPECT_EQ(device->size_bytes(), 104'097u);
  std::vector<std::byte> back(104'097, std::byte{1});
  must(run(device->read(0, back)));
  EXPECT_TRUE(std::ranges::all_of(back, [](std::byte one) { return one == std::byte{0}; }));
  must(run(device->close()));
  EXPECT_EQ(std::filesystem::file_size(brick("disk")), 104'097u);
}

}  // namespace
}  // namespace diskferry::test
