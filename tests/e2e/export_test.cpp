// export as a service: ready line, clients that are not ours, signals.
#include "tests/e2e/program.hpp"
#include "tests/support/child_process.hpp"

#include <csignal>
#include <fstream>
#include <sys/wait.h>

namespace diskferry::test {
namespace {

TEST(Export, ServesAChainToQemuImgOverAUnixSocket) {
  const TemporaryFolder folder;
  const Chain chain(folder);
  const std::string socket = folder / "nbd";
  ChildProcess server({DISKFERRY_PROGRAM, "export", "--listen", "unix:" + socket, "--name", "vm", chain.top},
                      folder / "log");
  ASSERT_TRUE(wait_until([&] { return accepts_connections(socket); }));
  const std::string uri = "nbd+unix:///vm?socket=" + socket;
  tool({"qemu-img", "compare", "-f", "qcow2", "-F", "raw", chain.top, uri});
  EXPECT_NE(tool({"nbdinfo", "--size", uri}).find("25165824"), std::string::npos);

  // And to ourselves: the client side and the server side agree.
  const auto same = diskferry({"verify", chain.top, uri});
  EXPECT_EQ(same.exit_code, 0) << same.err;
  server.stop();
}

TEST(Export, SaysReadyWithItsAddressAndEndsWithZeroOnSigterm) {
  const TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  std::ofstream(image) << std::string(1 << 20, 'd');
  const std::string socket = folder / "nbd";
  ChildProcess server({DISKFERRY_PROGRAM, "export", "--listen", "unix:" + socket, image}, folder / "log");
  const auto said_ready = [&] {
    std::ifstream log(folder / "log");
    std::string line;
    return std::getline(log, line) && line.starts_with("READY nbd+unix:") && !log.eof();
  };
  EXPECT_TRUE(wait_until(said_ready));
  server.signal(SIGTERM);
  siginfo_t info{};
  ASSERT_TRUE(wait_until([&] {
    return ::waitid(P_PID, static_cast<id_t>(server.pid()), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == server.pid();
  }));
  EXPECT_EQ(info.si_code, CLD_EXITED);
  EXPECT_EQ(info.si_status, 0);
}

TEST(Export, RefusesWritesUnlessWritable) {
  const TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  std::ofstream(image) << std::string(1 << 20, 'd');
  for (const bool writable : {false, true}) {
    const std::string socket = folder / (writable ? "writable" : "reading");
    std::vector<std::string> command{DISKFERRY_PROGRAM, "export", "--listen", "unix:" + socket, image};
    if (writable) command.emplace_back("--writable");
    ChildProcess server(command, folder / "log");
    ASSERT_TRUE(wait_until([&] { return accepts_connections(socket); }));
    const auto wrote = run_program({"qemu-io", "-f", "raw", "-c", "write -P 7 4096 4096", "-c", "flush",
                                    "nbd+unix:///?socket=" + socket});
    EXPECT_EQ(wrote.exit_code == 0, writable) << wrote.out << wrote.err;
    server.stop();
    std::ifstream file(image);
    file.seekg(4096);
    EXPECT_EQ(file.get(), writable ? 7 : 'd');
  }
}

TEST(Export, RefusesAnImageThatAGuestHasOpen) {
  const TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  std::ofstream(image) << std::string(1 << 20, 'd');
  const std::string theirs = folder / "theirs";
  ChildProcess qemu({"qemu-nbd", "-f", "raw", "-k", theirs, "-t", image}, folder / "qemu-log");
  ASSERT_TRUE(wait_until([&] { return accepts_connections(theirs); }));
  const auto ran = diskferry({"export", "--writable", "--listen", "unix:" + (folder / "ours"), image});
  expect_refused(ran, "export", 3);
  qemu.stop();
}

TEST(Export, RefusesAnAddressThatIsTaken) {
  const TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  std::ofstream(image) << std::string(1 << 20, 'd');
  const std::string socket = folder / "nbd";
  ChildProcess server({DISKFERRY_PROGRAM, "export", "--listen", "unix:" + socket, image}, folder / "log");
  ASSERT_TRUE(wait_until([&] { return accepts_connections(socket); }));
  const auto second = diskferry({"export", "--listen", "unix:" + socket, image});
  EXPECT_NE(second.exit_code, 0);
  EXPECT_EQ(std::ranges::count(second.err, '\n'), 1) << second.err;
  tool({"nbdinfo", "--size", "nbd+unix:///?socket=" + socket});  // the first one is untouched
  server.stop();
}

}  // namespace
}  // namespace diskferry::test
