// Storage that a machine runs on, while its server is killed and loses what it had not made durable: real
// servers, and what they had written to their disks since is taken away while they are down.
#include "drivers/image/kept_storage.hpp"

#include "diskferry/units.hpp"
#include "drivers/registry.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/storage_server.hpp"
#include "tests/support/test_runtime.hpp"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>

#include <gtest/gtest.h>

namespace diskferry::test {
namespace {

constexpr std::uint64_t disk_bytes = 4 * mib;

class KeptStorage : public testing::TestWithParam<std::string> {
 protected:
  /// A volume, and the file that its server has it in.
  struct Volume {
    ImageUri uri;
    std::string file;
  };
  Volume make() {
    auto& context = runtime().context();
    if (GetParam() == "iscsi")
      return {must(ImageUri::parse(server_.variable("ISCSI_URI"))),
              server_.variable("ISCSI_IMAGES") + "/lun1.img"};
    const bool is_nfs = GetParam() == "nfs";
    const std::string uri =
        is_nfs ? fmt::format("nfs://{}{}/disk?nfsport={}&mountport={}", server_.variable("NFS_ADDRESS"),
                             server_.variable("NFS_EXPORT"), server_.variable("NFS_PORT"),
                             server_.variable("NFS_MOUNT_PORT"))
               : server_.variable("GLUSTER_URI") + "/disk";
    Volume made{must(ImageUri::parse(uri)),
                server_.variable(is_nfs ? "NFS_PATH" : "GLUSTER_BRICK") + "/disk"};
    must(run(create_storage(context, made.uri, {.size_bytes = disk_bytes})));
    return made;
  }
  /// Killed, and started again with what its disk held when `content` was read.
  void restart_without_cache(const Volume& volume, const std::vector<std::byte>& content) {
    server_.tell("kill9");
    std::ofstream disk(volume.file, std::ios::binary | std::ios::in);  // the same file
    disk.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
    EXPECT_TRUE(disk.flush());
    start();
  }
  /// Ganesha's verifier is the second in which it was started: in the same one nobody can tell its two lives
  /// apart.
  void start() {
    EXPECT_TRUE(wait_until([this] { return std::time(nullptr) > started_; }));
    server_.tell("start");
    started_ = std::time(nullptr);
  }
  static std::vector<std::byte> content_of(const Volume& volume) {
    std::vector<std::byte> bytes(disk_bytes);
    std::ifstream(volume.file, std::ios::binary)
        .read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return bytes;
  }

  StorageServer server_{GetParam(), GetParam() == "iscsi"
                                        ? std::vector<std::string>{"--size", std::to_string(disk_bytes)}
                                        : std::vector<std::string>{}};
  std::time_t started_ = std::time(nullptr);
};

TEST_P(KeptStorage, LosesNothingToAServerThatDoes) {
  const Volume volume = make();
  const auto device = must(run(open_kept_storage(runtime().context(), volume.uri, {.writable = true}, {})));
  for (std::uint64_t round = 0; round < 3; ++round) {
    const auto durable = content_of(volume);
    const std::uint64_t at = round * mib;
    const auto data = pattern(at, 256 * kib);
    must(run(device->write(at, data, {})));
    must(run(device->write_zeroes({at + 64 * kib, 64 * kib}, {})));
    restart_without_cache(volume, durable);
    auto expected = data;
    std::fill_n(expected.begin() + 64 * kib, 64 * kib, std::byte{0});
    std::vector<std::byte> back(data.size());
    must(run(device->read(at, back)));
    EXPECT_EQ(back == expected, true) << "what it lost is read as it was written";
    must(run(device->flush()));
    restart_without_cache(volume, content_of(volume));
    must(run(device->read(at, back)));
    EXPECT_EQ(back == expected, true) << "and it has it now";
  }
  must(run(device->close()));
}

/// Where a file can be replaced under its writer: Gluster has it locked, and tgt gives a new LUN the identity
/// of the old one.
class KeptFile : public KeptStorage {};

TEST_P(KeptFile, IsNotWrittenToAnotherOneOfItsName) {
  const Volume volume = make();
  const auto device = must(run(open_kept_storage(runtime().context(), volume.uri, {.writable = true}, {})));
  must(run(device->write(0, pattern(0, 4096), {})));
  {
    auto& context = runtime().context();
    must(run((*must(find_driver(volume.uri))->remove)(context, volume.uri)));
    must(run(create_storage(context, volume.uri, {.size_bytes = disk_bytes})));
  }
  server_.tell("kill9");
  start();
  const auto flushed = run(device->flush());
  ASSERT_FALSE(flushed);
  EXPECT_EQ(flushed.error().kind(), ErrorKind::mismatch) << flushed.error().message();
  const auto other = content_of(volume);
  EXPECT_TRUE(std::ranges::all_of(other, [](std::byte one) { return one == std::byte{0}; }));
  must(run(device->close()));
}

INSTANTIATE_TEST_SUITE_P(Servers, KeptStorage, testing::Values("nfs", "iscsi", "gluster"),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(Servers, KeptFile, testing::Values("nfs"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace diskferry::test
