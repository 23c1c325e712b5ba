// diskferryd as an operator runs it: started, asked, used by NBD clients, ended.
#include "tests/e2e/daemon_program.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace diskferry::test {
namespace {

TEST(Daemon, ServesWhatIsConfiguredAndEndsInOrder) {
  const TemporaryFolder images;
  const std::string image = images / "vm.qcow2";
  tool({"qemu-img", "create", "-q", "-f", "qcow2", image, "64M"});
  Daemon daemon(export_table("vm", image, "format = \"qcow2\"\nwritable = true\n"));
  EXPECT_NE(tool({"nbdinfo", "--size", daemon.uri("vm")}).find("67108864"), std::string::npos);
  tool({"qemu-io", "-f", "raw", "-c", "write -q -P 7 1M 1M", daemon.uri("vm")});
  tool({"nbdcopy", daemon.uri("vm"), images / "copy.raw"});

  // A client that stays does not keep it from ending, and what it wrote is there.
  ChildProcess client(
      {"qemu-io", "-f", "raw", "-c", "write -q -P 8 8M 1M", "-c", "sleep 60000", daemon.uri("vm")});
  EXPECT_TRUE(wait_until(
      [&] { return daemon.ask({"exports", "--json"}).out.find("\"clients\": 1") != std::string::npos; }));
  EXPECT_TRUE(wait_until([&] {
    return std::filesystem::file_size(image) > 2u << 20;  // its write has come
  }));
  EXPECT_EQ(daemon.end(), 0) << text_of(daemon.log());
  tool({"qemu-img", "check", "-q", image});
  tool({"qemu-io", "-r", "-f", "qcow2", "-c", "read -P 7 1M 1M", "-c", "read -P 8 8M 1M", image});
  EXPECT_FALSE(std::filesystem::exists(daemon.control()));
  EXPECT_FALSE(std::filesystem::exists(daemon.nbd()));
}

TEST(Daemon, ExportsComeAndGoWhileItRuns) {
  const TemporaryFolder images;
  const std::string image = images / "a.raw";
  std::ofstream(image) << std::string(1 << 20, 'd');
  Daemon daemon;
  const auto none = daemon.ask({"exports"});
  EXPECT_EQ(none.exit_code, 0) << none.err;
  EXPECT_EQ(none.out, "");

  const auto added = daemon.ask({"exports", "add", "a/b", image, "-w", "-f", "raw"});
  EXPECT_EQ(added.exit_code, 0) << added.err;
  EXPECT_NE(added.out.find("1.0 MiB"), std::string::npos) << added.out;
  EXPECT_EQ(parse_json(daemon.ask({"exports", "--json"}).out).at("exports").at(0).at("name"), "a/b");
  tool({"nbdinfo", "--size", daemon.uri("a/b")});

  expect_refused(daemon.ask({"exports", "add", "a/b", image}), "exports", 3);
  expect_refused(daemon.ask({"exports", "add", "c", images / "none.raw"}), "exports", 3);
  // Without TLS nobody could use these.
  expect_refused(daemon.ask({"exports", "add", "c", image, "--require-tls"}), "exports", 3);
  expect_refused(daemon.ask({"exports", "add", "c", image, "--allow", "alice"}), "exports", 3);
  const auto removed = daemon.ask({"exports", "remove", "a/b"});
  EXPECT_EQ(removed.exit_code, 0) << removed.err;
  expect_refused(daemon.ask({"exports", "remove", "a/b"}), "exports", 3);
  EXPECT_NE(run_program({"nbdinfo", "--size", daemon.uri("a/b")}).exit_code, 0);
  EXPECT_NE(text_of(daemon.log())
                .find("control: uid " + std::to_string(geteuid()) + ": DELETE /v1/exports/a%2Fb: 200"),
            std::string::npos)
      << text_of(daemon.log());
  // The image is free for others again.
  tool({"qemu-io", "-f", "raw", "-c", "write -q -P 1 0 512", image});
  EXPECT_EQ(daemon.end(), 0);
}

TEST(Daemon, AnExportThatCannotBeOpenedDoesNotKeepTheOthers) {
  const TemporaryFolder images;
  const std::string image = images / "good.raw";
  std::ofstream(image) << std::string(1 << 20, 'd');
  Daemon daemon(export_table("bad", images / "none.raw") + export_table("good", image));
  EXPECT_TRUE(text_of(daemon.log()).contains("export bad waits for its storage")) << text_of(daemon.log());
  tool({"nbdinfo", "--size", daemon.uri("good")});
  expect_refused(daemon.ask({"exports", "add", "bad", image}), "exports", 3);
  EXPECT_EQ(daemon.ask({"exports", "remove", "bad"}).exit_code, 0);
  EXPECT_FALSE(daemon.ask({"exports"}).out.contains("bad"));
  EXPECT_EQ(daemon.end(), 0);
}

TEST(Daemon, AnExportIsThereOnceItsStorageIs) {
  const TemporaryFolder images;
  const std::string image = images / "late.raw";
  Daemon daemon(export_table("late", image, "writable = true\n"));
  const auto shown = [&] { return parse_json(daemon.ask({"exports", "--json"}).out).at("exports").at(0); };
  EXPECT_EQ(shown().at("name"), "late");
  EXPECT_TRUE(std::string(shown().at("waiting").as_string()).contains(image));
  EXPECT_TRUE(daemon.ask({"exports"}).out.contains("waiting"));
  EXPECT_NE(run_program({"nbdinfo", daemon.uri("late")}).exit_code, 0);
  const auto replaced = daemon.ask({"replace", "late", images / "new.raw", "--progress", "none"});
  EXPECT_NE(replaced.exit_code, 0);
  EXPECT_TRUE(replaced.err.contains("its storage is not there")) << replaced.err;

  std::ofstream(image) << std::string(1 << 20, 'd');
  EXPECT_TRUE(wait_until([&] { return text_of(daemon.log()).contains("export late: its storage is there"); }))
      << text_of(daemon.log());
  EXPECT_FALSE(daemon.ask({"exports", "--json"}).out.contains("waiting"));
  EXPECT_EQ(shown().at("size"), 1 << 20);
  tool({"qemu-io", "-f", "raw", "-c", "write -q -P 7 0 64k", daemon.uri("late")});
  EXPECT_EQ(daemon.ask({"replace", "late", images / "new.raw", "--progress", "none"}).exit_code, 0);
  EXPECT_EQ(daemon.end(), 0);
}

TEST(Daemon, KeepsItsIdentity) {
  Daemon daemon;
  const auto first = parse_json(daemon.ask({"status", "--json"}).out);
  EXPECT_EQ(first.at("name"), "host-a");
  EXPECT_EQ(daemon.end(), 0);
  daemon.start();
  EXPECT_EQ(parse_json(daemon.ask({"status", "--json"}).out).at("host-id"), first.at("host-id"));
  const auto for_people = daemon.ask({"status"});
  EXPECT_NE(for_people.out.find("host-a"), std::string::npos) << for_people.out << for_people.err;
  EXPECT_EQ(daemon.end(), 0);
}

TEST(Daemon, ASecondOneOnTheSameSocketIsRefusedAndTheFirstUntouched) {
  Daemon daemon;
  const auto second = run_program({DISKFERRYD_PROGRAM, "--config", daemon.config()});
  EXPECT_EQ(second.exit_code, 3) << second.err;
  EXPECT_EQ(std::ranges::count(second.err, '\n'), 1) << second.err;
  EXPECT_EQ(daemon.ask({"status"}).exit_code, 0);
  EXPECT_EQ(daemon.end(), 0);
}

TEST(Daemon, ComesBackAfterItWasKilled) {
  Daemon daemon;
  daemon.process().kill();
  daemon.start();
  EXPECT_EQ(daemon.ask({"status"}).exit_code, 0);
  EXPECT_EQ(daemon.end(), 0);
}

TEST(Daemon, CarriesStdinAndStdoutToItsSocket) {
  Daemon daemon;
  const std::string request = daemon.folder() / "request";
  std::ofstream(request) << "GET /v1/info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  const auto carried = run_program({"sh", "-c", "exec \"$0\" --connect --config \"$1\" <\"$2\"",
                                    DISKFERRYD_PROGRAM, daemon.config(), request});
  EXPECT_EQ(carried.exit_code, 0) << carried.err;
  EXPECT_NE(carried.out.find("host-a"), std::string::npos) << carried.out;
  EXPECT_EQ(daemon.end(), 0);
  const auto none = run_program({DISKFERRYD_PROGRAM, "--connect", "--config", daemon.config()});
  EXPECT_EQ(none.exit_code, 3) << none.err;
}

TEST(Daemon, TellsTheServiceManager) {
  const TemporaryFolder folder;
  const std::string path = folder / "notify";
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, path.size());
  ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
  ASSERT_EQ(::setenv("NOTIFY_SOCKET", path.c_str(), 1), 0);
  std::string told;
  const auto was_told = [&](const std::string& wanted) {
    return wait_until([&] {
      std::array<char, 256> text;
      const ssize_t got = ::recv(fd, text.data(), text.size(), 0);
      if (got > 0) told.append(text.data(), static_cast<std::size_t>(got)).append("\n");
      return told.find(wanted) != std::string::npos;
    });
  };
  {
    Daemon daemon;
    ::unsetenv("NOTIFY_SOCKET");
    EXPECT_TRUE(was_told("READY=1")) << told;
    EXPECT_EQ(daemon.end(), 0);
    EXPECT_TRUE(was_told("STOPPING=1")) << told;
  }
  ::close(fd);
}

TEST(Daemon, ChecksItsConfigurationWithoutStarting) {
  Daemon daemon({}, false);
  const auto good = run_program({DISKFERRYD_PROGRAM, "--check-config", "--config", daemon.config()});
  EXPECT_EQ(good.exit_code, 0) << good.err;
  EXPECT_FALSE(std::filesystem::exists(daemon.control()));

  struct Row {
    const char* more;
    const char* says;
  };
  for (const Row& row : {Row{"[[export]]\nname = \"a\"\nimage = \"/a\"\nwriteable = true\n", "writeable"},
                         Row{"[log]\nlevel = \"loud\"\n", ":"}, Row{"[[", ":"}}) {
    const Daemon wrong(row.more, false);
    const auto refused = run_program({DISKFERRYD_PROGRAM, "--check-config", "--config", wrong.config()});
    EXPECT_EQ(refused.exit_code, 2) << refused.err;
    EXPECT_EQ(std::ranges::count(refused.err, '\n'), 1) << refused.err;
    EXPECT_NE(refused.err.find("config.toml:"), std::string::npos) << refused.err;
    EXPECT_NE(refused.err.find(row.says), std::string::npos) << refused.err;
  }
}

TEST(Daemon, AddressesAndCertificatesAreCheckedToo) {
  const TemporaryFolder folder;
  const std::string config = folder / "config.toml";
  struct Row {
    const char* text;
    const char* says;
  };
  for (const Row& row :
       {Row{"[nbd]\nlisten = \"ftp://x\"\n", "config.toml:2"},
        Row{"[nbd]\nlisten = \"nbds://x\"\n", "nbd.tls is off"},
        Row{"[control]\nlisten = \"x:99999\"\nallow = [\"a\"]\n", "config.toml:2"},
        Row{"[control]\nlisten = \"x:1\"\nallow = [\"a\"]\ncertificates = \"/nonexistent\"\n",
            "server-cert.pem"},
        Row{"[web]\nlisten = \"127.0.0.1:x\"\n", "no HOST:PORT"},
        Row{"[web]\nlisten = \"0.0.0.0:9309\"\n", "web.plain"},
        Row{"[web]\nlisten = \"[::]\"\n", "web.plain"},
        Row{"[web]\nlisten = \"gateway.example:9309\"\n", "web.plain"},
        Row{"[control]\ncertificates = \"/nonexistent\"\n[web]\nlisten = \"[::]:1\"\nallow = [\"a\"]\n",
            "server-cert.pem"},
        Row{"[nbd]\ntls = \"on\"\ncertificates = \"/nonexistent\"\n", "server-cert.pem"}}) {
    std::ofstream(config) << row.text;
    const auto refused = run_program({DISKFERRYD_PROGRAM, "--check-config", "--config", config});
    EXPECT_NE(refused.exit_code, 0) << row.text;
    EXPECT_NE(refused.err.find(row.says), std::string::npos) << refused.err;
  }
}

TEST(Daemon, WhoMayLookIsSaidPlainly) {
  const TemporaryFolder folder;
  const std::string config = folder / "config.toml";
  for (const char* web : {"listen = \"127.0.0.1\"", "listen = \"127.8.0.1:1\"", "listen = \"[::1]:1\"",
                          "listen = \"localhost:1\"", "listen = \"0.0.0.0:1\"\nplain = true"}) {
    std::ofstream(config) << "[web]\n" << web << "\n";
    const auto good = run_program({DISKFERRYD_PROGRAM, "--check-config", "--config", config});
    EXPECT_EQ(good.exit_code, 0) << web << ": " << good.err;
  }
}

TEST(Daemon, ShowsItsFiguresToWhoMayLook) {
  const Daemon daemon("[web]\nlisten = \"127.0.0.1:0\"\n");
  const std::string log = text_of(daemon.log());
  const std::size_t at = log.find("http://127.0.0.1:");
  ASSERT_NE(at, std::string::npos) << log;
  const std::string url = log.substr(at, log.find_first_of(" \n", at) - at);
  const std::string figures = tool({"curl", "-sf", url + "metrics"});
  for (const char* line : {"diskferry_exports 0\n", "diskferry_jobs{status=\"failed\"} 0\n",
                           "diskferry_log_lines_total{level=\"error\"} 0\n"})
    EXPECT_NE(figures.find(line), std::string::npos) << figures;
  EXPECT_EQ(figures.find("diskferry_log_lines_total{level=\"info\"} 0\n"), std::string::npos) << figures;
  EXPECT_NE(figures.find("diskferry_log_lines_total{level=\"info\"} "), std::string::npos) << figures;
  EXPECT_NE(tool({"curl", "-sf", url}).find("<!doctype html>"), std::string::npos);
  EXPECT_NE(run_program({"curl", "-sf", "-H", "Host: evil.example", url}).exit_code, 0);
}

TEST(Daemon, WithoutOneTheCommandsSayHowToStartIt) {
  const TemporaryFolder folder;
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"jobs"},
                                             {"exports"},
                                             {"status"},
                                             {"watch", "m-1"},
                                             {"cancel", "m-1"},
                                             {"set", "m-1", "--rate", "1M"}}) {
    auto arguments = command;
    arguments.insert(arguments.end(), {"--gateway", "unix:" + (folder / "none")});
    const auto ran = diskferry(arguments);
    expect_refused(ran, command.front(), 3);
    EXPECT_NE(ran.err.find("systemctl start diskferryd"), std::string::npos) << ran.err;
  }
}

}  // namespace
}  // namespace diskferry::test
