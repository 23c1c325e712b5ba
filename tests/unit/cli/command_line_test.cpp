// The program in one process: how a line is parsed, what goes where, and what it exits with.
#include "gateway/cli/command.hpp"

#include <sstream>
#include <vector>

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

namespace diskferry::cli {
namespace {

struct Ran {
  int code;
  std::string out;
  std::string err;
};
Ran run(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "diskferry");
  std::ostringstream out;
  std::ostringstream err;
  const int code = run_command_line(static_cast<int>(arguments.size()), arguments.data(), out, err);
  return {code, out.str(), err.str()};
}

TEST(CommandLine, HelpAndVersionSucceedOnStdout) {
  EXPECT_EQ(run({"--version"}).out, std::string("diskferry ") + DISKFERRY_VERSION + "\n");
  const auto help = run({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_EQ(help.err, "");
  for (const Command* command : all_commands()) EXPECT_NE(help.out.find(command->name), std::string::npos);
}

TEST(CommandLine, TimesAreSpeltTheSameEverywhere) {
  for (const char* bad : {"300m", "1.5s", "-1", "", "2h", "3601s"}) {
    for (const auto& line :
         std::vector<std::vector<const char*>>{{"set", "r-1", "--max-pause", bad},
                                               {"plan", "replace", "vm", "/x", "--max-pause", bad},
                                               {"replace", "vm", "/x", "--max-write-latency", bad}}) {
      const auto ran = run(line);
      EXPECT_EQ(ran.code, 2) << line.front() << bad;
      EXPECT_NE(ran.err.find("is no time such as 300ms or 1s"), std::string::npos) << ran.err;
    }
  }
  for (const char* good : {"300ms", "1s", "300"}) {
    const auto ran =
        run({"replace", "vm", "/x", "--max-pause", good, "--gateway", "unix:/nonexistent/socket"});
    EXPECT_EQ(ran.code, 3) << good << ran.err;
  }
}

TEST(CommandLine, EveryCommandHasASummaryExamplesAndHelp) {
  for (const Command* command : all_commands()) {
    const std::string name(command->name);
    const auto help = run({name.c_str(), "--help"});
    EXPECT_EQ(help.code, 0) << name;
    EXPECT_FALSE(command->summary.empty()) << name;
    EXPECT_NE(help.out.find("Examples:\n  diskferry " + name), std::string::npos) << name;
  }
}

TEST(CommandLine, NamesTheCommandThatThereIsNot) {
  const auto ran = run({"convert", "a", "b"});
  EXPECT_EQ(ran.code, 2);
  EXPECT_NE(ran.err.find("no command 'convert'"), std::string::npos) << ran.err;
  EXPECT_NE(ran.err.find("copy"), std::string::npos) << ran.err;
}

TEST(CommandLine, SaysItsOwnNameOnce) {
  const auto ran = run({"copy", "memory:///?size=2M", "-n", "memory:///?size=1M"});
  EXPECT_EQ(ran.err.find("copy:", ran.err.find("copy:") + 1), std::string::npos) << ran.err;
  EXPECT_NE(ran.err.find("the target has 1.0 MiB"), std::string::npos) << ran.err;
}

TEST(CommandLine, AWrongLineExitsTwoWithOneLineOnStderr) {
  const std::vector<std::vector<const char*>> lines{
      {},
      {"no-such-command"},
      {"map"},
      {"map", "memory:///?size=1M", "surplus"},
      {"map", "memory:///?size=1M", "--no-such-option"},
      {"map", "memory:///?size=1M", "--connections", "many"},
      {"map", "memory:///?size=1M", "--log-level", "loud"},
      {"map", "memory:///?no-such-key=1"},
  };
  for (const auto& line : lines) {
    const auto ran = run(line);
    EXPECT_EQ(ran.code, 2) << ran.err;
    EXPECT_EQ(ran.out, "") << ran.err;
    EXPECT_EQ(std::ranges::count(ran.err, '\n'), 1) << ran.err;
    EXPECT_TRUE(ran.err.starts_with("diskferry: ")) << ran.err;
  }
}

TEST(CommandLine, AnErrorNamesTheCommandAndKeepsToOneLine) {
  const auto ran = run({"map", "nosuch://host/a%0ab"});
  EXPECT_EQ(ran.code, 3);
  EXPECT_TRUE(ran.err.starts_with("diskferry: map: ")) << ran.err;
  EXPECT_EQ(std::ranges::count(ran.err, '\n'), 1) << ran.err;
}

TEST(CommandLine, NeverShowsAPassword) {
  const auto ran = run({"map", "nosuch://me:hidden@host/x?password=hidden"});
  EXPECT_EQ(ran.err.find("hidden"), std::string::npos) << ran.err;
}

TEST(CommandLine, MapOfAnEmptyDiskIsOneZeroExtent) {
  const auto ran = run({"map", "--json", "memory:///?size=1M"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  const auto map = boost::json::parse(ran.out);
  ASSERT_EQ(map.as_array().size(), 1u);
  EXPECT_EQ(map.at(0).at("start"), 0);
  EXPECT_EQ(map.at(0).at("length"), 1 << 20);
  EXPECT_EQ(map.at(0).at("zero"), true);
  EXPECT_EQ(map.at(0).at("data"), false);
}

TEST(CommandLine, MapOfADiskWithoutBytesIsAnEmptyList) {
  const auto ran = run({"map", "--json", "memory:///?size=0"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(boost::json::parse(ran.out).as_array().size(), 0u);
}

TEST(CommandLine, InspectTellsTheSizeInBothForms) {
  EXPECT_NE(run({"inspect", "memory:///?size=1M"}).out.find("1.0 MiB (1048576 bytes)"), std::string::npos);
  const auto ran = run({"inspect", "--json", "memory:///?size=1M&block=512"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  const auto document = boost::json::parse(ran.out);
  EXPECT_EQ(document.at("virtual-size"), 1 << 20);
  EXPECT_EQ(document.at("device").at("block-size"), 512);
  EXPECT_EQ(document.at("layers").as_array().size(), 1u);
}

TEST(CommandLine, AFullStdoutIsAFailure) {
  const std::vector<const char*> arguments{"diskferry", "inspect", "memory:///?size=1M"};
  std::ostringstream err;
  std::ostream broken(nullptr);
  EXPECT_EQ(run_command_line(static_cast<int>(arguments.size()), arguments.data(), broken, err), 1);
  EXPECT_NE(err.str().find("standard output"), std::string::npos);
}

}  // namespace
}  // namespace diskferry::cli
