// Whole copies between files: what is refused, what is left behind, what is reported.
#include "gateway/copy/copy_job.hpp"

#include "diskferry/units.hpp"
#include "gateway/copy/ledger.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
namespace fs = std::filesystem;

void write_file(const std::string& path, std::uint64_t size, std::vector<Range> data) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  for (const Range& range : data) {
    const auto bytes = test::pattern(range.offset, range.length);
    file.seekp(static_cast<std::streamoff>(range.offset));
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  file.close();
  fs::resize_file(path, size);
}
std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
CopyRequest request(const std::string& source, const std::string& target) {
  CopyRequest made;
  made.source = ImageUri::from_path(source);
  made.source_options.format = "raw";
  made.target = ImageUri::from_path(target);
  return made;
}
Result<CopyReport> copy(CopyRequest what, ProgressSink* progress = nullptr) {
  return run(copy_image(test::runtime().context(), std::move(what), progress));
}

class CopyJobTest : public testing::Test {
 protected:
  CopyJobTest() { write_file(source, 10 * mib + 513, {{0, 3 * mib}, {8 * mib + 7, 1000}}); }
  test::TemporaryFolder folder;
  const std::string source = folder / "source.raw";
  const std::string target = folder / "target.raw";
};

TEST_F(CopyJobTest, CopiesVerifiesAndLeavesNothingBehind) {
  for (const VerifyLevel level : {VerifyLevel::none, VerifyLevel::cache, VerifyLevel::storage}) {
    auto what = request(source, target);
    what.verify = level;
    const auto report = must(copy(what));
    EXPECT_TRUE(report.is_good());
    EXPECT_EQ(content(source), content(target));
    EXPECT_FALSE(fs::exists(target + ".diskferry-ledger"));
    EXPECT_EQ(report.zeroed_bytes, 0u);
    EXPECT_EQ(report.written_bytes + report.skipped_bytes, 10 * mib + 513);
    if (level != VerifyLevel::none) EXPECT_GE(report.verified_bytes, 3 * mib);
    EXPECT_NE(to_text(report).find("10.0 MiB"), std::string::npos);
    fs::remove(target);
  }
}

TEST_F(CopyJobTest, ZeroLengthAndTinyDisks) {
  for (const std::uint64_t size : {0u, 1u, 512u, 4097u}) {
    write_file(source, size, size > 0 ? std::vector<Range>{{0, size}} : std::vector<Range>{});
    (void)must(copy(request(source, target)));
    EXPECT_EQ(content(source), content(target)) << size;
    fs::remove(target);
  }
}

TEST_F(CopyJobTest, TheSameImageUnderAnyNameIsRefused) {
  const std::string before = content(source);
  fs::create_symlink(source, folder / "symlink");
  fs::create_hard_link(source, folder / "hardlink");
  for (const std::string& name :
       {source, folder.path() + "/./source.raw", folder / "symlink", folder / "hardlink"}) {
    auto what = request(source, name);
    what.existing = CopyRequest::Existing::overwrite;
    const auto result = copy(what);
    ASSERT_FALSE(result) << name;
    EXPECT_EQ(result.error().kind(), ErrorKind::in_use);
  }
  EXPECT_EQ(content(source), before);
}

TEST_F(CopyJobTest, AnExistingTargetNeedsAWord) {
  write_file(target, 11 * mib, {{0, 11 * mib}});
  const std::string before = content(target);
  const auto refused = copy(request(source, target));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::already_exists);
  EXPECT_EQ(content(target), before);

  auto into = request(source, target);
  into.existing = CopyRequest::Existing::use;
  (void)must(copy(into));
  std::string expected = content(source);
  expected.resize(11 * mib);  // the tail beyond the source is zeros
  EXPECT_EQ(content(target), expected);

  auto over = request(source, target);
  over.existing = CopyRequest::Existing::overwrite;
  (void)must(copy(over));
  EXPECT_EQ(content(target), content(source));

  fs::remove(target);
  const auto missing = copy(into);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().kind(), ErrorKind::not_found);
  EXPECT_FALSE(fs::exists(target));
}

TEST_F(CopyJobTest, ATargetTooSmallIsRefusedAndLeftAlone) {
  write_file(target, mib, {{0, mib}});
  const std::string before = content(target);
  auto what = request(source, target);
  what.existing = CopyRequest::Existing::use;
  const auto result = copy(what);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind(), ErrorKind::too_large);
  EXPECT_EQ(content(target), before);
}

TEST_F(CopyJobTest, AFailedCreationLeavesNothing) {
  auto what = request(source, folder / "no/such/folder/target.raw");
  EXPECT_FALSE(copy(what));
  what = request(source, target);
  what.target_format = "no-such-format";
  EXPECT_FALSE(copy(what));
  EXPECT_FALSE(fs::exists(target));
}

/// Touches the source when half of it is copied.
class Meddler final : public ProgressSink {
 public:
  explicit Meddler(std::string path) : path_(std::move(path)) {}
  void update(const ProgressUpdate& now) override {
    if (now.phase == "copy" && !done_.exchange(true)) {
      std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
      file.seekp(5 * mib);
      file << "changed";
    }
  }

 private:
  const std::string path_;
  std::atomic<bool> done_ = false;
};

TEST_F(CopyJobTest, ASourceThatChangesIsNoticed) {
  Meddler meddler(source);
  const auto report = must(copy(request(source, target), &meddler));
  EXPECT_FALSE(report.is_good());
  EXPECT_NE(report.changed_layers.find("source.raw"), std::string::npos);
}

/// A limit on the file's size stands for a full disk.
TEST_F(CopyJobTest, ResumeCopiesOnlyWhatIsMissing) {
  // A ledger as a copy that was killed leaves it: the first 2 MiB are done.
  (void)must(copy(request(source, target)));
  const std::string expected = content(source);
  std::string ledger_bytes;
  {
    struct Snatch final : ProgressSink {
      explicit Snatch(std::string from) : path(std::move(from)) {}
      void update(const ProgressUpdate& now) override {
        if (now.phase == "flush") bytes = content(path);
      }
      std::string path;
      std::string bytes;
    } snatch(target + ".diskferry-ledger");
    auto over = request(source, target);
    over.existing = CopyRequest::Existing::overwrite;
    (void)must(copy(over, &snatch));
    ledger_bytes = snatch.bytes;
  }
  const std::vector<Piece> done{{{0, mib}, PieceState::verified, {}}, {{mib, mib}, PieceState::verified, {}}};
  ASSERT_FALSE(ledger_bytes.empty());
  {
    std::ofstream file(target + ".diskferry-ledger", std::ios::binary);
    file << ledger_bytes << encode_entries(done);
  }
  auto what = request(source, target);
  what.resume = true;
  const auto report = must(copy(what));
  EXPECT_EQ(report.resumed_bytes, 2 * mib);
  EXPECT_LT(report.read_bytes, mib + 128 * kib);
  EXPECT_EQ(content(target), expected);
  EXPECT_FALSE(fs::exists(target + ".diskferry-ledger"));

  // Without a ledger, and with one of another source, nothing is touched.
  const auto none = copy(what);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().kind(), ErrorKind::already_exists);
  {
    std::ofstream file(target + ".diskferry-ledger", std::ios::binary);
    file << ledger_bytes << encode_entries(done);
  }
  fs::last_write_time(source, fs::file_time_type::clock::now() + std::chrono::seconds(5));
  const auto changed = copy(what);
  ASSERT_FALSE(changed);
  EXPECT_EQ(changed.error().kind(), ErrorKind::unsupported);
  EXPECT_NE(changed.error().message().find("has changed since"), std::string::npos);
}

TEST_F(CopyJobTest, ALossThatCannotBeMendedNamesTheLossFirstAndThenWhatStandsInTheWay) {
  struct Remover final : ProgressSink {
    explicit Remover(std::string what) : path(std::move(what)) {}
    void update(const ProgressUpdate& now) override {
      if (now.phase == "flush") fs::remove(path);
    }
    std::string path;
  } remover(source);
  auto what = request(source, target);
  what.target_faults = must(parse_fault_plan("flush,fail=gone"));
  CopyReport failed;
  const auto copied = run(copy_image(test::runtime().context(), what, &remover, &failed));
  ASSERT_FALSE(copied);
  EXPECT_EQ(copied.error().kind(), ErrorKind::gone);
  const std::string message = copied.error().message();
  const auto loss = message.find("flush the target");
  const auto attempt = message.find("another attempt failed (");
  ASSERT_NE(loss, std::string::npos) << message;
  ASSERT_NE(attempt, std::string::npos) << message;
  EXPECT_LT(loss, attempt) << message;
  EXPECT_NE(message.find(source, attempt), std::string::npos) << message;
  EXPECT_NE(message.find("run again with --resume"), std::string::npos) << message;
  ASSERT_TRUE(failed.failure);
  EXPECT_EQ(failed.failure->message, message);
}

TEST_F(CopyJobTest, ForecastNamesEveryBlockerAndChangesNothing) {
  write_file(target, mib, {});
  auto what = request(source, target);
  auto forecast = must(run(forecast_copy(test::runtime().context(), what)));
  ASSERT_EQ(forecast.blockers.size(), 1u);
  EXPECT_NE(forecast.blockers[0].find("already exists"), std::string::npos);
  EXPECT_GE(forecast.totals.copy_bytes, 3 * mib);
  EXPECT_EQ(forecast.totals.bytes(), 10 * mib + 513);
  what.existing = CopyRequest::Existing::use;
  forecast = must(run(forecast_copy(test::runtime().context(), what)));
  ASSERT_EQ(forecast.blockers.size(), 1u);
  EXPECT_EQ(fs::file_size(target), mib);
}

}  // namespace
}  // namespace diskferry
