// `diskferry export` as users and other programs start it: by hand, by socket activation, on stdin and
// stdout.
#include "tests/support/child_process.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <optional>
#include <sstream>
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
/// Serves `open` to everybody, `shut` to clients with TLS, `alices` to one of them.
class ProtectedExports : public ExportCommand {
 protected:
  void SetUp() override {
    for (const char* user : {"alice", "bob"})
      ASSERT_EQ(run_program({"psktool", "-u", user, "-p", folder / "keys.psk"}).exit_code, 0);
    std::array<int, 2> out{};
    ASSERT_EQ(pipe2(out.data(), O_CLOEXEC), 0);
    server_ = start({"export",
                     "-f",
                     "raw",
                     "--listen",
                     "unix:" + socket_,
                     "--tls",
                     "on",
                     "--tls-psk",
                     folder / "keys.psk",
                     "--require-tls",
                     "shut",
                     "--allow-for",
                     "alices=alice",
                     "--name",
                     "alices",
                     image,
                     "--name",
                     "shut",
                     image,
                     "--name",
                     "open",
                     image},
                    0, out[1]);
    close(out[1]);
    ready_ = read_line(out[0]);
    close(out[0]);
  }
  void TearDown() override {
    server_->signal(SIGTERM);
    EXPECT_EQ(server_->wait(), 0);
  }
  /// By `user`, or without TLS.
  ProgramResult ask(const std::string& name, const std::string& user = {}) const {
    const std::string uri = user.empty() ? "nbd+unix:///" + name + "?socket=" + socket_
                                         : "nbds+unix://" + user + "@/" + name + "?socket=" + socket_ +
                                               "&tls-psk-file=" + (folder / "keys.psk");
    return run_program({"nbdinfo", "--size", uri});
  }
  const std::string socket_ = folder / "socket";
  std::string ready_;
  std::optional<ChildProcess> server_;
};

TEST_F(ProtectedExports, AreForThoseWhomTheirRuleNames) {
  EXPECT_EQ(ask("open").out, "1000001\n");
  EXPECT_EQ(ask("open", "bob").out, "1000001\n");
  EXPECT_NE(ask("shut").exit_code, 0);
  EXPECT_EQ(ask("shut", "bob").out, "1000001\n");
  EXPECT_NE(ask("alices").exit_code, 0);
  EXPECT_NE(ask("alices", "bob").exit_code, 0);
  EXPECT_EQ(ask("alices", "alice").out, "1000001\n");
}

TEST_F(ProtectedExports, AreNotListedForOthers) {
  const auto listed = run_program({"nbdinfo", "--list", "--json", "nbd+unix:///?socket=" + socket_});
  EXPECT_NE(listed.out.find("\"open\""), std::string::npos) << listed.out << listed.err;
  EXPECT_EQ(listed.out.find("\"shut\""), std::string::npos) << listed.out;
  EXPECT_EQ(listed.out.find("\"alices\""), std::string::npos) << listed.out;
}

TEST_F(ProtectedExports, AreAnnouncedAsWhatClientsMustSay) {
  EXPECT_THAT(ready_, testing::StartsWith("READY nbds+unix:///alices?socket=")) << ready_;
}

TEST_F(ExportCommand, RulesThatCannotProtectAreRefused) {
  const std::string listen = "unix:" + (folder / "socket");
  const auto code = [&](std::vector<std::string> options) {
    std::vector<std::string> line{program, "export", "--listen", listen, "--name", "vm", image};
    line.insert(line.end(), options.begin(), options.end());
    return run_program(line).exit_code;
  };
  EXPECT_EQ(code({"--require-tls", "vm"}), 2) << "TLS is off";
  EXPECT_EQ(code({"--tls", "on", "--tls-psk", folder / "keys", "--require-tls", "other"}), 2);
  EXPECT_EQ(code({"--tls", "on", "--tls-certificates", folder / "pki", "--allow-for", "vm=alice"}), 2)
      << "no client has to prove its name";
}

TEST_F(ExportCommand, HoldsToItsRate) {
  // A tenth of a second's worth passes at once, the rest at 500 KiB a second.
  const auto begin = std::chrono::steady_clock::now();
  const auto copied = run_program(
      {"nbdcopy", "--", "[", program, "export", "-f", "raw", "--rate", "500K", image, "]", "null:"});
  EXPECT_EQ(copied.exit_code, 0) << copied.err;
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(1000));
}

TEST_F(ExportCommand, FailsAsItIsToldTo) {
  // nbdcopy leaves its server behind where it fails.
  const auto copied = run_program({"nbdcopy", "--", "[", program, "export", "--exit-with-last-client", "-f",
                                   "raw", "--fault", "read,fail=io,range=512K+1", image, "]", "null:"});
  EXPECT_NE(copied.exit_code, 0);
  EXPECT_THAT(copied.err, testing::HasSubstr("Input/output error")) << copied.err;
  EXPECT_EQ(run_program({program, "export", "--fault", "read,explode", image}).exit_code, 2);
}

/// Where the bitmap is dirty, as the client that asked for `context` is told: "offset+length " for each
/// range.
std::string dirty_ranges(const std::vector<std::string>& server, const std::string& context) {
  std::vector<std::string> line{"nbdinfo", "--map=qemu:dirty-bitmap:" + context, "--"};
  line.insert(line.end(), server.begin(), server.end());
  const auto mapped = run_program(line);
  EXPECT_EQ(mapped.exit_code, 0) << mapped.err;
  std::istringstream rows(mapped.out);
  std::string dirty;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  unsigned type = 0;
  for (std::string name; rows >> offset >> length >> type >> name;)
    if (type == 1) dirty += std::to_string(offset) + "+" + std::to_string(length) + " ";
  return dirty;
}

/// An image of 64 MiB whose first 64 KiB were written when it had a bitmap that records and one that does
/// not.
std::string image_with_bitmaps(const TemporaryFolder& folder) {
  const std::string path = folder / "bitmaps.qcow2";
  for (const std::vector<std::string>& line :
       {std::vector<std::string>{"qemu-img", "create", "-q", "-f", "qcow2", path, "64M"},
        {"qemu-img", "bitmap", "--add", "-g", "64K", path, "records"},
        {"qemu-img", "bitmap", "--add", "-g", "64K", path, "stands"},
        {"qemu-io", "-f", "qcow2", "-c", "write 0 64k", path},
        {"qemu-img", "bitmap", "--disable", path, "stands"}})
    EXPECT_EQ(run_program(line).exit_code, 0) << line[1];
  return path;
}

TEST_F(ExportCommand, BitmapsOfAWritableImageShowWhatIsWritten) {
  const std::string disk = image_with_bitmaps(folder);
  std::array<int, 2> out{};
  ASSERT_EQ(pipe2(out.data(), O_CLOEXEC), 0);
  auto server = start({"export", "--writable", "--bitmap", "records", "--bitmap", "stands", "--listen",
                       "unix:" + (folder / "socket"), disk},
                      0, out[1]);
  close(out[1]);
  const std::string ready = read_line(out[0]);
  close(out[0]);
  ASSERT_THAT(ready, testing::StartsWith("READY "));
  const std::string uri = ready.substr(6);
  EXPECT_EQ(dirty_ranges({uri}, "records"), "0+65536 ");
  EXPECT_EQ(dirty_ranges({uri}, "stands"), "0+65536 ");
  const auto written =
      run_program({"qemu-io", "-f", "raw", "-c", "write 1M 4k", "-c", "write -z 3M 128k", uri});
  EXPECT_EQ(written.exit_code, 0) << written.out << written.err;
  const std::string wanted = "0+65536 1048576+65536 3145728+131072 ";
  EXPECT_EQ(dirty_ranges({uri}, "records"), wanted);
  EXPECT_EQ(dirty_ranges({uri}, "stands"), "0+65536 ");
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(), 0);

  // QEMU believes what was stored, and says the same.
  EXPECT_EQ(run_program({"qemu-img", "check", disk}).exit_code, 0);
  const auto info = run_program({"qemu-img", "info", disk});
  EXPECT_THAT(info.out, testing::Not(testing::HasSubstr("in-use"))) << info.out;
  EXPECT_EQ(dirty_ranges({"[", "qemu-nbd", "-r", "-f", "qcow2", "-B", "records", disk, "]"}, "records"),
            wanted);
  EXPECT_EQ(dirty_ranges({"[", "qemu-nbd", "-r", "-f", "qcow2", "-B", "stands", disk, "]"}, "stands"),
            "0+65536 ");
}

TEST_F(ExportCommand, ABitmapThatCannotBeBelievedIsRefusedWithTheReason) {
  const std::string disk = image_with_bitmaps(folder);
  std::array<int, 2> out{};
  ASSERT_EQ(pipe2(out.data(), O_CLOEXEC), 0);
  auto server = start({"export", "--writable", "--listen", "unix:" + (folder / "socket"), disk}, 0, out[1]);
  close(out[1]);
  ASSERT_THAT(read_line(out[0]), testing::StartsWith("READY "));
  close(out[0]);
  server.signal(SIGKILL);
  (void)server.wait();
  for (const char* access : {"--writable", "--read-only"}) {
    const auto refused = run_program(
        {program, "export", access, "--bitmap", "records", "--listen", "unix:" + (folder / "socket2"), disk});
    EXPECT_NE(refused.exit_code, 0);
    EXPECT_THAT(refused.err, testing::HasSubstr("it was not closed properly and may miss writes"));
    const auto unknown = run_program(
        {program, "export", access, "--bitmap", "other", "--listen", "unix:" + (folder / "socket2"), disk});
    EXPECT_NE(unknown.exit_code, 0);
    EXPECT_THAT(unknown.err, testing::HasSubstr("the image has no such bitmap"));
  }
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
