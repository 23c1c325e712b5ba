// `diskferry export` as users and other programs start it: by hand, by socket activation, on stdin and
// stdout.
#include "tests/support/child_process.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <array>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sys/socket.h>
#include <unistd.h>

#include <gmock/gmock.h>

namespace diskferry::test {
namespace {

const std::string program = DISKFERRY_PROGRAM;

class ExportCommand : public testing::Test {
 protected:
  ExportCommand() {
    const auto bytes = pattern(0, 1'000'001);
    std::ofstream file(image, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
};

/// Starts the program with these descriptors as stdin and stdout.
ChildProcess start(std::vector<std::string> arguments, int in, int out) {
  arguments.insert(arguments.begin(), program);
  return ChildProcess(arguments, {.in = in, .out = out, .err = STDERR_FILENO});
}
std::string read_line(int fd) {
  std::string line;
  for (char c = 0; read(fd, &c, 1) == 1 && c != '\n';) line += c;
  return line;
}

TEST_F(ExportCommand, TakesOverASocketThatListens) {
  const auto size = run_program({"nbdinfo", "--size", "--", "[", program, "export", "-f", "raw", image, "]"});
  EXPECT_EQ(size.out, "1000001\n") << size.err;
}
TEST_F(ExportCommand, SaysReadyServesAndEndsCleanlyOnSigterm) {
  std::array<int, 2> out{};
  ASSERT_EQ(pipe2(out.data(), O_CLOEXEC), 0);
  const std::string socket = folder / "socket";
  auto server =
      start({"export", "-f", "raw", "--writable", "--name", "disk", "--listen", "unix:" + socket, image}, 0,
            out[1]);
  close(out[1]);
  const std::string ready = read_line(out[0]);
  ASSERT_THAT(ready, testing::StartsWith("READY nbd+unix:///disk?socket="));
  const auto written = run_program({"qemu-io", "-f", "raw", "-c", "write -P 5 0 64k", ready.substr(6)});
  EXPECT_EQ(written.exit_code, 0) << written.out << written.err;
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(), 0);
  EXPECT_NE(access(socket.c_str(), F_OK), 0) << "the socket is removed";
  std::ifstream file(image, std::ios::binary);
  EXPECT_EQ(file.get(), 5);
  close(out[0]);
}
TEST_F(ExportCommand, ServesOneClientOnASocketAsStdinAndStdout) {
  std::array<int, 2> ends{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  auto server = start({"export", "--stdio", "-f", "raw", image}, ends[1], ends[1]);
  close(ends[1]);
  std::array<char, 18> hello{};
  EXPECT_EQ(recv(ends[0], hello.data(), hello.size(), MSG_WAITALL), 18);
  EXPECT_EQ(std::memcmp(hello.data(), "NBDMAGICIHAVEOPT", 16), 0);
  close(ends[0]);
  EXPECT_EQ(server.wait(), 0) << "ends with its client";
}
TEST_F(ExportCommand, WrongLinesAreRefused) {
  EXPECT_EQ(run_program({program, "export", "--name", "a", "--name", "b", image}).exit_code, 2);
  EXPECT_EQ(run_program({program, "export", "--writable", "--read-only", image}).exit_code, 2);
  EXPECT_EQ(run_program({program, "export", "--listen", "ftp://host", image}).exit_code, 2);
  EXPECT_EQ(run_program({program, "export", "--tls", "require", image}).exit_code, 2);
  EXPECT_EQ(run_program({program, "export", folder / "nothing"}).exit_code, 3);
}

}  // namespace
}  // namespace diskferry::test
