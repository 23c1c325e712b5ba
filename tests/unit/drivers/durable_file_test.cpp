// Small files: whole under their names or not there, with the mode that was asked for, and nothing left
// beside.
#include "drivers/support/durable_file.hpp"

#include "tests/support/test_runtime.hpp"

#include <filesystem>
#include <fstream>
#include <sys/stat.h>

namespace diskferry::test {
namespace {

class DurableFile : public testing::Test {
 protected:
  static std::string read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::size_t files() const {
    const std::filesystem::directory_iterator all(folder_.path());
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
  }
  static mode_t mode(const std::string& path) {
    struct stat status{};
    EXPECT_EQ(::stat(path.c_str(), &status), 0);
    return status.st_mode & 07777;
  }
  TemporaryFolder folder_;
  const std::string path_ = folder_ / "record";
};

TEST_F(DurableFile, ReplacesWhatWasThere) {
  must(replace_durably(path_, "old and long"));
  must(replace_durably(path_, "new", 0644));
  EXPECT_EQ(read(path_), "new");
  EXPECT_EQ(mode(path_), 0644u);
  EXPECT_EQ(files(), 1u);
}

TEST_F(DurableFile, WithoutANameItIsGone) {
  must(replace_durably(path_, "old"));
  {
    NewFile file = must(NewFile::create(path_));
    must(file.write("half of it"));
  }
  EXPECT_EQ(read(path_), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(DurableFile, WhatAKilledProcessLeftIsNotInTheWay) {
  std::ofstream(path_ + ".new") << "left";
  std::filesystem::permissions(path_ + ".new", std::filesystem::perms::all);
  must(replace_durably(path_, "new"));
  EXPECT_EQ(read(path_), "new");
  EXPECT_EQ(mode(path_), 0600u);
  EXPECT_EQ(files(), 1u);
}

TEST_F(DurableFile, FollowsNoLinkThatSomebodyPutThere) {
  std::ofstream(folder_ / "victim") << "mine";
  std::filesystem::create_symlink(folder_ / "victim", path_ + ".new");
  must(replace_durably(path_, "new"));
  EXPECT_EQ(read(folder_ / "victim"), "mine");
  EXPECT_EQ(read(path_), "new");
}

TEST_F(DurableFile, DoesNotReplaceWhereThatWasNotAllowed) {
  must(replace_durably(path_, "old"));
  NewFile file = must(NewFile::create(path_));
  must(file.write("new"));
  must(file.finish());
  const auto named = file.give_name(false);
  ASSERT_FALSE(named);
  EXPECT_EQ(named.error().kind(), ErrorKind::already_exists);
  EXPECT_EQ(read(path_), "old");
}

TEST_F(DurableFile, TellsWhatIsWrong) {
  EXPECT_EQ(replace_durably(folder_ / "no/such", "x").error().kind(), ErrorKind::not_found);
  EXPECT_EQ(sync_folder(folder_ / "none").error().kind(), ErrorKind::not_found);
}

}  // namespace
}  // namespace diskferry::test
