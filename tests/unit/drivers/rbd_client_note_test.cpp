// What is left of clients on this machine: of one that is there nothing says that it is dead.
#include "drivers/rbd/client_note.hpp"
#include "tests/support/test_runtime.hpp"

#include <filesystem>
#include <fstream>

namespace diskferry::rbd {
namespace {
using Ids = std::vector<std::uint64_t>;

const std::string image = "rbd|cluster|1||10ab";

struct NotesOfClients : testing::Test {
  test::TemporaryFolder folder;
  Ids dead(const std::string& of = image) const { return dead_clients(folder.path(), of); }
  std::string path(const std::string& client) const { return folder / ("rbd-client-" + client); }
  /// As a process leaves it that was killed: the lock is gone, and the file is there.
  void leave_dead(std::uint64_t client, const std::string& of = image) const {
    const std::string name = path(std::to_string(client));
    const std::string kept = folder / "kept";
    {
      const auto note = ClientNote::leave(folder.path(), of, client);
      ASSERT_TRUE(note);
      std::filesystem::create_hard_link(name, kept);
    }
    std::filesystem::rename(kept, name);
  }
};

TEST_F(NotesOfClients, TellOfTheDeadOnly) {
  leave_dead(4711);
  {
    const auto alive = ClientNote::leave(folder.path(), image, 4712);
    ASSERT_TRUE(alive);
    EXPECT_EQ(dead(), Ids{4711});
    forget_dead_clients(folder.path(), image);
    EXPECT_TRUE(std::filesystem::exists(path("4712")));
    EXPECT_FALSE(std::filesystem::exists(path("4711")));
    leave_dead(4711);
  }
  EXPECT_EQ(dead(), Ids{4711}) << "who lets go of the image has no note";
  forget_dead_clients(folder.path(), image);
  EXPECT_TRUE(dead().empty());
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST_F(NotesOfClients, AreOfOneImage) {
  leave_dead(1, "rbd|cluster|1||10a");
  leave_dead(2, image + "0");
  EXPECT_TRUE(dead().empty());
  EXPECT_EQ(dead("rbd|cluster|1||10a"), Ids{1});
  EXPECT_TRUE(dead("").empty()) << "a cluster that does not say which it is";
}

TEST_F(NotesOfClients, AreNotTakenFromACopyOfTheFolder) {
  const auto alive = ClientNote::leave(folder.path(), image, 1);
  const test::TemporaryFolder copy;
  std::filesystem::copy_file(path("1"), copy / "rbd-client-1");
  EXPECT_TRUE(dead_clients(copy.path(), image).empty());
}

TEST_F(NotesOfClients, OfAnEarlierBootAreForgotten) {
  leave_dead(1);
  const auto alive = ClientNote::leave(folder.path(), image, 2);
  std::ofstream(path("3")) << "8e0f1d5a-0000-4000-8000-000000000000 1 " << image;
  EXPECT_EQ(dead(), Ids{1});
  forget_dead_clients(folder.path(), "another image");
  EXPECT_FALSE(std::filesystem::exists(path("3")));
  EXPECT_TRUE(std::filesystem::exists(path("2")));
  EXPECT_EQ(dead(), Ids{1});
}

TEST_F(NotesOfClients, AreNotTakenFromWhatIsNone) {
  for (const char* client : {"", "x", "1x", "-1", "99999999999999999999999", "5.new", "6"})
    std::ofstream(path(client)) << image;
  std::filesystem::create_directory(path("7"));
  leave_dead(8);
  std::filesystem::rename(path("8"), folder / "elsewhere");
  std::filesystem::create_symlink(folder / "elsewhere", path("8"));
  EXPECT_TRUE(dead().empty());
}

TEST_F(NotesOfClients, AreNotLeftWhereTheyCannotBe) {
  EXPECT_FALSE(ClientNote::leave("", image, 1));
  EXPECT_FALSE(ClientNote::leave(folder / "nowhere", image, 1));
  EXPECT_FALSE(ClientNote::leave(folder.path(), "", 1));
  EXPECT_FALSE(ClientNote::leave(folder.path(), std::string(2000, 'x'), 1));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_TRUE(dead_clients(folder / "nowhere", image).empty());
}

}  // namespace
}  // namespace diskferry::rbd
