// Running diskferry and the programs it is compared with.
#pragma once

#include "tests/support/test_runtime.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

namespace diskferry::test {

inline ProgramResult diskferry(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), DISKFERRY_PROGRAM);
  return run_program(arguments, std::chrono::seconds(120));
}

/// Runs another program that must succeed; returns its stdout.
inline std::string tool(const std::vector<std::string>& arguments) {
  const auto ran = run_program(arguments, std::chrono::seconds(120));
  EXPECT_EQ(ran.exit_code, 0) << arguments.front() << " " << arguments.at(1) << ": " << ran.err << ran.out;
  return ran.out;
}

inline boost::json::value parse_json(const std::string& text) {
  boost::system::error_code error;
  auto value = boost::json::parse(text, error);
  EXPECT_FALSE(error) << error.message() << " in: " << text;
  return value;
}

/// A refusal is one line on stderr that begins with the command, and nothing on stdout.
inline void expect_refused(const ProgramResult& ran, const std::string& command, int exit_code) {
  EXPECT_EQ(ran.exit_code, exit_code) << ran.err;
  EXPECT_EQ(ran.out, "");
  EXPECT_EQ(std::ranges::count(ran.err, '\n'), 1) << ran.err;
  EXPECT_TRUE(ran.err.starts_with("diskferry: " + command + ": ")) << ran.err;
}

/// A three-layer chain as it is in the field: compressed base, shorter than its overlays, holes, zero
/// clusters.
struct Chain {
  explicit Chain(const TemporaryFolder& folder)
      : base(folder / "base.qcow2"), middle(folder / "middle.qcow2"), top(folder / "top.qcow2") {
    const std::string plain = folder / "plain.qcow2";
    tool({"qemu-img", "create", "-q", "-f", "qcow2", plain, "16M"});
    tool({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 1M", "-c", "write -q -P 2 5M 300k", "-c",
          "write -q -z 8M 1M", plain});
    tool({"qemu-img", "convert", "-c", "-f", "qcow2", "-O", "qcow2", plain, base});
    tool({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", middle, "20M"});
    tool({"qemu-io", "-f", "qcow2", "-c", "write -q -P 3 512k 1M", "-c", "write -q -z 5M 64k", middle});
    tool({"qemu-img", "create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top, "24M"});
    tool({"qemu-io", "-f", "qcow2", "-c", "write -q -P 4 22M 512", "-c", "write -q -P 5 700k 3k", top});
  }
  std::string base;
  std::string middle;
  std::string top;
};

}  // namespace diskferry::test
