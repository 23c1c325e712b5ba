// The command that cuts a host off: what counts as its word, what it is given, and that it is never waited
// for without end. And whether a host answers.
#include "gateway/move/fence.hpp"

#include "gateway/move/host_probe.hpp"
#include "tests/support/test_runtime.hpp"

#include <arpa/inet.h>
#include <csignal>
#include <fstream>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace diskferry::test {
namespace {

TEST(Fence, BelievesOnlyALastLineThatSaysOff) {
  for (const std::string_view text : {"Success: Powered OFF\n", "Status: OFF", "Success: Already OFF\n\n",
                                      "noise on the line\nchassis is off"})
    EXPECT_TRUE(says_off(text)) << text;
  for (const std::string_view text :
       {"", "\n", "Success: Powered ON\n", "Status: ON", "offline", "Status: OFF\nStatus: ON",
        "is it on or off?", "OFF\nconnection timed out"})
    EXPECT_FALSE(says_off(text)) << text;
}

TEST(Fence, TheHostsNameIsPutIn) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(must(fence_words({.words = {"/bin/fence --ip=%h-bmc  -o off"}}, "a")),
            (Words{"/bin/fence", "--ip=a-bmc", "-o", "off"}));
  EXPECT_EQ(must(fence_words({.words = {"/bin/fence", "two words", "%h %h"}}, "a.example")),
            (Words{"/bin/fence", "two words", "a.example a.example"}));
}

TEST(Fence, RefusesWhatIsNoCommandOrNoHost) {
  for (const std::string& words : {"", "fence %h", "  "}) EXPECT_FALSE(fence_words({.words = {words}}, "a"));
  for (const std::string& host : {"", "-o", "a b", "a;b", "$(x)", "a\n"})
    EXPECT_FALSE(fence_words({.words = {"/bin/true"}}, host)) << host;
}

class FenceProgram : public testing::Test {
 protected:
  std::string program(const std::string& text) {
    const std::string path = folder_ / "fence";
    std::ofstream(path) << "#!/bin/sh\n" << text << "\n";
    EXPECT_EQ(::chmod(path.c_str(), 0755), 0);
    return path;
  }
  Result<std::string> fence(const std::string& text, Duration limit = std::chrono::seconds(30)) {
    return run(fence_host(runtime().context(), {.words = {program(text), "%h"}, .limit = limit}, "host-a"));
  }
  TemporaryFolder folder_;
};

TEST_F(FenceProgram, SaysThatTheHostIsOff) {
  EXPECT_EQ(must(fence("echo working; echo \"$1: OFF\"")), "host-a: OFF");
}

TEST_F(FenceProgram, ThatFailsOrSaysSomethingElseIsNoProof) {
  for (const std::string& text :
       {"echo OFF; exit 1", "echo ON", "exit 0", "kill -9 $$", "yes | head -c 100000; echo; echo ON"}) {
    const auto said = fence(text);
    ASSERT_FALSE(said) << text;
    EXPECT_EQ(said.error().kind(), ErrorKind::io) << said.error().message();
  }
}

TEST_F(FenceProgram, IsKilledWithAllItStartedWhenItTakesTooLong) {
  const std::string note = folder_ / "pid";
  const auto said = fence("sleep 1000 & echo $! >" + note + "; wait; echo OFF", std::chrono::seconds(1));
  ASSERT_FALSE(said);
  EXPECT_EQ(said.error().kind(), ErrorKind::timed_out);
  std::ifstream file(note);
  pid_t pid = 0;
  ASSERT_TRUE(file >> pid);
  const TimePoint end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  const auto is_there = [pid] {
    std::ifstream status("/proc/" + std::to_string(pid) + "/stat");
    std::string text;
    return std::getline(status, text) && text.find(") Z") == std::string::npos;
  };
  while (is_there() && std::chrono::steady_clock::now() < end) ::usleep(10'000);
  EXPECT_FALSE(is_there());
}

TEST_F(FenceProgram, ThatIsNotThereIsNotFound) {
  const auto said = run(fence_host(runtime().context(), {.words = {"/no/such/program"}}, "host-a"));
  ASSERT_FALSE(said);
  EXPECT_EQ(said.error().kind(), ErrorKind::not_found);
}

/// A port on the loopback that is bound; with `listens` it takes connections, else it refuses them.
class Port {
 public:
  explicit Port(bool listens) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    if (listens) EXPECT_EQ(::listen(fd_, 1), 0);
    socklen_t length = sizeof address;
    EXPECT_EQ(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length), 0);
    number_ = ntohs(address.sin_port);
  }
  ~Port() { ::close(fd_); }
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;
  std::uint16_t number() const { return number_; }

 private:
  int fd_;
  std::uint16_t number_ = 0;
};

HostAnswer probe(const std::string& host, std::vector<std::uint16_t> ports, Duration limit) {
  return runtime()
      .run(
          [](std::string name, std::vector<std::uint16_t> tried, Duration until) -> Task<Result<HostAnswer>> {
            co_return co_await probe_host(runtime().context(), name, tried, until);
          }(host, std::move(ports), limit))
      .value();
}

TEST(HostProbe, AHostThatTakesOrRefusesConnectionsAnswers) {
  const Port open(true);
  const Port closed(false);
  const HostAnswer taken = probe("127.0.0.1", {open.number()}, std::chrono::seconds(10));
  EXPECT_TRUE(taken.has_address && taken.answers && !taken.refused);
  EXPECT_EQ(taken.port, open.number());
  const HostAnswer refused = probe("127.0.0.1", {closed.number()}, std::chrono::seconds(10));
  EXPECT_TRUE(refused.has_address && refused.answers && refused.refused);
}

TEST(HostProbe, AHostWithoutAnAddressDoesNotAnswer) {
  const HostAnswer answer = probe("no-such-host.invalid", {22}, std::chrono::seconds(1));
  EXPECT_FALSE(answer.has_address);
  EXPECT_FALSE(answer.answers);
}

}  // namespace
}  // namespace diskferry::test
