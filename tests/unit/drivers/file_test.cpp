// The file driver as everybody uses it: through the registry and the checking layer.
#include "diskferry/units.hpp"
#include "drivers/file/file_identity.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/drivers/files.hpp"

#include <fcntl.h>
#include <fstream>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::create;
using test::make_file;
using test::must;
using test::open;
using test::read_back;
using test::run;
using test::TemporaryFolder;
using ::testing::HasSubstr;

std::uint64_t size_of(const std::string& path) {
  return must(file_identity(path)).size_bytes;
}

TEST(FileDevice, EverySizeAndOffsetReadsBackUpToTheLastByte) {
  TemporaryFolder folder;
  for (const std::uint64_t size : {0u, 1u, 511u, 512u, 513u, 4095u, 4097u, 100'001u, 3'000'001u}) {
    SCOPED_TRACE(size);
    const std::string path = make_file(folder / std::to_string(size), size);
    auto device = must(open(path, {.writable = true}));
    ASSERT_EQ(device->size_bytes(), size);
    EXPECT_EQ(device->info().block_bytes, 1u);
    EXPECT_TRUE(device->info().starts_zeroed);
    EXPECT_TRUE(is_zero(read_back(*device, 0, size)));
    must(run(device->write(0, test::pattern(0, size), {})));
    EXPECT_EQ(read_back(*device, 0, size), test::pattern(0, size));
    if (size > 2) {
      must(run(device->write(size - 2, test::pattern(size - 2, 2, 7), {.fua = true})));
      EXPECT_EQ(read_back(*device, size - 2, 2), test::pattern(size - 2, 2, 7));
    }
    must(run(device->flush()));
    EXPECT_EQ(size_of(path), size);
    must(run(device->close()));
  }
}

TEST(FileDevice, TheFastPathsServeWhatIsInThePageCache) {
  TemporaryFolder folder;
  auto device = must(open(make_file(folder / "disk", mib), {.writable = true}));
  const auto data = test::pattern(12345, 70'000);
  auto written = device->try_write(12345, data);
  ASSERT_TRUE(written.has_value());
  must(*written);
  std::vector<std::byte> back(data.size());
  auto got = device->try_read(12345, back);
  ASSERT_TRUE(got.has_value());
  must(*got);
  EXPECT_EQ(back, data);
  must(run(device->close()));
}

TEST(FileDevice, WhatIsNotInThePageCacheIsReadFromStorage) {
  TemporaryFolder folder;
  const std::string path = make_file(folder / "disk", 4 * mib);
  {
    auto device = must(open(path, {.writable = true}));
    must(run(device->write(0, test::pattern(0, 4 * mib), {})));
    must(run(device->flush()));
    must(run(device->close()));
  }
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  ::close(fd);
  auto device = must(open(path));
  EXPECT_EQ(test::first_difference(read_back(*device, 1, 999'999), 1), SIZE_MAX);
  must(run(device->prefetch({mib, mib})));
  EXPECT_EQ(test::first_difference(read_back(*device, 0, 4 * mib), 0), SIZE_MAX);
  must(run(device->close()));
}

TEST(FileDevice, GrowsWhenWrittenOrZeroedBehindTheEnd) {
  TemporaryFolder folder;
  const std::string path = make_file(folder / "disk", 1000);
  auto device = must(open(path, {.writable = true}));
  ASSERT_TRUE(device->info().can_grow);
  must(run(device->write(5000, test::pattern(5000, 100), {})));
  EXPECT_EQ(device->size_bytes(), 5100u);
  EXPECT_TRUE(is_zero(read_back(*device, 1000, 4000)));
  must(run(device->write_zeroes({5050, 1000}, {})));
  EXPECT_EQ(device->size_bytes(), 6050u);
  must(run(device->write_zeroes({6000, 1000}, {.may_unmap = false})));
  EXPECT_EQ(device->size_bytes(), 7000u);
  EXPECT_EQ(read_back(*device, 5000, 50), test::pattern(5000, 50));
  EXPECT_TRUE(is_zero(read_back(*device, 5050, 1950)));
  EXPECT_EQ(size_of(path), 7000u);
  must(run(device->close()));
}

TEST(FileDevice, AFileThatWasMadeShorterIsAnErrorAndSaysSo) {
  TemporaryFolder folder;
  const std::string path = make_file(folder / "disk", 10'000);
  auto device = must(open(path));
  ASSERT_EQ(::truncate(path.c_str(), 5000), 0);
  std::vector<std::byte> bytes(2000);
  const auto got = run(device->read(4000, bytes));
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().kind(), ErrorKind::io);
  EXPECT_THAT(got.error().message(), HasSubstr("made shorter"));
  const auto extents = must(run(device->extents({0, 10'000}, 10)));
  EXPECT_FALSE(extents.back().reads_zero) << "what is gone must not pass for zeros";
  EXPECT_EQ(extents.back().end(), 10'000u);
  must(run(device->close()));
}

class ZeroingTest : public ::testing::TestWithParam<const char*> {};
/// A folder on the file system named: the one of temporary files, or tmpfs.
INSTANTIATE_TEST_SUITE_P(FileSystems, ZeroingTest, ::testing::Values("", "/dev/shm"),
                         [](const auto& one) { return *one.param == '\0' ? "temporary" : "tmpfs"; });

TEST_P(ZeroingTest, ZeroesExactlyTheRangeAndKeepsOrGivesBackTheStorage) {
  TemporaryFolder usual;
  std::string path = usual / "disk";
  if (*GetParam() != '\0') path = std::string(GetParam()) + "/diskferry-test-" + std::to_string(getpid());
  make_file(path, mib + 13);
  auto device = must(open(path, {.writable = true}));
  for (const bool may_unmap : {true, false}) {
    for (const Range range :
         {Range{0, mib + 13}, Range{1, 1}, Range{4095, 4098}, Range{65536, 131072}, Range{mib, 13}}) {
      SCOPED_TRACE(testing::Message() << may_unmap << " " << range.offset << "+" << range.length);
      must(run(device->write(0, test::pattern(0, mib + 13), {})));
      must(run(device->write_zeroes(range, {.may_unmap = may_unmap})));
      const auto all = read_back(*device, 0, mib + 13);
      auto expected = test::pattern(0, mib + 13);
      std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(range.offset), range.length, std::byte{});
      EXPECT_TRUE(all == expected);
      EXPECT_EQ(device->size_bytes(), mib + 13);
    }
  }
  must(run(device->write(0, test::pattern(0, mib), {})));
  must(run(device->flush()));
  const auto full = must(file_identity(path)).allocated_bytes;
  must(run(device->write_zeroes({0, mib}, {.may_unmap = false})));
  EXPECT_GE(must(file_identity(path)).allocated_bytes, full) << "NO_HOLE gave storage back";
  must(run(device->write_zeroes({0, mib}, {.may_unmap = true, .fast_only = true})));
  EXPECT_LT(must(file_identity(path)).allocated_bytes, 128 * kib);
  must(run(device->write(0, test::pattern(0, mib), {})));
  must(run(device->discard({0, mib})));
  EXPECT_LT(must(file_identity(path)).allocated_bytes, 128 * kib);
  must(run(device->close()));
  ::unlink(path.c_str());
}

TEST(FileDevice, ExtentsTellDataFromHoles) {
  TemporaryFolder folder;
  auto device = must(open(make_file(folder / "disk", 4 * mib), {.writable = true}));
  must(run(device->write(mib, test::pattern(mib, mib), {})));
  const auto extents = must(run(device->extents({0, 4 * mib}, 10)));
  ASSERT_EQ(extents.size(), 3u);
  EXPECT_TRUE(extents[0].reads_zero && extents[0].is_hole);
  EXPECT_EQ(extents[1], (Extent{.offset = mib, .length = mib, .host_offset = mib}));
  EXPECT_TRUE(extents[2].reads_zero);
  EXPECT_EQ(must(run(device->extents({mib + 5, 10}, 10))).front(),
            (Extent{.offset = mib + 5, .length = 10, .host_offset = mib + 5}));
  EXPECT_EQ(must(run(device->extents({0, 4 * mib}, 1))).size(), 1u);
  must(run(device->close()));
}

TEST(FileDriver, StartsZeroedOnlyWhenProved) {
  TemporaryFolder folder;
  const std::string path = make_file(folder / "disk", mib);
  EXPECT_TRUE(must(open(path))->info().starts_zeroed);
  {
    auto device = must(open(path, {.writable = true}));
    must(run(device->write(mib - 1, test::pattern(mib - 1, 1), {})));
    must(run(device->close()));
  }
  EXPECT_FALSE(must(open(path))->info().starts_zeroed);
}

TEST(FileDriver, RefusesWhatIsNoDisk) {
  TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  (folder / "socket").copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  const struct {
    std::string path;
    ErrorKind kind;
    const char* text;
  } rows[] = {{folder.path(), ErrorKind::unsupported, "folder"},
              {folder / "fifo", ErrorKind::unsupported, "FIFO"},
              {folder / "socket", ErrorKind::unsupported, "socket"},
              {"/dev/zero", ErrorKind::unsupported, "character device"},
              {folder / "missing", ErrorKind::not_found, ""},
              {folder / "missing/deeper", ErrorKind::not_found, ""},
              {std::string("nul\0byte", 8), ErrorKind::invalid_argument, "NUL"},
              {std::string(5000, 'x'), ErrorKind::invalid_argument, ""}};
  for (const auto& row : rows) {
    for (const bool writable : {false, true}) {
      const auto opened = open(row.path, {.writable = writable});
      ASSERT_FALSE(opened) << row.path;
      EXPECT_EQ(opened.error().kind(), row.kind) << opened.error().message();
      EXPECT_THAT(opened.error().message(), HasSubstr(row.text));
    }
  }
  EXPECT_NE(::access((folder / "missing").c_str(), F_OK), 0) << "opening created a file";
  ::close(socket);
}

TEST(FileDriver, OpensNamesThatLookLikeSomethingElse) {
  TemporaryFolder folder;
  for (const char* name : {"a b", "json:{}", "nbd:x:1", "x?y=1", "100%", "-", "new\nline", "\xff\xfe"}) {
    const std::string path = make_file(folder / name, 10);
    auto device = open(path);
    ASSERT_TRUE(device) << name;
    EXPECT_EQ((*device)->info().name.find('\n'), std::string::npos);
  }
}

TEST(FileDriver, CreatesOnlyWhereItMay) {
  TemporaryFolder folder;
  const std::string path = make_file(folder / "disk", 3 * mib + 5);
  EXPECT_EQ(size_of(path), 3 * mib + 5);
  EXPECT_EQ(must(file_identity(path)).allocated_bytes, 0u);
  EXPECT_EQ(create(path, {.size_bytes = 1}).error().kind(), ErrorKind::already_exists);
  EXPECT_EQ(create(folder.path(), {.size_bytes = 1}).error().kind(), ErrorKind::already_exists);
  EXPECT_EQ(create(folder / "no/disk", {.size_bytes = 1}).error().kind(), ErrorKind::not_found);
  EXPECT_EQ(create("/dev/diskferry-no-such-device", {.size_bytes = 1}).error().kind(),
            ErrorKind::invalid_argument);
  ASSERT_EQ(::symlink("/dev", (folder / "sneaky").c_str()), 0);
  EXPECT_EQ(create(folder / "sneaky/diskferry-no-such-device", {.size_bytes = 1}).error().kind(),
            ErrorKind::invalid_argument);
  ASSERT_EQ(::symlink("nowhere", (folder / "dangling").c_str()), 0);
  EXPECT_EQ(create(folder / "dangling", {.size_bytes = 1}).error().kind(), ErrorKind::already_exists);
  EXPECT_EQ(create(folder / "huge", {.size_bytes = UINT64_MAX}).error().kind(), ErrorKind::too_large);
  EXPECT_NE(::access((folder / "huge").c_str(), F_OK), 0);

  must(create(folder / "full", {.size_bytes = mib, .preallocate = true}));
  EXPECT_GE(must(file_identity(folder / "full")).allocated_bytes, mib);
}

TEST(FileDriver, ReplacingKeepsTheInodeAndEmptiesIt) {
  TemporaryFolder folder;
  const std::string path = make_file(folder / "disk", mib);
  {
    auto device = must(open(path, {.writable = true}));
    must(run(device->write(0, test::pattern(0, mib), {})));
    EXPECT_EQ(create(path, {.size_bytes = 100, .replace = true}).error().kind(), ErrorKind::in_use);
    must(run(device->close()));
  }
  const auto before = must(file_identity(path));
  must(create(path, {.size_bytes = 2 * mib, .replace = true}));
  const auto after = must(file_identity(path));
  EXPECT_EQ(after.inode, before.inode);
  EXPECT_EQ(after.size_bytes, 2 * mib);
  EXPECT_EQ(after.allocated_bytes, 0u);
  EXPECT_NE(after, before);
}

TEST(FileDriver, RemovesAFileThatNobodyUses) {
  TemporaryFolder folder;
  const std::string path = make_file(folder / "disk", mib);
  auto remove = [](const std::string& name) {
    return run(must(find_driver(ImageUri::from_path(name)))
                   ->remove(test::runtime().context(), ImageUri::from_path(name)));
  };
  auto device = must(open(path));
  EXPECT_EQ(remove(path).error().kind(), ErrorKind::in_use);
  must(run(device->close()));
  must(remove(path));
  EXPECT_EQ(remove(path).error().kind(), ErrorKind::not_found);
  EXPECT_EQ(remove(folder.path()).error().kind(), ErrorKind::unsupported);
}

}  // namespace
}  // namespace diskferry
