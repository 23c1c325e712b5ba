// inspect and map, against what qemu-img says of the same files.
#include "tests/e2e/program.hpp"

#include <fstream>

namespace diskferry::test {
namespace {
namespace json = boost::json;

/// The fields in one order; qemu-img rounds the end of the disk up to a sector, which adds to the last extent
/// or makes one of its own.
std::vector<std::string> normal_form(const json::value& map, std::uint64_t size_bytes) {
  std::vector<std::string> entries;
  for (const auto& entry : map.as_array()) {
    const auto start = entry.at("start").to_number<std::uint64_t>();
    if (start == size_bytes) continue;
    const auto length = std::min(entry.at("length").to_number<std::uint64_t>(), size_bytes - start);
    std::string text = std::to_string(start) + "+" + std::to_string(length);
    text += " depth " + std::to_string(entry.at("depth").to_number<std::uint64_t>());
    for (const char* flag : {"present", "zero", "data"}) {
      if (entry.at(flag).as_bool()) text += std::string(" ") + flag;
    }
    if (const auto* offset = entry.as_object().if_contains("offset"))
      text += " at " + std::to_string(offset->to_number<std::uint64_t>());
    entries.push_back(text);
  }
  return entries;
}

void expect_same_map(const std::string& image, const std::string& format, std::uint64_t size_bytes) {
  const auto ours = diskferry({"map", "--json", "-f", format, image});
  ASSERT_EQ(ours.exit_code, 0) << ours.err;
  const auto theirs = tool({"qemu-img", "map", "--output=json", "-f", format, image});
  EXPECT_EQ(normal_form(parse_json(ours.out), size_bytes), normal_form(parse_json(theirs), size_bytes))
      << image;
}

TEST(Map, SaysOfAChainWhatQemuImgSays) {
  const TemporaryFolder folder;
  const Chain chain(folder);
  expect_same_map(chain.base, "qcow2", 16 << 20);
  expect_same_map(chain.middle, "qcow2", 20 << 20);
  expect_same_map(chain.top, "qcow2", 24 << 20);
}

TEST(Map, SaysOfASparseFileOfOddSizeWhatQemuImgSays) {
  const TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  constexpr std::uint64_t size_bytes = 10'000'001;
  {
    std::ofstream file(image, std::ios::binary);
    file.seekp(5'000'000);
    file << "data in the middle";
    file.seekp(size_bytes - 1);
    file << '\0';
  }
  expect_same_map(image, "raw", size_bytes);
}

TEST(Map, TextFormHasALineForEachExtent) {
  const TemporaryFolder folder;
  const Chain chain(folder);
  const auto text = diskferry({"map", chain.top});
  const auto list = parse_json(diskferry({"map", "--json", chain.top}).out);
  EXPECT_EQ(static_cast<std::size_t>(std::ranges::count(text.out, '\n')), list.as_array().size() + 1)
      << text.out;
}

TEST(Inspect, TellsEveryLayerOfAChain) {
  const TemporaryFolder folder;
  const Chain chain(folder);
  const auto ran = diskferry({"inspect", "--json", chain.top});
  ASSERT_EQ(ran.exit_code, 0) << ran.err;
  const auto document = parse_json(ran.out);
  EXPECT_EQ(document.at("format"), "qcow2");
  EXPECT_EQ(document.at("virtual-size"), 24 << 20);
  const auto& layers = document.at("layers").as_array();
  ASSERT_EQ(layers.size(), 3u);
  EXPECT_EQ(layers[0].at("backing-filename"), json::string(chain.middle));
  EXPECT_EQ(layers[0].at("backing-filename-format"), "qcow2");
  EXPECT_EQ(layers[1].at("virtual-size"), 20 << 20);
  EXPECT_EQ(layers[2].at("virtual-size"), 16 << 20);
  EXPECT_EQ(layers[2].at("cluster-size"), 65536);
  EXPECT_EQ(layers[2].as_object().if_contains("backing-filename"), nullptr);
}

TEST(Inspect, ListsSnapshotsAndBitmaps) {
  const TemporaryFolder folder;
  const std::string image = folder / "disk.qcow2";
  tool({"qemu-img", "create", "-q", "-f", "qcow2", image, "8M"});
  tool({"qemu-img", "snapshot", "-c", "before the update", image});
  tool({"qemu-img", "bitmap", "--add", "-g", "32K", image, "backup-1"});
  const auto ran = diskferry({"inspect", "--json", image});
  ASSERT_EQ(ran.exit_code, 0) << ran.err;
  const auto layer = parse_json(ran.out).at("layers").at(0);
  ASSERT_EQ(layer.at("snapshots").as_array().size(), 1u);
  EXPECT_EQ(layer.at("snapshots").at(0).at("name"), "before the update");
  ASSERT_EQ(layer.at("bitmaps").as_array().size(), 1u);
  EXPECT_EQ(layer.at("bitmaps").at(0).at("name"), "backup-1");
  EXPECT_EQ(layer.at("bitmaps").at(0).at("granularity"), 32768);
}

TEST(Inspect, RefusesWhatIsNotThereAndWhatIsCorrupt) {
  const TemporaryFolder folder;
  expect_refused(diskferry({"inspect", folder / "nothing"}), "inspect", 3);
  const std::string broken = folder / "broken.qcow2";
  {
    std::ofstream file(broken, std::ios::binary);
    file << std::string("QFI\xfb\0\0\0\x03", 8) << std::string(2000, '\xff');
  }
  expect_refused(diskferry({"inspect", broken}), "inspect", 3);
}

}  // namespace
}  // namespace diskferry::test
