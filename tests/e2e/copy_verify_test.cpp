// copy, verify and plan, as a user runs them.
#include "tests/e2e/program.hpp"

#include <filesystem>
#include <fstream>

namespace diskferry::test {
namespace {

TEST(Copy, FlattensAChainThatQemuImgFindsTheSame) {
  const TemporaryFolder folder;
  const Chain chain(folder);
  const std::string flat = folder / "flat.raw";
  const auto ran = diskferry({"copy", chain.top, flat});
  ASSERT_EQ(ran.exit_code, 0) << ran.err;
  EXPECT_NE(ran.out.find("verification"), std::string::npos) << ran.out;
  EXPECT_EQ(ran.err, "");  // no progress where stderr is no terminal
  tool({"qemu-img", "compare", "-f", "qcow2", "-F", "raw", chain.top, flat});
  const auto again = diskferry({"verify", chain.top, flat});
  EXPECT_EQ(again.exit_code, 0) << again.err;
}

TEST(Copy, LeavesAnExistingTargetAloneUnlessTold) {
  const TemporaryFolder folder;
  const std::string source = folder / "source.raw";
  const std::string target = folder / "target.raw";
  std::ofstream(source) << std::string(8192, 's');
  std::ofstream(target) << std::string(8192, 't');
  expect_refused(diskferry({"copy", source, target}), "copy", 3);
  std::ifstream file(target);
  EXPECT_EQ(file.get(), 't');
  EXPECT_EQ(diskferry({"copy", "--overwrite", source, target}).exit_code, 0);
  EXPECT_EQ(diskferry({"verify", source, target}).exit_code, 0);
}

TEST(Copy, RefusesToCopyAnImageOntoItself) {
  const TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  const std::string alias = folder / "alias.raw";
  std::ofstream(image) << std::string(8192, 's');
  std::filesystem::create_hard_link(image, alias);
  expect_refused(diskferry({"copy", "--overwrite", image, alias}), "copy", 3);
  std::ifstream file(image);
  EXPECT_EQ(file.get(), 's');
}

TEST(Copy, ReportsInJsonAndInAFile) {
  const TemporaryFolder folder;
  const Chain chain(folder);
  const auto ran =
      diskferry({"copy", "--json", "--report", folder / "report.json", chain.top, folder / "flat.raw"});
  ASSERT_EQ(ran.exit_code, 0) << ran.err;
  const auto printed = parse_json(ran.out);
  std::ifstream file(folder / "report.json");
  const std::string stored((std::istreambuf_iterator<char>(file)), {});
  EXPECT_EQ(parse_json(stored), printed);
  EXPECT_EQ(printed.at("verification").at("result"), "equal");
}

TEST(Copy, ProgressAsJsonIsOneObjectALineOnStderr) {
  const TemporaryFolder folder;
  const Chain chain(folder);
  const auto ran = diskferry({"copy", "--progress", "json", chain.top, folder / "flat.raw"});
  ASSERT_EQ(ran.exit_code, 0) << ran.err;
  std::istringstream lines(ran.err);
  std::string line;
  std::size_t count = 0;
  for (; std::getline(lines, line); ++count) EXPECT_TRUE(parse_json(line).is_object()) << line;
  EXPECT_GT(count, 0u);
}

TEST(Verify, NamesTheFirstDifferenceAndExitsFour) {
  const TemporaryFolder folder;
  const std::string a = folder / "a.raw";
  const std::string b = folder / "b.raw";
  std::string content(1 << 20, 'x');
  std::ofstream(a) << content;
  content[700'001] = 'y';
  std::ofstream(b) << content;
  const auto ran = diskferry({"verify", a, b});
  EXPECT_EQ(ran.exit_code, 4);
  EXPECT_NE(ran.out.find("700001"), std::string::npos) << ran.out;
  EXPECT_EQ(parse_json(diskferry({"verify", "--json", a, b}).out).at("same"), false);
}

TEST(Plan, ShowsBlockersAndChangesNothing) {
  const TemporaryFolder folder;
  const Chain chain(folder);
  const std::string target = folder / "target.raw";
  EXPECT_EQ(diskferry({"plan", "copy", chain.top, target}).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(target));
  std::ofstream(target) << "something";
  const auto blocked = diskferry({"plan", "copy", "--json", chain.top, target});
  EXPECT_EQ(blocked.exit_code, 3);
  EXPECT_EQ(parse_json(blocked.out).at("blockers").as_array().size(), 1u) << blocked.out;
}

TEST(CommandLine, WrongUseExitsTwo) {
  expect_refused(diskferry({"copy", "only-one"}), "copy", 2);
  expect_refused(diskferry({"copy", "--compress", "a.raw", "b.raw"}), "copy", 2);
  expect_refused(diskferry({"verify", "a"}), "verify", 2);
  expect_refused(diskferry({"copy", "--rate", "fast", "a", "b"}), "copy", 2);
  expect_refused(diskferry({"map", "json:{}"}), "map", 2);
}

}  // namespace
}  // namespace diskferry::test
