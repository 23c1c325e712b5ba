// Proving that two hosts have the same storage: the verdicts in a table, the two views of files in two
// folders, and the names of block devices in a made-up /sys.
#include "gateway/move/shared_proof.hpp"

#include "gateway/copy/world_wide_name.hpp"
#include "tests/support/test_runtime.hpp"

#include <filesystem>
#include <fstream>
#include <unistd.h>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
namespace fs = std::filesystem;
using test::must;
using test::run;

StorageView file_view() {
  return {.exists = true,
          .size_bytes = 10,
          .inode = 7,
          .marker_text = "abc",
          .is_marker_beside = true,
          .kernel = "k1"};
}
StorageView device_view() {
  return {
      .exists = true, .size_bytes = 10, .is_block_device = true, .kernel = "k1", .device_name = "naa.6001"};
}
StorageView network_view() {
  return {.exists = true, .size_bytes = 10, .addresses = {"10.0.0.1", "fd00::1"}, .samples = "5a"};
}

struct Row {
  std::string name;
  StorageView (*view)();
  void (*spoil)(StorageView& here, StorageView& there);
  bool is_shared;
  std::string reason;
  bool is_by_name = false;
};
void PrintTo(const Row& row, std::ostream* out) {
  *out << row.name;
}
const Row rows[] = {
    {"file", file_view, [](auto&, auto&) {}, true, "the other one read"},
    {"file_missing", file_view, [](auto&, auto& there) { there = {}; }, false, "the other host has nothing"},
    {"file_of_other_folder", file_view, [](auto&, auto& there) { there.marker_text.clear(); }, false,
     "not there for the other one"},
    {"marker_of_somebody_else", file_view, [](auto&, auto& there) { there.marker_text = "xyz"; }, false,
     "not there for the other one"},
    {"other_file_of_the_folder", file_view, [](auto&, auto& there) { there.inode = 8; }, false,
     "another one"},
    {"mounted_over", file_view, [](auto&, auto& there) { there.is_marker_beside = false; }, false,
     "another file system"},
    {"file_that_grew", file_view, [](auto&, auto& there) { there.size_bytes = 11; }, true, "the same file"},
    {"one_kernel_s_file_system", file_view,
     [](auto& here, auto& there) { here.file_system = there.file_system = "ext4"; }, true, "the same file"},
    {"ext4_on_two_kernels", file_view,
     [](auto& here, auto& there) {
       here.file_system = there.file_system = "ext4";
       there.kernel = "k2";
     },
     false, "cannot have the same ext4"},
    {"nfs_on_two_kernels", file_view, [](auto&, auto& there) { there.kernel = "k2"; }, true, "the same file"},
    {"file_with_a_problem", file_view, [](auto&, auto& there) { there.problem = "no way"; }, false, "no way"},
    {"file_and_device", file_view, [](auto&, auto& there) { there = device_view(); }, false,
     "block device on one host"},
    {"device", device_view, [](auto&, auto& there) { there.kernel = "k2"; }, true, "naa.6001"},
    {"device_without_a_name", device_view,
     [](auto& here, auto& there) {
       here.device_name.clear();
       there.device_name.clear();
     },
     false, "no world-wide name"},
    {"other_device", device_view, [](auto&, auto& there) { there.device_name = "naa.6002"; }, false,
     "naa.6002"},
    {"device_of_other_size", device_view, [](auto&, auto& there) { there.size_bytes = 11; }, false, "11"},
    {"network", network_view, [](auto&, auto& there) { there.addresses = {"fd00::1"}; }, true,
     "the same server and content"},
    {"network_without_addresses", network_view, [](auto&, auto& there) { there.addresses.clear(); }, true,
     "the same server and content"},
    {"other_server", network_view, [](auto&, auto& there) { there.addresses = {"10.0.0.2"}; }, false,
     "10.0.0.2 there"},
    {"other_content", network_view, [](auto&, auto& there) { there.samples = "5b"; }, false, "content"},
    {"network_closed_there", network_view, [](auto&, auto& there) { there.problem = "refused"; }, false,
     "refused"},
    {"network_closed_here", network_view, [](auto& here, auto&) { here.problem = "refused"; }, false,
     "refused"},
    {"network_closed_to_gateways", network_view,
     [](auto& here, auto& there) { here.problem = there.problem = "unknown kind"; }, true, "unknown kind",
     true},
};
class Verdict : public testing::TestWithParam<Row> {};
TEST_P(Verdict, FollowsFromBothViews) {
  StorageView here = GetParam().view();
  StorageView there = here;
  GetParam().spoil(here, there);
  const ShareVerdict verdict =
      here.addresses.empty() ? judge_marked(here, there, "abc") : judge_network(here, there);
  EXPECT_EQ(verdict.is_shared, GetParam().is_shared) << verdict.reason;
  EXPECT_EQ(verdict.is_by_name, GetParam().is_by_name);
  EXPECT_NE(verdict.reason.find(GetParam().reason), std::string::npos) << verdict.reason;
}
INSTANTIATE_TEST_SUITE_P(Table, Verdict, testing::ValuesIn(rows),
                         [](const auto& row) { return row.param.name; });

/// The other host: the same names lead below `root`.
class OtherHost final : public TargetGateway {
 public:
  OtherHost(DriverContext& context, std::string root) : context_(context), root_(std::move(root)) {}
  bool is_older = false;
  int writes = 0;

  Task<Result<StorageView>> see(StorageQuestion question) override {
    if (is_older) co_return co_await TargetGateway::see(std::move(question));
    if (question.act == StorageQuestion::Act::write) ++writes;
    question.uri = root_ + question.uri;
    co_return co_await view_storage(context_, std::move(question));
  }
  Task<Result<GatewayFacts>> facts() override { co_return GatewayFacts{}; }
  Task<Result<TargetDiskFacts>> look(TargetDiskRequest) override { co_return TargetDiskFacts{}; }
  Task<Result<PreparedDisk>> prepare(TargetDiskRequest) override { co_return PreparedDisk{}; }
  Task<Result<void>> finish(std::string, TargetEnd) override { co_return Result<void>{}; }
  Task<Result<TargetMachineAnswer>> machine(TargetMachineCall) override { co_return TargetMachineAnswer{}; }
  Result<std::string> export_uri(const PreparedDisk&, unsigned) const override { return ""; }
  Task<void> close() override { co_return; }

 private:
  DriverContext& context_;
  const std::string root_;
};

class SharedProof : public testing::Test {
 protected:
  SharedProof() : there_(test::runtime().context(), there_root_) {
    fs::create_directories(here_);
    fs::create_directories(fs::path(there_root_ + here_).parent_path());
    std::ofstream(image_) << "content";
  }
  ShareVerdict prove(const std::string& target = {}) {
    return must(run(prove_shared(test::runtime().context(), there_, ImageUri::from_path(image_),
                                 target.empty() ? image_ : target)));
  }
  static std::size_t files_in(const std::string& folder) {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), {}));
  }

  test::TemporaryFolder folder_;
  const std::string here_ = folder_ / "here";
  const std::string there_root_ = folder_ / "there";
  const std::string image_ = here_ + "/disk.raw";
  OtherHost there_;
};

TEST_F(SharedProof, OneFolderOnBothHosts) {
  fs::create_directory_symlink(here_, there_root_ + here_);
  EXPECT_TRUE(prove().is_shared);
  EXPECT_EQ(files_in(here_), 1u) << "the marker is still there";
  EXPECT_EQ(there_.writes, 0);
}

TEST_F(SharedProof, ACopyIsAnother) {
  fs::create_directories(there_root_ + here_);
  fs::copy_file(image_, there_root_ + image_);
  const ShareVerdict verdict = prove();
  EXPECT_FALSE(verdict.is_shared);
  EXPECT_NE(verdict.reason.find("another one"), std::string::npos) << verdict.reason;
}

TEST_F(SharedProof, OneFileInTwoFoldersIsNotSeenAsShared) {
  // The inode alone would say so; a clone of a whole file system has it in common, too.
  fs::create_directories(there_root_ + here_);
  fs::create_hard_link(image_, there_root_ + image_);
  const ShareVerdict verdict = prove();
  EXPECT_FALSE(verdict.is_shared);
  EXPECT_NE(verdict.reason.find("not there for the other one"), std::string::npos) << verdict.reason;
  EXPECT_EQ(files_in(here_), 1u);
}

TEST_F(SharedProof, AnotherNameOfTheSameFile) {
  fs::create_directory_symlink(here_, there_root_ + here_);
  fs::create_symlink(image_, here_ + "/link.raw");
  EXPECT_TRUE(prove(here_ + "/link.raw").is_shared);
}

TEST_F(SharedProof, NothingThere) {
  EXPECT_FALSE(prove().is_shared);
}

TEST_F(SharedProof, AFolderThatNobodyMayWrite) {
  fs::create_directory_symlink("/proc", there_root_ + "/proc");
  const ShareVerdict verdict = must(run(prove_shared(test::runtime().context(), there_,
                                                     ImageUri::from_path("/proc/version"), "/proc/version")));
  EXPECT_FALSE(verdict.is_shared);
  EXPECT_EQ(there_.writes, 1) << "the other host was not asked to write";
  EXPECT_NE(verdict.reason.find("the other host: "), std::string::npos) << verdict.reason;
}

TEST_F(SharedProof, AnOlderGatewayCannotSay) {
  there_.is_older = true;
  const ShareVerdict verdict = prove();
  EXPECT_FALSE(verdict.is_shared);
  EXPECT_NE(verdict.reason.find("cannot say"), std::string::npos) << verdict.reason;
}

TEST_F(SharedProof, OnlyMarkersAreWrittenAndRead) {
  DriverContext& context = test::runtime().context();
  std::ofstream(here_ + "/secret") << "abc";
  using enum StorageQuestion::Act;
  for (const std::string& marker :
       {std::string("secret"), std::string("../secret"), marker_name("../x"), marker_name("")}) {
    EXPECT_FALSE(run(view_storage(context, {.uri = image_, .marker = marker}))) << marker;
    EXPECT_FALSE(run(view_storage(context, {.act = write, .uri = image_, .marker = marker, .text = "ab"})))
        << marker;
  }
  EXPECT_FALSE(run(
      view_storage(context, {.act = write, .uri = image_, .marker = marker_name("ab"), .text = "#!/bin"})));
  // Somebody else's marker is neither overwritten nor removed.
  must(run(view_storage(context, {.act = write, .uri = image_, .marker = marker_name("ab"), .text = "cd"})));
  const auto again = must(
      run(view_storage(context, {.act = write, .uri = image_, .marker = marker_name("ab"), .text = "ef"})));
  EXPECT_FALSE(again.problem.empty());
  must(run(view_storage(context, {.act = remove, .uri = image_, .marker = marker_name("ab"), .text = "ef"})));
  EXPECT_TRUE(fs::exists(here_ + "/" + marker_name("ab")));
  must(run(view_storage(context, {.act = remove, .uri = image_, .marker = marker_name("ab"), .text = "cd"})));
  EXPECT_FALSE(fs::exists(here_ + "/" + marker_name("ab")));
}

TEST(StorageQuestion, EveryFieldComesBack) {
  const StorageQuestion question{.act = StorageQuestion::Act::remove,
                                 .uri = "/a",
                                 .marker = "m",
                                 .text = "t",
                                 .sample_seed = UINT64_MAX};
  EXPECT_EQ(to_json(must(parse_storage_question(to_json(question)))), to_json(question));
  EXPECT_FALSE(parse_storage_question(R"({"act":"erase"})"));
}

TEST(StorageView, EveryFieldComesBack) {
  StorageView view = file_view();
  view.is_block_device = true;
  view.file_system = "xfs";
  view.device_name = "naa.61";
  view.addresses = {"a", "b"};
  view.samples = "s";
  view.problem = "p";
  EXPECT_EQ(to_json(must(parse_storage_view(to_json(view)))), to_json(view));
}

/// Devices of a made-up kernel, each a folder with files, and the links from their numbers.
class WorldWideName : public testing::Test {
 protected:
  void add(const std::string& number, const std::string& path,
           std::initializer_list<std::pair<std::string, std::string>> files) {
    const fs::path device = folder_ / ("devices/" + path);
    fs::create_directories(device);
    write(device / "dev", number);
    for (const auto& [name, text] : files) write(device / name, text);
    fs::create_directories(folder_ / "block");
    fs::create_directory_symlink(device, folder_ / ("block/" + number));
  }
  void lie_on(const std::string& path, const std::string& below) {
    const fs::path slaves = folder_ / ("devices/" + path + "/slaves");
    fs::create_directories(slaves);
    fs::create_directory_symlink(folder_ / ("devices/" + below), slaves / fs::path(below).filename());
  }
  static void write(const fs::path& file, const std::string& text) {
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
  }
  std::string name(const std::string& number) { return layered_device_name(folder_ / "block", number); }
  test::TemporaryFolder folder_;
};

TEST_F(WorldWideName, IsTheMakers) {
  add("8:0", "sda", {{"device/wwid", "naa.6001405abc"}});
  add("8:2", "sda/sda2", {{"partition", "2"}});
  add("259:0", "nvme0n1", {{"wwid", "eui.0025388b710116b7"}});
  EXPECT_EQ(name("8:0"), "naa.6001405abc");
  EXPECT_EQ(name("8:2"), "naa.6001405abc-part2");
  EXPECT_EQ(name("259:0"), "eui.0025388b710116b7");
}

TEST_F(WorldWideName, IsNotWhatCheapDisksSay) {
  add("8:0", "sda", {{"device/wwid", "t10.ATA     QEMU HARDDISK   QM00001"}});
  add("252:0", "vda", {{"serial", "vda-1"}});
  add("8:16", "sdb", {{"device/wwid", "naa.0000000000000000"}});
  EXPECT_EQ(name("8:0"), "");
  EXPECT_EQ(name("252:0"), "");
  EXPECT_EQ(name("8:16"), "");
  EXPECT_EQ(name("9:9"), "");
}

TEST_F(WorldWideName, OfAMappedDeviceIncludesWhatItLiesOn) {
  add("8:0", "sda", {{"device/wwid", "naa.61"}});
  add("8:16", "sdb", {{"device/wwid", "naa.61"}});
  add("8:32", "sdc", {{"device/wwid", "t10.local"}});
  add("253:0", "dm-0", {{"dm/uuid", "mpath-36001"}});
  lie_on("dm-0", "sda");
  lie_on("dm-0", "sdb");
  add("253:1", "dm-1", {{"dm/uuid", "LVM-xyz"}});
  lie_on("dm-1", "dm-0");
  add("253:2", "dm-2", {{"dm/uuid", "LVM-local"}});
  lie_on("dm-2", "sdc");
  EXPECT_EQ(name("253:0"), "mpath-36001(naa.61)");
  EXPECT_EQ(name("253:1"), "LVM-xyz(mpath-36001(naa.61))");
  EXPECT_EQ(name("253:2"), "") << "a volume on a disk of this host alone";
}

}  // namespace
}  // namespace diskferry
