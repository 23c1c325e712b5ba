// The NBD client across a network that is cut: no packet of either side arrives, and no FIN or RST tells of
// it. Real links between network namespaces, made and cut by cut_network.sh, and the real program.
#include "tests/support/test_runtime.hpp"

#include <algorithm>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using namespace test;
using std::chrono::seconds;

const std::vector<std::string> own_namespaces{"unshare",      "--map-root-user", "--net",       "--pid",
                                              "--mount-proc", "--fork",          "--kill-child"};

class NbdCutNetwork : public ::testing::Test {
 protected:
  void SetUp() override {
    auto command = own_namespaces;
    command.insert(command.end(), {"ip", "link", "add", "a0", "type", "veth", "peer", "name", "b0"});
    if (const auto tried = run_program(command); tried.exit_code != 0)
      GTEST_SKIP() << "NOT TESTED: a cut network. This needs user and network namespaces, iproute2 and the "
                      "kernel's veth: "
                   << tried.err;
    ASSERT_EQ(run_program({"truncate", "-s", "16M", folder_ / "target"}).exit_code, 0);
    ASSERT_EQ(
        run_program({"dd", "if=/dev/urandom", "of=" + (folder_ / "source"), "bs=1M", "count=16"}).exit_code,
        0);
  }
  ProgramResult copy(const std::string& down, const std::string& options) {
    auto command = own_namespaces;
    command.insert(command.end(), {CUT_NETWORK, DISKFERRY_PROGRAM, folder_ / "", down, options});
    return run_program(command, seconds(100));
  }

  TemporaryFolder folder_;
};

TEST_F(NbdCutNetwork, ACutOfFiveSecondsLosesNothing) {
  const auto copied = copy("5", "");
  EXPECT_EQ(copied.exit_code, 0) << copied.err;
  EXPECT_EQ(run_program({"cmp", folder_ / "source", folder_ / "target"}).exit_code, 0);
}

TEST_F(NbdCutNetwork, ALinkThatStaysDownEndsTheCopyInTime) {
  const auto begun = std::chrono::steady_clock::now();
  const auto copied = copy("forever", "?connect-timeout=2&stall-timeout=3&reconnect-timeout=3");
  EXPECT_EQ(copied.exit_code, 1) << copied.err;  // begun, and could not be finished
  EXPECT_NE(copied.err.find("--resume"), std::string::npos) << copied.err;
  const auto reason =
      std::min(copied.err.find("the connection is lost"), copied.err.find("the connection was lost"));
  ASSERT_NE(reason, std::string::npos) << copied.err;
  EXPECT_NE(copied.err.find("no sign of life from the server", reason), std::string::npos) << copied.err;
  EXPECT_LT(std::chrono::steady_clock::now() - begun, seconds(60));
}

}  // namespace
}  // namespace diskferry
