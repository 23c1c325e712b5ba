// The database as a file: who may open it, what is refused, and a disk that is full.
#include "gateway/jobs/sqlite.hpp"
#include "tests/unit/jobs/store_fixture.hpp"

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <sys/stat.h>
#include <unistd.h>

namespace diskferry::test {
namespace {

struct StoreFileTest : StoreFixture {
  std::string file() const { return path() + "/jobs.sqlite"; }
  std::string content() const {
    std::ifstream in(file(), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void overwrite(std::streamoff offset, const std::string& bytes) const {
    std::fstream out(file(), std::ios::binary | std::ios::in | std::ios::out);
    out.seekp(offset);
    out << bytes;
  }
  void execute(const std::string& sql) const { must(must(sqlite::Database::open(file())).execute(sql)); }
  /// A closed store with so many jobs that there are many pages.
  void fill() {
    open();
    for (int i = 0; i < 20; ++i) {
      const JobRecord job = create();
      must(run(store->update(job.id, 0, {.state = "\"" + std::string(3000, 'x') + "\""})));
    }
    store.reset();
  }
  static unsigned mode(const std::string& path) {
    struct stat found{};
    EXPECT_EQ(stat(path.c_str(), &found), 0) << path;
    return found.st_mode & 07777u;
  }
};

TEST_F(StoreFileTest, IsForItsUserAlone) {
  const mode_t before = umask(0);
  open();
  create();
  umask(before);
  EXPECT_EQ(mode(path()), 0700u);
  for (const char* name : {"/jobs.sqlite", "/jobs.sqlite-wal", "/jobs.sqlite-shm", "/lock"})
    EXPECT_EQ(mode(path() + name), 0600u) << name;
}

TEST_F(StoreFileTest, AFolderThatOthersMayWriteToIsRefused) {
  std::filesystem::create_directory(path());
  chmod(path().c_str(), 0770);
  expect_error(try_open(), ErrorKind::permission, "chmod");
}

TEST_F(StoreFileTest, ASymbolicLinkIsNotFollowed) {
  std::filesystem::create_directory(path());
  chmod(path().c_str(), 0700);
  std::filesystem::create_symlink(folder / "elsewhere", file());
  EXPECT_FALSE(try_open().has_value());
  EXPECT_FALSE(std::filesystem::exists(folder / "elsewhere"));
}

TEST_F(StoreFileTest, ASecondGatewayIsRefusedAndTheFirstGoesOn) {
  open();
  const JobRecord job = create();
  expect_error(try_open(), ErrorKind::in_use, "process " + std::to_string(getpid()));
  must(run(store->update(job.id, 0, {.phase = "copy"})));
  store.reset();
  open();
  EXPECT_EQ(load(job).phase, "copy");
}

TEST_F(StoreFileTest, WhatIsNoDatabaseOfOursIsRefusedAndLeftAlone) {
  struct Row {
    const char* name;
    std::function<void()> damage;
    ErrorKind kind;
    const char* part;
  };
  const std::vector<Row> rows{
      {"another format", [&] { overwrite(0, std::string(100, 'q')); }, ErrorKind::corrupt, "damaged"},
      {"a page of noise", [&] { overwrite(4096 * 4, std::string(4096, '\x5a')); }, ErrorKind::corrupt,
       "damaged"},
      {"cut off", [&] { std::filesystem::resize_file(file(), 4096 * 3); }, ErrorKind::corrupt, "damaged"},
      {"a later version", [&] { execute("PRAGMA user_version = 99"); }, ErrorKind::unsupported,
       "later version"},
      {"another program's", [&] { execute("PRAGMA application_id = 7"); }, ErrorKind::unsupported,
       "not a job"},
      {"nobody's, with tables", [&] { execute("PRAGMA application_id = 0; PRAGMA user_version = 0"); },
       ErrorKind::unsupported, "not a job"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    std::filesystem::remove_all(path());
    fill();
    row.damage();
    const std::string before = content();
    const auto opened = try_open();
    expect_error(opened, row.kind, row.part);
    EXPECT_FALSE(!opened && opened.error().remedy().empty());
    EXPECT_EQ(content(), before) << "must be left as it was found";
  }
}

TEST_F(StoreFileTest, AStatusNobodyKnowsIsDamage) {
  open();
  const JobRecord job = create();
  store.reset();
  execute("UPDATE jobs SET status = 'floating'");
  open();
  expect_error(run(store->load(job.id)), ErrorKind::corrupt, "floating");
}

TEST_F(StoreFileTest, AnEmptyFileOfAFirstStartThatWasKilledIsFilled) {
  std::filesystem::create_directory(path());
  chmod(path().c_str(), 0700);
  std::ofstream(file()).close();
  open();
  create();
}

TEST_F(StoreFileTest, AFullDiskIsToldAndNothingIsHalfWritten) {
  bytes_max = 256 << 10;
  open();
  const JobRecord job = create();
  const std::string much = "\"" + std::string(20'000, 'x') + "\"";
  std::uint64_t written = 0;
  Result<std::uint64_t> last = 0;
  while (written < 100) {
    last = run(store->update(
        job.id, 0,
        {.phase = std::to_string(written + 1), .event = NewJobEvent{.kind = "note", .text = much}}));
    if (!last) break;
    ++written;
  }
  expect_error(last, ErrorKind::no_space, "free space");
  ASSERT_GT(written, 3u);
  const auto expect_state = [&](std::uint64_t count) {
    EXPECT_EQ(load(job).phase, std::to_string(count));
    const auto events = must(run(store->events(job.id, 0, 1000)));
    EXPECT_EQ(events.size(), count);
    EXPECT_EQ(events.back().sequence, count);
  };
  expect_state(written);
  // A small change still has room, and after reopening all is the same.
  open_again();
  expect_state(written);
  must(run(store->update(job.id, 0, {.status = JobStatus::failed, .error = "no space"})));
  must(run(store->remove(job.id)));
  EXPECT_EQ(create().phase, "");
}

TEST_F(StoreFileTest, AListThatWouldFillTheMemoryIsRefused) {
  open();
  create();
  create();
  store.reset();
  execute("UPDATE jobs SET state = hex(zeroblob(" + std::to_string(JobLimits::list_bytes_max / 3) + "))");
  open();
  expect_error(run(store->list({})), ErrorKind::too_large, "fewer");
  EXPECT_EQ(must(run(store->list({.limit = 1}))).size(), 1u);
}

TEST_F(StoreFileTest, TheOldestEventsOfATalkativeJobGo) {
  open();
  const JobRecord job = create();
  store.reset();
  execute("UPDATE jobs SET events = " + std::to_string(JobLimits::events_per_job_max - 1) +
          "; INSERT INTO events SELECT id, 1, 'first', '{}', 0 FROM jobs; "
          "INSERT INTO events SELECT id, 2, 'second', '{}', 0 FROM jobs");
  open();
  must(run(store->append_event(job.id, {.kind = "third"})));
  EXPECT_EQ(must(run(store->events(job.id, 0, 10))).front().kind, "first");
  must(run(store->append_event(job.id, {.kind = "fourth"})));
  const auto events = must(run(store->events(job.id, 0, 10)));
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events.front().kind, "second");
  EXPECT_EQ(events.back().sequence, JobLimits::events_per_job_max + 1);
}

}  // namespace
}  // namespace diskferry::test
