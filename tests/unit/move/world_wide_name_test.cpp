// What counts as a disk's name on every host: a table of what sysfs may say.
#include "gateway/copy/world_wide_name.hpp"

#include "tests/support/test_runtime.hpp"

#include <filesystem>
#include <fstream>

namespace diskferry::test {
namespace {

struct Row {
  std::string name;
  std::vector<std::pair<std::string, std::string>> files;
  std::string expected;
};
void PrintTo(const Row& row, std::ostream* out) {
  *out << row.name;
}
class WorldWideName : public testing::TestWithParam<Row> {};
TEST_P(WorldWideName, IsThis) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "sda");
  for (const auto& [path, text] : GetParam().files) {
    std::filesystem::create_directories(std::filesystem::path(folder / path).parent_path());
    std::ofstream(folder / path) << text << "\n";
  }
  const bool is_partition = std::filesystem::exists(folder / "sda/sda1");
  EXPECT_EQ(world_wide_name(folder / (is_partition ? "sda/sda1" : "sda")), GetParam().expected);
}
INSTANTIATE_TEST_SUITE_P(
    Rows, WorldWideName,
    testing::Values(
        Row{"none", {}, ""}, Row{"scsi", {{"sda/device/wwid", "naa.600140512345"}}, "naa.600140512345"},
        Row{"nvme", {{"sda/wwid", "eui.0025385b71b0e7a5"}}, "eui.0025385b71b0e7a5"},
        Row{"emulated_disk", {{"sda/device/wwid", "t10.ATA     QEMU HARDDISK   QM00001"}}, ""},
        Row{"of_no_company", {{"sda/device/wwid", "naa.60000000000000000e00000000010001"}}, ""},
        Row{"assigned_locally", {{"sda/device/wwid", "naa.3000000100000001"}}, ""},
        Row{"nothing_but_zeros", {{"sda/device/wwid", "naa.0000000000000000"}}, ""},
        Row{"multipath", {{"sda/dm/uuid", "mpath-3600140512345"}}, "naa.600140512345"},
        Row{"multipath_of_no_company", {{"sda/dm/uuid", "mpath-360000000000000000e00000000010001"}}, ""},
        Row{"volume_group", {{"sda/dm/uuid", "LVM-abcdef"}}, ""},
        Row{"partition",
            {{"sda/device/wwid", "naa.600140512345"},
             {"sda/sda1/partition", "1"},
             {"sda/sda1/start", "2048"}},
            "naa.600140512345+2048"},
        Row{"too_long", {{"sda/device/wwid", "naa." + std::string(300, '1')}}, ""}),
    [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace diskferry::test
