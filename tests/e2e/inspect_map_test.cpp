// inspect and map, against what qemu-img says of the same files.
#include "tests/e2e/program.hpp"

#include <filesystem>
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

/// Exit status 0, the image's own fields, and of the layer at `depth` only its name and the reason.
void expect_open_until(const std::string& image, std::size_t depth, const std::string& name,
                       const std::string& kind) {
  SCOPED_TRACE(name + " " + kind);
  const auto ran = diskferry({"inspect", "--json", image});
  ASSERT_EQ(ran.exit_code, 0) << ran.err;
  EXPECT_EQ(ran.err, "");
  const auto document = parse_json(ran.out);
  EXPECT_EQ(document.at("format"), "qcow2");
  EXPECT_EQ(document.at("virtual-size"), 24 << 20);
  EXPECT_EQ(document.at("complete"), false);
  EXPECT_TRUE(document.at("device").is_object());
  const auto& layers = document.at("layers").as_array();
  ASSERT_EQ(layers.size(), depth + 1);
  for (std::size_t i = 0; i < depth; ++i) EXPECT_EQ(layers[i].at("format"), "qcow2");
  const auto& missing = layers[depth].as_object();
  EXPECT_EQ(missing.size(), 2u) << ran.out;
  EXPECT_EQ(missing.at("image"), json::string(name));
  EXPECT_EQ(missing.at("problem").at("kind"), json::string(kind));
  const std::string message(missing.at("problem").at("message").as_string());
  EXPECT_NE(message.find(name), std::string::npos) << message;
  const auto text = diskferry({"inspect", image});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_NE(text.out.find("layer " + std::to_string(depth) + " (cannot be opened)"), std::string::npos)
      << text.out;
  EXPECT_NE(text.out.find(message), std::string::npos) << text.out;
}

TEST(Inspect, TellsWhatOpensAndWhyTheRestDoesNot) {
  const TemporaryFolder folder;
  const Chain chain(folder);
  EXPECT_EQ(parse_json(diskferry({"inspect", "--json", chain.top}).out).at("complete"), true);
  // Damaged, then not an image that is read here, then gone; first the lowest, then the one in the middle.
  for (const auto& [name, depth] : {std::pair{chain.base, 2u}, std::pair{chain.middle, 1u}}) {
    std::filesystem::resize_file(name, 100);
    expect_open_until(chain.top, depth, name, "corrupt");
    std::filesystem::remove(name);
    expect_open_until(chain.top, depth, name, "not_found");
    std::filesystem::create_directory(name);
    const auto directory = parse_json(diskferry({"inspect", "--json", chain.top}).out);
    EXPECT_EQ(directory.at("layers").as_array().size(), depth + 1);
    std::filesystem::remove(name);
  }
  for (const std::string name : {"/etc/passwd", "../elsewhere.qcow2"}) {
    tool({"qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", name, "-F", "raw", chain.top});
    expect_open_until(chain.top, 1, name, "permission");
  }
  tool({"qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", "nbd://host/", "-F", "raw", chain.top});
  expect_open_until(chain.top, 1, "nbd://host/", "unsupported");
  tool({"qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", chain.top, "-F", "qcow2", chain.top});
  expect_open_until(chain.top, 1, chain.top, "corrupt");
  // Nothing else takes a part of a chain for the whole disk.
  expect_refused(diskferry({"map", chain.top}), "map", 3);
  expect_refused(diskferry({"copy", chain.top, folder / "copy.raw"}), "copy", 3);
}

TEST(Inspect, TellsOfAnImageWhoseDataFileDoesNotOpen) {
  const TemporaryFolder folder;
  const std::string image = folder / "disk.qcow2";
  const std::string data = folder / "data.raw";
  tool({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=" + data, image, "8M"});
  const auto expect_problem = [](const std::string& name, std::size_t depth,
                                 const std::vector<std::string>& options, const std::string& kind) {
    auto command = options;
    command.insert(command.begin(), {"inspect", "--json", name});
    const auto ran = diskferry(command);
    ASSERT_EQ(ran.exit_code, 0) << ran.err;
    const auto document = parse_json(ran.out);
    EXPECT_EQ(document.at("complete"), false);
    EXPECT_EQ(document.at("virtual-size"), 8 << 20);
    EXPECT_EQ(document.at("device").is_null(), depth == 0);
    const auto layer = document.at("layers").at(depth);
    EXPECT_EQ(layer.at("format"), "qcow2");
    EXPECT_EQ(layer.at("data-file-problem").at("kind"), json::string(kind));
    command.erase(command.begin() + 1);
    const auto text = diskferry(command);
    EXPECT_EQ(text.exit_code, 0) << text.err;
    EXPECT_NE(text.out.find(std::string(layer.at("data-file-problem").at("message").as_string())),
              std::string::npos)
        << text.out;
  };
  expect_problem(image, 0, {}, "permission");
  EXPECT_EQ(parse_json(diskferry({"inspect", "--json", "--allow-data-file", image}).out).at("complete"),
            true);
  std::filesystem::remove(data);
  expect_problem(image, 0, {"--allow-data-file"}, "not_found");
  const std::string overlay = folder / "overlay.qcow2";
  tool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", image, "-F", "qcow2", overlay, "8M"});
  expect_problem(overlay, 1, {"--allow-data-file"}, "not_found");
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
