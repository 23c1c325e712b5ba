// `diskferry copy` from outside: killed at any moment and resumed, interrupted, out of space, compared by
// qemu-img.
#include "diskferry/units.hpp"
#include "gateway/copy/ledger.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>
#include <unistd.h>

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::run_program;
namespace fs = std::filesystem;
namespace json = boost::json;

constexpr const char* program = DISKFERRY_PROGRAM;

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void write_pattern(const std::string& path, Range range) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  if (!file) file.open(path, std::ios::binary | std::ios::out);
  const auto bytes = test::pattern(range.offset, range.length);
  file.seekp(static_cast<std::streamoff>(range.offset));
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

/// What the ledger on disk says is done.
std::uint64_t recorded_bytes(const std::string& path) {
  const std::string text = content(path);
  LedgerReader reader(as_bytes(text));
  RangeSet done;
  if (!reader.header()) return 0;
  for (auto pieces = reader.next(); !pieces.empty(); pieces = reader.next()) {
    for (const Piece& piece : pieces) done.add(piece.range);
  }
  return done.bytes();
}

class CopyProgram : public testing::Test {
 protected:
  test::TemporaryFolder folder;
  const std::string source = folder / "source.raw";
  const std::string target = folder / "target.raw";
  const std::string ledger = target + ".diskferry-ledger";
  const std::string report = folder / "report.json";
};

TEST_F(CopyProgram, AnExternalDataFileIsNoTargetForItsImage) {
  ASSERT_EQ(
      run_program({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
                   "data_file=" + (folder / "data.raw") + ",data_file_raw=on", folder / "disk.qcow2", "4M"})
          .exit_code,
      0);
  ASSERT_EQ(run_program({"qemu-io", "-f", "qcow2", "-c", "write -P 5 0 1M", folder / "disk.qcow2"}).exit_code,
            0);
  const std::string before = content(folder / "data.raw");
  const auto copied = run_program(
      {program, "copy", "--allow-data-file", "--overwrite", folder / "disk.qcow2", folder / "data.raw"});
  EXPECT_EQ(copied.exit_code, 3) << copied.err;
  EXPECT_NE(copied.err.find("data.raw"), std::string::npos) << copied.err;
  EXPECT_TRUE(content(folder / "data.raw") == before);
}

TEST_F(CopyProgram, KilledAtAnyMomentGoesOnWithWhatWasInFlight) {
  constexpr std::uint64_t data = 64 * mib;
  write_pattern(source, {0, data});
  fs::resize_file(source, 2 * data);
  std::mt19937_64 random(20260101);
  int resumed_runs = 0;
  for (int round = 0; round < 4; ++round) {
    fs::remove(target);
    fs::remove(ledger);
    int exit_code = -1;
    std::uint64_t before = 0;
    for (int life = 0; life < 40 && exit_code != 0; ++life) {
      const bool is_last = life == 39;
      std::vector<std::string> arguments{program, "copy",     "--progress", "none", "--checkpoint",
                                         "4M",    "--report", report,       source, target};
      if (!is_last) arguments.insert(arguments.end(), {"--rate", "100M"});
      // A kill between the target's creation and the ledger's leaves a target without a ledger.
      if (fs::exists(target)) arguments.push_back(fs::exists(ledger) ? "--resume" : "--overwrite");
      fs::remove(folder / "messages");
      test::ChildProcess copy(arguments, folder / "messages");
      if (!is_last) {
        // Every other life goes on until it has put something new on record.
        if (life % 2 == 1)
          (void)test::wait_until([&] { return recorded_bytes(ledger) > before || !copy.is_running(); });
        std::this_thread::sleep_for(std::chrono::milliseconds(random() % 400));
        copy.kill();
      }
      exit_code = copy.wait();
      ASSERT_TRUE(exit_code == 0 || exit_code == 128 + SIGKILL) << content(folder / "messages");
      // Killed between taking away the ledger and its exit: it was complete.
      const bool was_complete = exit_code != 0 && before > 0 && !fs::exists(ledger);
      if (was_complete) break;
      if (exit_code != 0) {
        const std::uint64_t now = recorded_bytes(ledger);
        EXPECT_GE(now, before) << "the ledger forgot something";
        before = now;
      }
    }
    if (exit_code == 0) {
      const json::value said = json::parse(content(report));
      EXPECT_EQ(said.at("resumed").to_number<std::uint64_t>(), before);
      EXPECT_EQ(said.at("read").to_number<std::uint64_t>(), data - before);
    }
    if (before > 0) ++resumed_runs;
    EXPECT_FALSE(fs::exists(ledger));
    ASSERT_EQ(content(target), content(source));
  }
  EXPECT_GT(resumed_runs, 0) << "no round was killed after its first checkpoint";
}

TEST_F(CopyProgram, InterruptedSaysHowToGoOn) {
  write_pattern(source, {0, 64 * mib});
  test::ChildProcess copy(
      {program, "copy", "--progress", "none", "--checkpoint", "1M", "--rate", "20M", source, target},
      folder / "messages");
  ASSERT_TRUE(test::wait_until([&] { return recorded_bytes(ledger) != 0; }, std::chrono::seconds(30)));
  const auto asked = std::chrono::steady_clock::now();
  copy.signal(SIGINT);
  EXPECT_EQ(copy.wait(), 5);
  EXPECT_LT(std::chrono::steady_clock::now() - asked, std::chrono::seconds(5));
  const std::string said = content(folder / "messages");
  EXPECT_NE(said.find("--resume"), std::string::npos) << said;
  EXPECT_NE(said.find("copied and kept"), std::string::npos) << said;
  EXPECT_EQ(run_program({program, "copy", "--progress", "none", "--resume", source, target}).exit_code, 0);
  EXPECT_EQ(content(target), content(source));
}

TEST_F(CopyProgram, RefusalsHaveTheirExitCodes) {
  write_pattern(source, {0, mib});
  EXPECT_EQ(run_program({program, "copy", source, source, "--overwrite"}).exit_code, 3);
  write_pattern(target, {0, 4096});
  EXPECT_EQ(run_program({program, "copy", source, target}).exit_code, 3);
  EXPECT_EQ(run_program({program, "copy", "-n", source, target}).exit_code, 3);
  EXPECT_EQ(run_program({program, "copy", folder / "missing", folder / "new"}).exit_code, 3);
  EXPECT_EQ(run_program({program, "copy", "--compress", source, folder / "new.raw"}).exit_code, 2);
  EXPECT_EQ(run_program({program, "copy", "--verify", "maybe", source, folder / "new.raw"}).exit_code, 2);
  EXPECT_EQ(run_program({program, "verify", source, target}).exit_code, 4);
  EXPECT_EQ(run_program({program, "verify", source, source}).exit_code, 0);
  EXPECT_EQ(run_program({program, "plan", "copy", source, target}).exit_code, 3);
  EXPECT_EQ(run_program({program, "plan", "copy", source, folder / "new.raw"}).exit_code, 0);
  EXPECT_EQ(fs::file_size(target), 4096u);
  EXPECT_FALSE(fs::exists(folder / "new.raw"));
}

TEST_F(CopyProgram, FlattensAChainAsQemuImgDoes) {
  const std::string base = folder / "base.qcow2";
  const std::string middle = folder / "middle.qcow2";
  const std::string top = folder / "top.qcow2";
  write_pattern(source, {0, 9 * mib});
  fs::resize_file(source, 20 * mib + 512);
  const std::vector<std::vector<std::string>> steps{
      {"qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", source, base},
      {"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", middle, "24M"},
      {"qemu-io", "-c", "write -P 7 3M 5M", "-c", "write -P 8 21M 1M", middle},
      {"qemu-img", "create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top},
      {"qemu-io", "-c", "write -P 9 7M 66000", "-c", "write -z 1M 1M", "-c", "write -P 0 4M 300k", top}};
  for (const auto& step : steps) {
    const auto result = run_program(step);
    ASSERT_EQ(result.exit_code, 0) << step[0] << " " << step[1] << ": " << result.err;
  }
  const auto copied = run_program({program, "copy", "--progress", "none", top, target});
  ASSERT_EQ(copied.exit_code, 0) << copied.err;
  const auto compared = run_program({"qemu-img", "compare", "-f", "qcow2", "-F", "raw", top, target});
  EXPECT_EQ(compared.exit_code, 0) << compared.out << compared.err;
  EXPECT_EQ(fs::file_size(target), 24 * mib);
  EXPECT_EQ(run_program({program, "verify", top, target}).exit_code, 0);
  // The target into a backing image of the source would destroy it.
  const auto refused = run_program({program, "copy", "--overwrite", "-O", "raw", top, base});
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_NE(refused.err.find("backing image"), std::string::npos) << refused.err;
}

}  // namespace
}  // namespace diskferry
