// What a host's own names of network storage stand for: mounts and mapped devices, as the kernel tells them.
#include "gateway/copy/attached_storage.hpp"

#include "gateway/copy/identity.hpp"
#include "tests/support/test_runtime.hpp"

#include <filesystem>
#include <fstream>
#include <vector>

namespace diskferry::test {
namespace {

constexpr std::string_view mounts =
    "22 27 0:20 / /sys rw shared:7 - sysfs sysfs rw\n"
    "27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
    "90 27 0:50 / /mnt/a rw shared:30 - nfs4 Server.Example:/export "
    "rw,vers=4.2,clientaddr=10.0.0.9,addr=10.0.0.5\n"
    "91 27 0:51 /vms /mnt/b\\040c rw shared:31 - nfs [fd00::1]:/volume rw\n"
    "92 90 254:2 / /mnt/a/local rw - xfs /dev/vdb rw\n"
    "93 27 0:52 / /mnt/d rw - fuse.sshfs user@host:/x rw\n"
    "a line that is none\n";

struct Row {
  std::string name;
  std::string path;
  std::vector<std::string> expected;
};
void PrintTo(const Row& row, std::ostream* out) {
  *out << row.name;
}
class NfsName : public testing::TestWithParam<Row> {};
TEST_P(NfsName, IsThatOfTheServer) {
  EXPECT_EQ(nfs_names(mounts, GetParam().path), GetParam().expected);
}
INSTANTIATE_TEST_SUITE_P(
    Rows, NfsName,
    testing::Values(Row{"mounted",
                        "/mnt/a/x/d.raw",
                        {"nfs|server.example|0||export/x/d.raw", "nfs|10.0.0.5|0||export/x/d.raw"}},
                    Row{"part_of_an_export", "/mnt/b c/d", {"nfs|fd00::1|0||volume/vms/d"}},
                    Row{"local_below_it", "/mnt/a/local/d", {}}, Row{"beside_it", "/mnt/ab/d", {}},
                    Row{"other_kind", "/mnt/d/d", {}}, Row{"local", "/srv/d", {}}),
    [](const auto& row) { return row.param.name; });

TEST(NfsName, IsAlsoTheOneOfTheUri) {
  const ImageUri uri = must(ImageUri::parse("nfs://SERVER.example/export/x/d.raw?nfsport=2050"));
  EXPECT_EQ(network_name(uri), nfs_names(mounts, "/mnt/a/x/d.raw").front());
  const ImageUri by_address = must(ImageUri::parse("nfs://10.0.0.5:2049/export/x/d.raw"));
  EXPECT_EQ(network_name(by_address), nfs_names(mounts, "/mnt/a/x/d.raw").back());
}

TEST(MappedRbd, IsNamedByItsIds) {
  const TemporaryFolder folder;
  const auto write = [&](const std::string& path, std::string_view text) {
    std::filesystem::create_directories(std::filesystem::path(folder / path).parent_path());
    std::ofstream(folder / path) << text << "\n";
  };
  std::filesystem::create_directories(folder / "block/rbd7");
  std::filesystem::create_directories(folder / "block/sda");
  write("rbd/7/cluster_fsid", "5f1b");
  write("rbd/7/pool_id", "3");
  write("rbd/7/image_id", "10ab");
  write("rbd/7/current_snap", "-");
  EXPECT_EQ(mapped_rbd_name(folder / "rbd", folder / "block/rbd7"), "rbd|5f1b|3||10ab");
  EXPECT_EQ(mapped_rbd_name(folder / "rbd", folder / "block/sda"), "");
  write("rbd/7/pool_ns", "team");
  EXPECT_EQ(mapped_rbd_name(folder / "rbd", folder / "block/rbd7"), "rbd|5f1b|3|team|10ab");
  write("rbd/7/current_snap", "monday");
  EXPECT_EQ(mapped_rbd_name(folder / "rbd", folder / "block/rbd7"), "") << "a snapshot is not the image";
}

TEST(StorageKeys, AFileHasOneByAnyName) {
  const TemporaryFolder folder;
  std::ofstream(folder / "a") << "x";
  std::filesystem::create_hard_link(folder / "a", folder / "b");
  auto& context = runtime().context();
  const auto a = must(run(storage_keys(context, ImageUri::from_path(folder / "a"))));
  const auto b = must(run(storage_keys(context, ImageUri::from_path(folder / "b"))));
  EXPECT_FALSE(common_key(a, b).empty());
  EXPECT_TRUE(must(run(storage_keys(context, ImageUri::from_path(folder / "none")))).empty());
  std::ofstream(folder / "c") << "x";
  const auto c = must(run(storage_keys(context, ImageUri::from_path(folder / "c"))));
  EXPECT_TRUE(common_key(a, c).empty());
}

}  // namespace
}  // namespace diskferry::test
