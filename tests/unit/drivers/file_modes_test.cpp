// Every way the file driver can do I/O (page cache or direct, io_uring or threads) gives the same content,
// also when the page cache is empty, with many requests at once, and when tasks are cancelled in the middle.
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/file/inline_gate.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/drivers/files.hpp"

#include <fcntl.h>
#include <random>
#include <unistd.h>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::make_file;
using test::must;
using test::run;
using test::run_program;
using test::TemporaryFolder;

constexpr std::uint64_t disk_bytes = 3 * mib + 777;

DevicePtr open_by(const std::string& path, const std::string& keys, bool writable) {
  auto uri = must(ImageUri::parse("file://" + path + (keys.empty() ? "" : "?" + keys)));
  return must(run(open_storage(test::runtime().context(), uri, {.writable = writable})));
}
void drop_cache(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  ::fdatasync(fd);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
}

class Modes : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(FileDevice, Modes,
                         ::testing::Values("", "io=threads", "cache=none", "cache=none&io=threads"),
                         [](const auto& one) {
                           std::string name = *one.param == '\0' ? "usual" : one.param;
                           std::erase_if(name, [](char c) { return std::isalnum(c) == 0; });
                           return name;
                         });

TEST_P(Modes, WritesAndReadsOfAnyAlignmentMeetTheSameBytes) {
  TemporaryFolder folder;
  const std::string path = make_file(folder / "disk", disk_bytes);
  auto device = open_by(path, GetParam(), true);
  std::vector<std::byte> model(disk_bytes);
  alignas(4096) static std::array<std::byte, 300 * kib> memory;
  std::mt19937_64 random(7);
  for (unsigned round = 0; round < 300; ++round) {
    const bool is_aligned_round = round % 3 == 0;
    const std::uint64_t unit = is_aligned_round ? 4096 : 1;
    std::uint64_t length = align_up(1 + random() % (250 * kib), unit);
    const std::uint64_t offset = align_down(random() % (disk_bytes - length), unit);
    if (round % 10 == 1) length = disk_bytes - offset < memory.size() ? disk_bytes - offset : length;
    const auto span = std::span(memory).subspan(is_aligned_round ? 0 : round % 512, length);
    SCOPED_TRACE(testing::Message() << "round " << round << ": " << offset << "+" << length);
    if (round % 2 == 0) {
      test::fill_pattern(span, offset, round);
      must(run(device->write(offset, span, {.fua = round % 32 == 0})));
      std::copy(span.begin(), span.end(), model.begin() + static_cast<std::ptrdiff_t>(offset));
    } else {
      if (round % 7 == 0) drop_cache(path);
      must(run(device->read(offset, span)));
      ASSERT_TRUE(std::equal(span.begin(), span.end(), model.begin() + static_cast<std::ptrdiff_t>(offset)));
    }
  }
  must(run(device->flush()));
  std::vector<std::byte> all(disk_bytes);
  must(run(device->read(0, all)));
  EXPECT_TRUE(all == model);
  must(run(device->close()));
}

Task<Result<void>> read_once(BlockDevice& device, std::uint64_t offset, std::size_t length) {
  const std::unique_ptr<std::byte, decltype(&std::free)> memory(
      static_cast<std::byte*>(std::aligned_alloc(4096, align_up(length, 4096))), &std::free);
  const std::span into(memory.get(), length);
  DISKFERRY_CO_CHECK(co_await device.read(offset, into));
  if (test::first_difference(into, offset) != SIZE_MAX)
    co_return unexpected(fail(ErrorKind::mismatch, "read"));
  co_return Result<void>{};
}
Task<Result<void>> read_many(BlockDevice& device, unsigned tasks, bool is_cancelled_at_once) {
  TaskGroup group(test::runtime().reactor(0));
  for (unsigned number = 0; number < tasks; ++number)
    group.spawn_on(test::runtime().reactor(number), read_once(device, number * 8192ull, 4096));
  if (is_cancelled_at_once) group.cancel();
  auto done = co_await group.join();
  if (!done && is_cancelled_at_once && done.error().kind() == ErrorKind::cancelled) co_return Result<void>{};
  co_return done;
}

TEST_P(Modes, HundredsOfColdReadsAtOnceAreServed) {
  TemporaryFolder folder;
  const std::string path = make_file(folder / "disk", 8 * mib);
  auto device = open_by(path, GetParam(), true);
  must(run(device->write(0, test::pattern(0, 8 * mib), {})));
  must(run(device->flush()));
  for (unsigned round = 0; round < 3; ++round) {
    drop_cache(path);
    must(run(read_many(*device, 600, false)));
  }
  for (unsigned round = 0; round < 10; ++round) {
    drop_cache(path);
    must(run(read_many(*device, 100, true)));  // memory is freed as each task ends: the sanitizer watches
  }
  must(run(device->close()));
}

TEST_P(Modes, ReadingPastTheEndOfAFileMadeShorterFails) {
  TemporaryFolder folder;
  const std::string path = make_file(folder / "disk", mib);
  auto device = open_by(path, GetParam(), false);
  ASSERT_EQ(::truncate(path.c_str(), 100 * 1024 + 5), 0);
  for (const Range range : {Range{100 * kib, 4096}, Range{512 * kib, 64 * kib}, Range{3, mib - 3}}) {
    std::vector<std::byte> memory(range.length);
    const auto got = run(device->read(range.offset, memory));
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().kind(), ErrorKind::io);
  }
  must(run(device->close()));
}

TEST(FileDriver, RefusesUnknownValuesOfItsKeys) {
  TemporaryFolder folder;
  const std::string path = make_file(folder / "disk", mib);
  for (const char* keys : {"cache=all", "io=", "colour=red"}) {
    const auto opened = run(
        open_storage(test::runtime().context(), must(ImageUri::parse("file://" + path + "?" + keys)), {}));
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().kind(), ErrorKind::invalid_argument);
  }
}

TEST(InlineGate, ClosesForEightTimesAsLongAsASlowWriteTook) {
  constexpr std::int64_t ms = 1'000'000;
  InlineGate gate;
  EXPECT_TRUE(gate.is_open(0));
  gate.wrote(4096, 0, ms / 2);
  EXPECT_TRUE(gate.is_open(ms));
  std::int64_t now = ms;
  for (unsigned again = 0; again < 10; ++again) {  // however often it happens
    gate.wrote(4096, now, now + 2 * ms);
    now += 2 * ms;
    EXPECT_FALSE(gate.is_open(now + 16 * ms - 1));
    EXPECT_TRUE(gate.is_open(now + 16 * ms));
    now += 16 * ms;
  }
  gate.wrote(4096, now, now + 200 * ms);  // the longest that the kernel lets a writer sleep
  now += 200 * ms;
  EXPECT_FALSE(gate.is_open(now + InlineGate::pause_max_ns - 1));
  EXPECT_TRUE(gate.is_open(now + InlineGate::pause_max_ns));
  now += InlineGate::pause_max_ns;
  gate.wrote(mib, now, now + ms);  // a megabyte may take a millisecond
  EXPECT_TRUE(gate.is_open(now + ms));
}

/// XFS shares blocks, and unlike ext4 it offers buffered writes without waiting.
TEST(FileDevice, OnXfsFilesShareBlocksAndCopiesAreFree) {
  TemporaryFolder folder;
  make_file(folder / "backing", 400 * mib);
  ASSERT_EQ(run_program({"mkfs.xfs", "-q", folder / "backing"}).exit_code, 0) << "xfsprogs is missing";
  TemporaryFolder mounted;
  if (run_program({"mount", "-o", "loop", folder / "backing", mounted.path()}).exit_code != 0)
    GTEST_SKIP() << "cannot mount XFS here: that takes root and the kernel's support";
  {
    auto source = open_by(make_file(mounted / "source", 4 * mib), "", true);
    auto target = open_by(make_file(mounted / "target", 4 * mib), "", true);
    must(run(source->write(0, test::pattern(0, 4 * mib), {})));
    EXPECT_EQ(must(run(target->copy_from(*source, mib, 0, 2 * mib))), 2 * mib);
    EXPECT_EQ(must(run(target->copy_from(*source, 1, 0, 100))), 0u) << "not whole blocks: the ordinary way";
    std::vector<std::byte> back(2 * mib);
    must(run(target->read(0, back)));
    EXPECT_EQ(test::first_difference(back, mib), SIZE_MAX);
    must(run(target->write(0, test::pattern(0, mib, 9), {})));
    must(run(target->write_zeroes({mib, mib}, {.may_unmap = false})));
    must(run(source->read(mib, back)));
    EXPECT_EQ(test::first_difference(back, mib), SIZE_MAX) << "a write to the copy reached the original";
    TemporaryFolder elsewhere;
    auto other = open_by(make_file(elsewhere / "other", 4 * mib), "", true);
    EXPECT_EQ(must(run(other->copy_from(*source, 0, 0, mib))), 0u);
    for (auto* device : {&source, &target, &other}) must(run((*device)->close()));
  }
  EXPECT_EQ(run_program({"umount", mounted.path()}).exit_code, 0);
}

}  // namespace
}  // namespace diskferry
