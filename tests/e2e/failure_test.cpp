// What goes wrong outside: limits, liars, servers that end, names that are not meant kindly. Each case
// bounded to seconds.
#include "tests/e2e/program.hpp"
#include "tests/support/child_process.hpp"

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>

namespace diskferry::test {
namespace {
namespace json = boost::json;

constexpr std::uint64_t disk_bytes = 24 << 20;

void make_disk(const std::string& path, char fill) {
  std::ofstream(path, std::ios::binary) << std::string(disk_bytes, fill);
}

/// As users do who keep the state of copies to servers in a folder of their own.
ProgramResult diskferry_with_state(const std::string& folder, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"env", "XDG_STATE_HOME=" + folder, DISKFERRY_PROGRAM});
  return run_program(arguments, std::chrono::seconds(120));
}

void expect_stable_names(const json::value& value) {
  static const std::regex name("[a-z][a-z0-9]*(-[a-z0-9]+)*");
  if (const auto* object = value.if_object()) {
    for (const auto& field : *object) {
      EXPECT_TRUE(std::regex_match(std::string(field.key()), name)) << field.key();
      expect_stable_names(field.value());
    }
  } else if (const auto* array = value.if_array()) {
    for (const auto& element : *array) expect_stable_names(element);
  }
}

TEST(Json, AllCommandsNameFieldsInOneStyle) {
  const TemporaryFolder folder;
  const Chain chain(folder);
  const std::string flat = folder / "flat.raw";
  expect_stable_names(parse_json(diskferry({"plan", "copy", "--json", chain.top, flat}).out));
  expect_stable_names(parse_json(diskferry({"copy", "--json", chain.top, flat}).out));
  expect_stable_names(parse_json(diskferry({"verify", "--json", chain.top, flat}).out));
  expect_stable_names(parse_json(diskferry({"inspect", "--json", chain.top}).out));
  expect_stable_names(parse_json(diskferry({"map", "--json", chain.top}).out));
}

TEST(Json, HoldsWhateverAFileIsCalled) {
  const TemporaryFolder folder;
  const std::string escape = "\xc2\x9b";  // a control character of terminals, in UTF-8
  for (const std::string& name :
       {std::string("bad\xff.raw"), std::string("new\nline.raw"), escape + "31m.raw",
        std::string("-dash.raw"), std::string("a b.raw"), std::string("json:x.raw")}) {
    const std::string image = folder / name;
    std::ofstream(image) << std::string(1 << 20, 'x');
    const auto ran = diskferry({"inspect", "--json", image});
    ASSERT_EQ(ran.exit_code, 0) << ran.err;
    EXPECT_EQ(parse_json(ran.out).at("virtual-size"), 1 << 20);
    EXPECT_EQ(ran.out.find('\xff'), std::string::npos);
    EXPECT_EQ(ran.out.find('\x9b'), std::string::npos);
  }
}

TEST(Json, GivesNamesAsTheyAre) {
  const TemporaryFolder folder;
  const std::string image = folder / "new\nline \x1b[31m.qcow2";
  tool({"qemu-img", "create", "-q", "-f", "qcow2", image, "1M"});
  tool({"qemu-img", "snapshot", "-c", "snap\tshot", image});
  const auto inspected = parse_json(diskferry({"inspect", "--json", image}).out);
  EXPECT_EQ(inspected.at("image").as_string(), image);
  EXPECT_EQ(inspected.at("layers").at(0).at("snapshots").at(0).at("name").as_string(), "snap\tshot");
  const std::string target = folder / "to\r.raw";
  const auto copied = diskferry({"copy", "--json", "--progress", "json", image, target});
  EXPECT_EQ(parse_json(copied.out).at("source").as_string(), image);
  EXPECT_EQ(parse_json(copied.out).at("target").as_string(), target);
  EXPECT_EQ(parse_json(copied.err.substr(0, copied.err.find('\n'))).at("subject").as_string(), target);
  EXPECT_EQ(parse_json(diskferry({"verify", "--json", image, target}).out).at("a").as_string(), image);
  // For people they stay escaped.
  EXPECT_EQ(diskferry({"inspect", image}).out.find('\x1b'), std::string::npos);
  EXPECT_EQ(diskferry({"copy", "--overwrite", image, target}).out.find('\x1b'), std::string::npos);
}

TEST(Messages, SayWhatIsMissingOnce) {
  const TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  make_disk(image, 'd');
  const auto no_server = diskferry({"inspect", "nbd+unix:///x?socket=" + (folder / "nothing")});
  EXPECT_EQ(no_server.err.find("connect: connect:"), std::string::npos) << no_server.err;
  const auto no_folder = diskferry({"copy", image, folder / "missing/disk.raw"});
  expect_refused(no_folder, "copy", 3);
  EXPECT_NE(no_folder.err.find("the folder " + (folder / "missing") + " cannot"), std::string::npos)
      << no_folder.err;
  const auto is_folder = diskferry({"copy", folder.path(), folder / "copy.raw"});
  expect_refused(is_folder, "copy", 3);
  EXPECT_NE(is_folder.err.find("it is a folder"), std::string::npos) << is_folder.err;
}

TEST(Options, AFolderToAllowMustBeThere) {
  const TemporaryFolder folder;
  const Chain chain(folder);
  for (const std::string& wrong : {folder / "nothing", chain.base})
    expect_refused(diskferry({"inspect", "--allow-backing", wrong, chain.top}), "inspect", 3);
  EXPECT_EQ(diskferry({"inspect", "--allow-backing", folder.path(), chain.top}).exit_code, 0);
}

/// What is printed must not go into the first file that is opened.
TEST(StandardDescriptors, AreNeverThoseOfADisk) {
  const TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  make_disk(image, 'd');
  ChildProcess server({"bash", "-c", R"(exec "$@" <&- >&- 2>&-)", "bash", DISKFERRY_PROGRAM, "export",
                       "--listen", "unix:" + (folder / "nbd"), image});
  ASSERT_TRUE(wait_until([&] { return accepts_connections(folder / "nbd"); }));
  for (const int fd : {0, 1, 2}) {
    const std::string link = "/proc/" + std::to_string(server.pid()) + "/fd/" + std::to_string(fd);
    EXPECT_EQ(std::filesystem::read_symlink(link), "/dev/null") << fd;
  }
  server.stop();
}

TEST(Report, IsWrittenOfACopyThatFailed) {
  const TemporaryFolder folder;
  const std::string source = folder / "source.raw";
  const std::string target = folder / "target.raw";
  const std::string report = folder / "report.json";
  make_disk(source, 's');
  const auto read_report = [&] {
    std::ifstream file(report);
    return parse_json({std::istreambuf_iterator<char>(file), {}});
  };
  const std::vector<std::string> copy{"copy", "--report", report, source, target};
  auto failing = copy;
  failing.insert(failing.end(), {"--checkpoint", "1M", "--rate", "40M", "--fault-target",
                                 "write,fail=no_space,range=16M+8M"});
  const auto ran = diskferry(failing);
  EXPECT_EQ(ran.exit_code, 1) << ran.err;
  auto value = read_report();
  EXPECT_EQ(value.at("state"), "failed");
  EXPECT_EQ(value.at("error").at("kind"), "no_space");
  EXPECT_EQ(value.at("error").at("can-resume"), true);
  EXPECT_GT(value.at("error").at("kept").as_int64(), 1 << 20);
  EXPECT_GE(value.at("read").as_int64(), value.at("error").at("kept").as_int64());
  EXPECT_NE(ran.err.find(value.at("error").at("message").as_string().c_str()), std::string::npos) << ran.err;
  expect_stable_names(value);

  EXPECT_EQ(diskferry(copy).exit_code, 3);
  value = read_report();
  EXPECT_EQ(value.at("state"), "refused");
  EXPECT_EQ(value.at("error").at("can-resume"), false);

  auto resuming = copy;
  resuming.emplace_back("--resume");
  EXPECT_EQ(diskferry(resuming).exit_code, 0);
  value = read_report();
  EXPECT_EQ(value.at("state"), "complete");
  EXPECT_TRUE(value.at("error").is_null());
  EXPECT_EQ(value.at("retries"), 0);
  EXPECT_GT(value.at("resumed").as_int64(), 1 << 20);
}

TEST(Report, MustNotCostAnything) {
  const TemporaryFolder folder;
  const std::string source = folder / "source.raw";
  const std::string target = folder / "target.raw";
  make_disk(source, 's');
  for (const std::string& report : {folder / "missing/report", source, folder.path()}) {
    expect_refused(diskferry({"copy", "--report", report, source, target}), "copy", 3);
    EXPECT_FALSE(std::filesystem::exists(target));
  }
  std::ifstream file(source);
  EXPECT_EQ(file.get(), 's');
  const auto piped = diskferry({"copy", "--report", "/dev/stderr", source, target});
  EXPECT_EQ(piped.exit_code, 0) << piped.err;
  EXPECT_EQ(parse_json(piped.err).at("state"), "complete");
}

TEST(Copy, AFaultOfTheSourceIsRehearsed) {
  const TemporaryFolder folder;
  const std::string source = folder / "source.raw";
  make_disk(source, 's');
  const auto corrupted =
      diskferry({"copy", source, folder / "a.raw", "--fault-target", "write,corrupt=1,calls=3-3"});
  EXPECT_EQ(corrupted.exit_code, 4) << corrupted.err;
  const auto failed = diskferry({"copy", source, folder / "b.raw", "--fault-source", "read,fail=io,calls=5"});
  EXPECT_EQ(failed.exit_code, 1) << failed.err;
  EXPECT_EQ(diskferry({"copy", source, folder / "c.raw", "--fault-source", "read,explode"}).exit_code, 2);
}

TEST(Copy, CtrlCDoesNotWaitForAServerThatIsAway) {
  const TemporaryFolder folder;
  const std::string source = folder / "source.raw";
  make_disk(source, 's');
  for (const std::string format : {"raw", "qcow2"}) {
    const std::string target = folder / ("target." + format);
    std::ofstream(target).close();
    std::filesystem::resize_file(target, 64 << 20);
    const std::string socket = folder / ("nbd-" + format);
    ChildProcess server({"qemu-nbd", "-t", "-f", "raw", "-e", "8", "-k", socket, target}, folder / "log");
    ASSERT_TRUE(wait_until([&] { return accepts_connections(socket); }));
    ChildProcess copy({"env", "XDG_STATE_HOME=" + (folder / "state"), DISKFERRY_PROGRAM, "copy", "--rate",
                       "4M", "--overwrite", "-O", format, source, "nbd+unix:///?socket=" + socket},
                      folder / "copy-log");
    ASSERT_TRUE(wait_until([&] {
      std::ifstream file(target);
      file.seekg(1 << 20);
      return file.get() == 's';
    }));
    server.kill();
    usleep(200'000);  // the copy has found out that the server is away, or finds out when it ends
    const auto begin = std::chrono::steady_clock::now();
    copy.signal(SIGINT);
    ASSERT_TRUE(wait_until([&] { return !copy.is_running(); }, std::chrono::seconds(40)));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10)) << format;
  }
}

TEST(Progress, IsShownOnATerminalAndNowhereElse) {
  const TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  make_disk(image, 'd');
  const std::string command = std::string(DISKFERRY_PROGRAM) + " copy " + image + " ";
  const auto on_terminal = [&](const std::string& type, const std::string& target) {
    const std::string log = folder / "screen";
    run_program({"env", "TERM=" + type, "SHELL=/bin/sh", "script", "-qec", command + target, log});
    std::ifstream file(log);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_NE(on_terminal("xterm", folder / "a.raw").find("100%  24.0 MiB of 24.0 MiB"), std::string::npos);
  EXPECT_EQ(on_terminal("dumb", folder / "b.raw").find("100%"), std::string::npos);
  EXPECT_EQ(diskferry({"copy", image, folder / "c.raw"}).err, "");
}

TEST(Secrets, AreNotRepeatedInErrors) {
  const TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  make_disk(image, 'd');
  for (const char* uri :
       {"nbd://user:sekret@127.0.0.1:1/x", "nbds://user:sekret@127.0.0.1:1/x", "x://u:sekret@h/"}) {
    for (const auto& arguments :
         std::vector<std::vector<std::string>>{{"inspect", uri},
                                               {"verify", "--json", image, uri},
                                               {"copy", "-n", image, uri},
                                               {"plan", "copy", "--json", image, uri}}) {
      const auto ran = diskferry(arguments);
      EXPECT_NE(ran.exit_code, 0);
      EXPECT_EQ((ran.out + ran.err).find("sekret"), std::string::npos) << ran.out << ran.err;
    }
  }
}

TEST(Copy, ALimitOnFileSizesIsAFullDisk) {
  const TemporaryFolder folder;
  const std::string source = folder / "source.raw";
  make_disk(source, 's');
  for (const char* name : {"target.raw", "target.qcow2"}) {
    const std::string target = folder / name;
    const auto limited = run_program(
        {"bash", "-c", R"(ulimit -f 8192; exec "$@")", "bash", DISKFERRY_PROGRAM, "copy", source, target});
    EXPECT_EQ(limited.exit_code, 1) << limited.err;
    EXPECT_EQ(std::ranges::count(limited.err, '\n'), 1) << limited.err;
    if (!std::filesystem::exists(target)) continue;  // the limit met its creation: nothing is left
    EXPECT_NE(limited.err.find("--resume"), std::string::npos) << limited.err;
    const auto resumed = diskferry({"copy", "--resume", source, target});
    EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_EQ(diskferry({"verify", source, target}).exit_code, 0);
    EXPECT_FALSE(std::filesystem::exists(target + ".diskferry-ledger"));
  }
}

TEST(Copy, ATargetThatLosesWhatItTookIsFoundOut) {
  const TemporaryFolder folder;
  const std::string source = folder / "source.raw";
  make_disk(source, 's');
  const std::string socket = folder / "liar";
  ChildProcess liar({"nbdkit", "--foreground", "-U", socket, "null", std::to_string(disk_bytes)},
                    folder / "log");
  ASSERT_TRUE(wait_until([&] { return accepts_connections(socket); }));
  const std::string uri = "nbd+unix:///?socket=" + socket;
  const auto ran = diskferry_with_state(folder / "state", {"copy", "-n", source, uri});
  expect_refused(ran, "copy", 4);
  // Nothing to resume, then: the next copy begins again.
  EXPECT_EQ(diskferry_with_state(folder / "state", {"copy", "-n", "--resume", source, uri}).exit_code, 4);
  liar.stop();
}

TEST(Copy, GoesOnWhenTheServerIsRestarted) {
  const TemporaryFolder folder;
  const std::string source = folder / "source.raw";
  const std::string target = folder / "target.raw";
  make_disk(source, 's');
  make_disk(target, 't');
  const std::string socket = folder / "nbd";
  const std::vector<std::string> serve{"qemu-nbd", "-t", "-f", "raw", "-e", "8", "-k", socket, target};
  const std::string uri = "nbd+unix:///?socket=" + socket;
  auto server = std::make_unique<ChildProcess>(serve, folder / "log");
  ASSERT_TRUE(wait_until([&] { return accepts_connections(socket); }));
  ChildProcess copy({"env", "XDG_STATE_HOME=" + (folder / "state"), DISKFERRY_PROGRAM, "copy", "-n", "--rate",
                     "12M", "--report", folder / "report.json", source, uri},
                    folder / "copy-log");
  ASSERT_TRUE(wait_until([&] {
    std::ifstream file(target);
    file.seekg(4 << 20);
    return file.get() == 's';
  }));
  server->signal(SIGKILL);
  server.reset();
  server = std::make_unique<ChildProcess>(serve, folder / "log");
  EXPECT_TRUE(
      wait_until([&] { return std::filesystem::exists(folder / "report.json"); }, std::chrono::seconds(60)));
  copy.stop();
  server->stop();
  EXPECT_EQ(diskferry({"verify", "--strict", source, target}).exit_code, 0);
  std::ifstream report(folder / "report.json");
  const auto value = parse_json({std::istreambuf_iterator<char>(report), {}});
  EXPECT_GT(value.at("retries").as_int64(), 0);
}

TEST(Copy, RefusesATargetWhoseNameSaysAnotherFormat) {
  const TemporaryFolder folder;
  const std::string source = folder / "source.raw";
  make_disk(source, 's');
  expect_refused(diskferry({"copy", source, folder / "disk.vmdk"}), "copy", 2);
  EXPECT_EQ(diskferry({"copy", "-O", "raw", source, folder / "disk.vmdk"}).exit_code, 0);
}

TEST(Copy, TakesARawDiskForNothingElse) {
  const TemporaryFolder folder;
  const Chain chain(folder);
  const std::string disk = folder / "guest.raw";  // into which the guest wrote the header of a qcow2
  std::filesystem::copy_file(chain.top, disk);
  expect_refused(diskferry({"copy", disk, folder / "copy.qcow2"}), "copy", 2);
  EXPECT_EQ(diskferry({"copy", "-f", "raw", disk, folder / "copy.qcow2"}).exit_code, 0);
  const auto same =
      run_program({"qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk, folder / "copy.qcow2"});
  EXPECT_EQ(same.exit_code, 0) << same.out << same.err;
}

TEST(Plan, SaysThatTheTargetIsTooSmall) {
  const TemporaryFolder folder;
  const Chain chain(folder);
  const std::string target = folder / "small.raw";
  std::ofstream(target) << std::string(1 << 20, 'x');
  for (const char* option : {"-n", "--resume"}) {
    const auto ran = diskferry({"plan", "copy", "--json", option, chain.top, target});
    ASSERT_EQ(ran.exit_code, 3) << ran.err;
    EXPECT_EQ(parse_json(ran.out).at("blockers").as_array().size(), 1u) << ran.out;
  }
}

TEST(Copy, ALedgerThatIsNoneIsNotGoneOnWith) {
  const TemporaryFolder folder;
  const std::string source = folder / "source.raw";
  const std::string target = folder / "target.raw";
  make_disk(source, 's');
  make_disk(target, 't');
  std::ofstream(target + ".diskferry-ledger") << "what nobody wrote";
  const auto ran = diskferry({"copy", "--resume", source, target});
  expect_refused(ran, "copy", 3);
  EXPECT_NE(ran.err.find("--overwrite"), std::string::npos) << ran.err;
  EXPECT_EQ(diskferry({"copy", "--overwrite", source, target}).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(target + ".diskferry-ledger"));
}

TEST(Copy, QemuSeesTheWholeOfADiskOfOddSize) {
  const TemporaryFolder folder;
  const std::string source = folder / "odd.raw";
  std::ofstream(source) << std::string(1'000'001, 'o');
  for (const std::string option : {"--compress", "--verify=cache"}) {
    const std::string target = folder / (option + ".qcow2");
    ASSERT_EQ(diskferry({"copy", option, source, target}).exit_code, 0);
    const auto same = run_program({"qemu-img", "compare", "-f", "raw", "-F", "qcow2", source, target});
    EXPECT_EQ(same.exit_code, 0) << same.out << same.err;
    EXPECT_EQ(diskferry({"verify", source, target}).exit_code, 0);
  }
}

TEST(Copy, ADamagedSourceLeavesNothingBehind) {
  const TemporaryFolder folder;
  const std::string source = folder / "damaged.qcow2";
  tool({"qemu-img", "create", "-q", "-f", "qcow2", source, "16M"});
  tool({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 8M", source});
  std::filesystem::resize_file(source, 4 << 20);
  const std::string target = folder / "copy.raw";
  expect_refused(diskferry({"copy", source, target}), "copy", 1);
  EXPECT_FALSE(std::filesystem::exists(target));
  EXPECT_FALSE(std::filesystem::exists(target + ".diskferry-ledger"));
}

TEST(Export, RefusesProtectionThatWouldNotProtect) {
  const TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  make_disk(image, 'd');
  const std::string listen = "unix:" + (folder / "nbd");
  for (const std::vector<std::string>& options : std::vector<std::vector<std::string>>{
           {"--tls", "on", "--tls-psk", folder / "keys", "--allow", "alice"},
           {"--allow", "alice"},
           {"--tls-verify-peer"},
           {"--tls-certificates", folder / "pki"},
           {"--tls-psk", folder / "keys"}}) {
    std::vector<std::string> arguments{"export", "--listen", listen, image};
    arguments.insert(arguments.end(), options.begin(), options.end());
    expect_refused(diskferry(arguments), "export", 2);
  }
}

}  // namespace
}  // namespace diskferry::test
