// What the tests start and make ends with them, also where a test process is killed; and what is left all the
// same is found.
#include "tests/support/child_process.hpp"
#include "tests/support/test_runtime.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include <gmock/gmock.h>

namespace diskferry::test {
namespace {
namespace fs = std::filesystem;

std::string word(const std::string& path) {
  std::string text;
  std::ifstream(path) >> text;
  return text;
}

TEST(Leftovers, EndWithAProcessThatIsKilled) {
  TemporaryFolder folder;
  const auto ran = run_program({KILLED_PROGRAM, folder / "note"});
  ASSERT_EQ(ran.exit_code, 128 + SIGKILL) << ran.out << ran.err;
  const fs::path left = word(folder / "note.folder");
  ASSERT_FALSE(left.empty());
  EXPECT_TRUE(wait_until([&] { return !fs::exists(left.parent_path()); })) << left;
  EXPECT_TRUE(wait_until([&] { return !is_alive(std::stoi(word(folder / "note.pid"))); }));
}

TEST(Leftovers, AServerOutlivesTheThreadThatStartedIt) {
  std::unique_ptr<ChildProcess> server;
  std::thread starter(
      [&] { server = std::make_unique<ChildProcess>(std::vector<std::string>{"sleep", "1000"}); });
  starter.join();
  // Its death would take a moment to be seen: what was started after it is served after it.
  EXPECT_EQ(ChildProcess({"sleep", "0.05"}).wait(), 0);
  EXPECT_TRUE(server->is_running());
}

TEST(Leftovers, AreFoundAndTakenAway) {
  TemporaryFolder folder;
  const std::string place = folder / "place";
  const auto run_check = [&](const char* moment) {
    return run_program({"python3", LEFTOVERS_SCRIPT, moment, place, "0.5"});
  };
  ASSERT_EQ(run_check("begin").exit_code, 0);
  EXPECT_EQ(run_check("end").exit_code, 0);
  ASSERT_EQ(run_check("begin").exit_code, 0);
  std::ofstream(place + "/forgotten").put('x');
  ChildProcess server({"env", "TMPDIR=" + place, "sleep", "1000"});
  ASSERT_TRUE(wait_until([&] { return word("/proc/" + std::to_string(server.pid()) + "/comm") == "sleep"; }));
  EXPECT_EQ(run_check("begin").exit_code, 1) << "somebody else's run is not disturbed";
  const auto found = run_check("end");
  EXPECT_EQ(found.exit_code, 1);
  EXPECT_THAT(found.out, testing::HasSubstr("forgotten"));
  EXPECT_THAT(found.out, testing::HasSubstr("sleep 1000"));
  EXPECT_EQ(server.wait(), 128 + SIGKILL);
  EXPECT_FALSE(fs::exists(place));
}

}  // namespace
}  // namespace diskferry::test
