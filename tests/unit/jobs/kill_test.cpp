// A writer that is killed at any moment: what it was told to be durable is there, and nothing is half there.
#include "tests/support/child_process.hpp"
#include "tests/unit/jobs/store_fixture.hpp"

#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <poll.h>
#include <random>
#include <sstream>
#include <unistd.h>

namespace diskferry::test {
namespace {

/// What a child prints, read by line.
class Lines {
 public:
  Lines() {
    if (pipe2(ends_, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
  }
  ~Lines() {
    close(ends_[0]);
    close_write_end();
  }
  int write_end() const { return ends_[1]; }
  void close_write_end() {
    if (ends_[1] >= 0) close(std::exchange(ends_[1], -1));
  }
  /// Reads on until there are `count` lines, or nothing more comes. Returns how many there are.
  std::size_t read(std::size_t count) {
    while (static_cast<std::size_t>(std::ranges::count(text_, '\n')) < count) {
      pollfd waiting{ends_[0], POLLIN, 0};
      std::array<char, 4096> chunk;
      if (poll(&waiting, 1, 60'000) != 1) break;
      const ssize_t got = ::read(ends_[0], chunk.data(), chunk.size());
      if (got <= 0) break;
      text_.append(chunk.data(), static_cast<std::size_t>(got));
    }
    return static_cast<std::size_t>(std::ranges::count(text_, '\n'));
  }
  /// The number on the last whole line; 0 where there is none.
  std::uint64_t last_number() const {
    const auto end = text_.rfind('\n');
    if (end == std::string::npos) return 0;
    const auto begin = end == 0 ? std::string::npos : text_.rfind('\n', end - 1);
    return std::stoull(text_.substr(begin == std::string::npos ? 0 : begin + 1));
  }

 private:
  int ends_[2]{-1, -1};
  std::string text_;
};

using KillTest = StoreFixture;

TEST_F(KillTest, WhatWasDurableIsThereAndNothingIsHalfThere) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  constexpr int kills = 50;
  std::uint64_t before = 0;
  for (int life = 1; life <= kills; ++life) {
    Lines lines;
    std::uint64_t acknowledged = before;
    {
      ChildProcess writer({DISKFERRY_JOB_WRITER, path()},
                          Streams{.out = lines.write_end(), .err = STDERR_FILENO});
      lines.close_write_end();
      ASSERT_GT(lines.read(1 + random() % 20), 0u) << "the writer must get on in life " << life;
      // Somewhere inside a write, which takes a tenth of a millisecond to some of them.
      const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(random() % 3000);
      while (std::chrono::steady_clock::now() < until) {
      }
      writer.kill();
    }
    lines.read(SIZE_MAX);
    acknowledged = std::max(acknowledged, lines.last_number());

    open();
    const JobRecord job = must(run(store->load("t-1")));
    const std::uint64_t found = std::stoull(job.state);
    EXPECT_GE(found, acknowledged) << "life " << life;
    EXPECT_LE(found, acknowledged + 1) << "life " << life;
    EXPECT_EQ(job.phase, job.state);
    EXPECT_EQ(job.generation, static_cast<std::uint64_t>(life));
    const auto last = must(run(store->events("t-1", found - 1, 10)));
    ASSERT_EQ(last.size(), 1u) << "the event of a state is there, and none beyond it";
    EXPECT_EQ(last.front().text, job.state);
    store.reset();
    before = found;
  }
  open();
  std::uint64_t expected = 1;
  for (auto events = must(run(store->events("t-1", 0, 1000))); !events.empty();
       events = must(run(store->events("t-1", expected - 1, 1000)))) {
    for (const auto& one : events) {
      ASSERT_EQ(one.sequence, expected);
      ASSERT_EQ(one.text, std::to_string(expected++));
    }
  }
  EXPECT_EQ(expected, before + 1);
}

TEST_F(KillTest, AJobUnderWayCanStillNoteItsEndOnAFullDisk) {
  std::filesystem::create_directory(folder / "disk");
  std::vector<std::string> command{"unshare", "--map-root-user", "--mount",
                                   "--pid",   "--fork",          "--kill-child"};
  auto mount = command;
  mount.insert(mount.end(), {"mount", "-t", "tmpfs", "tmpfs", folder / "disk"});
  if (const auto tried = run_program(mount); tried.exit_code != 0)
    GTEST_SKIP() << "NOT TESTED: a full disk. This needs user and mount namespaces: " << tried.err;
  command.insert(command.end(), {FULL_DISK, folder / "disk", DISKFERRY_JOB_WRITER});
  const auto ran = run_program(command, std::chrono::seconds(200));
  ASSERT_EQ(ran.exit_code, 0) << ran.err << ran.out;
  std::istringstream numbers(ran.out);
  std::uint64_t full = 0;
  std::uint64_t gave_up = 0;
  std::uint64_t again = 0;
  std::uint64_t at_last = 0;
  numbers >> full >> gave_up >> again >> at_last;
  EXPECT_GE(gave_up, full + 100) << ran.out;
  EXPECT_GE(again, gave_up) << ran.out;
  EXPECT_GT(at_last, again) << "goes on where there is room again: " << ran.out;
  EXPECT_NE(ran.err.find("free space"), std::string::npos) << ran.err;
}

}  // namespace
}  // namespace diskferry::test
