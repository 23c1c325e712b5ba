// The pure parts of the NFS driver: URIs, what a server's answers mean, which writes are durable; and how
// sessions, which NBD and iSCSI have too, are kept standing.
#include "diskferry/units.hpp"
#include "drivers/nfs/endpoint.hpp"
#include "drivers/nfs/request.hpp"
#include "drivers/nfs/status.hpp"
#include "drivers/nfs/zero_probe.hpp"
#include "drivers/support/session_pool.hpp"
#include "drivers/support/unflushed.hpp"
#include "tests/support/test_runtime.hpp"

#include <cerrno>

#include <gtest/gtest.h>

namespace diskferry::nfs {
namespace {
using namespace std::chrono_literals;
using test::must;
using test::run;
using test::runtime;

Result<Endpoint> endpoint(const std::string& text) {
  DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(text));
  return parse_endpoint(uri);
}

TEST(NfsEndpoint, TakesHostFolderAndFile) {
  const Endpoint one = must(endpoint("nfs://server/export/vms/disk%201.raw"));
  EXPECT_EQ(one.host, "server");
  EXPECT_EQ(one.folder, "/export/vms");
  EXPECT_EQ(one.file, "/disk 1.raw");
  EXPECT_EQ(one.version, 3u);
  EXPECT_EQ(one.nfs_port, 0);
  EXPECT_FALSE(one.uid);
  const Endpoint all =
      must(endpoint("nfs://[::1]/e/d?version=4&nfsport=1049&uid=0&gid=107&connections=2&stall-timeout=1.5"));
  EXPECT_EQ(all.host, "::1");
  EXPECT_EQ(all.version, 4u);
  EXPECT_EQ(all.nfs_port, 1049);
  EXPECT_EQ(all.uid, 0u);
  EXPECT_EQ(all.gid, 107u);
  EXPECT_EQ(all.connections, 2u);
  EXPECT_EQ(all.stall_limit, std::chrono::milliseconds(1500));
  EXPECT_EQ(must(endpoint("nfs://h:99/e/d")).nfs_port, 99) << "as other URIs have it";
}

TEST(NfsEndpoint, RefusesWhatMakesNoSense) {
  for (const char* text :
       {"nfs:///export/disk", "nfs://h/disk", "nfs://h/export/", "nfs://h", "nfs://h/e/d?version=2",
        "nfs://h/e/d?version=five", "nfs://h/e/d?nfsport=0", "nfs://h/e/d?nfsport=65536",
        "nfs://h/e/d?uid=-1", "nfs://h/e/d?uid=2147483648", "nfs://h/e/d?connections=17",
        "nfs://h/e/d?version=4&mountport=7", "nfs://h/e/d?connect-timeout=0", "nfs://h/e/a%00b"})
    EXPECT_FALSE(endpoint(text)) << text;
  EXPECT_EQ(endpoint("nfs://h/e/" + std::string(1100, 'a')).error().kind(), ErrorKind::too_large);
}

struct StatusRow {
  int status;
  ErrorKind kind;
};
class NfsStatus : public testing::TestWithParam<StatusRow> {};
TEST_P(NfsStatus, IsAnErrorOfItsKind) {
  const Error error = status_error(GetParam().status, "write", "nfs://h/e/d");
  EXPECT_EQ(error.kind(), GetParam().kind);
  EXPECT_FALSE(error.why().empty());
}
INSTANTIATE_TEST_SUITE_P(Rows, NfsStatus,
                         testing::Values(StatusRow{13, ErrorKind::permission},
                                         StatusRow{28, ErrorKind::no_space},
                                         StatusRow{69, ErrorKind::no_space},
                                         StatusRow{30, ErrorKind::read_only}, StatusRow{70, ErrorKind::gone},
                                         StatusRow{5, ErrorKind::io}, StatusRow{2, ErrorKind::not_found},
                                         StatusRow{4711, ErrorKind::io}),
                         [](const auto& row) { return "Status" + std::to_string(row.param.status); });

TEST(NfsStatusLater, IsOnlyJukebox) {
  EXPECT_TRUE(is_later(10008));
  EXPECT_FALSE(is_later(5));
}

TEST(NfsStatusLibrary, TellsARefusalFromALostConnection) {
  EXPECT_EQ(library_error(13, "mount", "n", "text").kind(), ErrorKind::permission);
  EXPECT_EQ(library_error(2, "open", "n", "").kind(), ErrorKind::not_found);
  EXPECT_EQ(library_error(14, "mount", "n", "connect failed").kind(), ErrorKind::gone);
}

struct ReadRow {
  std::string_view name;
  int error_number;
  std::string_view said;
  Verdict verdict;
};
TEST(NfsStatusVersion4, TellsWhatIsLostAndWhatComesLaterFromARefusal) {
  // As libnfs 4.0 says it: its numbers are those of NFSv3, where it knows them.
  for (const ReadRow& row : {
           ReadRow{"lease", ERANGE, "NFS4: READ (path (null)) failed with NFS4ERR_EXPIRED(-5)",
                   Verdict::lost},
           ReadRow{"restart", ERANGE, "failed with NFS4ERR_STALE_STATEID(-5)", Verdict::lost},
           ReadRow{"later libnfs", EINVAL, "failed with NFS4ERR_BAD_STATEID(-22)", Verdict::lost},
           ReadRow{"client", ERANGE, "failed with NFS4ERR_STALE_CLIENTID(-5)", Verdict::lost},
           ReadRow{"grace", ERANGE, "failed with NFS4ERR_GRACE(-5)", Verdict::later},
           ReadRow{"delay", EAGAIN, "failed with NFS4ERR_DELAY(-5)", Verdict::later},
           ReadRow{"delay without text", EAGAIN, "", Verdict::later},
           ReadRow{"closed", EFAULT, "RPC ERROR: Failed to reconnect async", Verdict::lost},
           ReadRow{"destroyed", EINTR, "Command was cancelled", Verdict::lost},
           ReadRow{"disk", EIO, "failed with NFS4ERR_IO(-5)", Verdict::refused},
           ReadRow{"removed", ESTALE, "failed with NFS4ERR_STALE(-5)", Verdict::refused},
           ReadRow{"name of a file", EACCES, "READ (path /NFS4ERR_EXPIRED) failed with NFS4ERR_ACCESS(-13)",
                   Verdict::refused},
           ReadRow{"no text", EIO, "", Verdict::refused},
       })
    EXPECT_EQ(judge_v4(row.error_number, row.said), row.verdict) << row.name;
}

TEST(NfsRequest, IsOverdueAfterFourStallLimitsButACommitMayTakeLonger) {
  Request read(Verb::read);
  Request commit(Verb::commit);
  const TimePoint sent{1h};
  read.sent_at = commit.sent_at = sent;
  EXPECT_FALSE(is_overdue(read, sent + 239s, 60s));
  EXPECT_TRUE(is_overdue(read, sent + 240s, 60s));
  EXPECT_FALSE(is_overdue(commit, sent + 10min, 60s));
  EXPECT_TRUE(is_overdue(commit, sent + 20min, 60s));
}

TEST(NfsZeroProbe, LooksAtBothEndsAndBetween) {
  for (const std::uint64_t size :
       {64 * kib, 128 * kib, 200 * kib, 256 * kib, 1 * mib, 3 * gib + 5, 8 * tib, std::uint64_t{INT64_MAX}}) {
    const std::vector<Range> probes = zero_probes(size);
    EXPECT_EQ(probes.back().end(), size);
    EXPECT_LE(probes.size() * probes.front().length, 1 * mib);
    EXPECT_EQ(probes.front().offset, 0u);
    if (size >= 1 * mib) EXPECT_EQ(probes.size(), 8u);
    for (std::size_t i = 1; i < probes.size(); ++i)
      EXPECT_GT(probes[i].offset, probes[i - 1].offset) << "of " << size << ", probe " << i;
  }
}

TEST(WantedConnections, AreTheUrisOrTheDriversWithinTheBound) {
  EXPECT_EQ(wanted_connections({.otherwise = 4}), 4u);
  EXPECT_EQ(wanted_connections({.in_uri = 2, .otherwise = 4}), 2u);
  EXPECT_EQ(wanted_connections({.bound = 3, .otherwise = 4}), 3u);
  EXPECT_EQ(wanted_connections({.in_uri = 8, .bound = 3, .otherwise = 4}), 3u);
}

/// A connection that is up or down, and nothing else.
class FakeSession final : public Session {
 public:
  using Session::Session;
  bool go_up() override {
    is_up_.store(true);
    return true;
  }
  Task<Result<void>> wait_until_down() override {
    std::unique_lock lock(guard_);
    while (is_up()) {
      if (!co_await down_.wait(lock)) co_return unexpected(cancelled_error("wait for the server"));
      lock.lock();
    }
    co_return Result<void>{};
  }
  Task<void> disconnect(Duration) override {
    lose();
    co_return;
  }
  void check_progress() override {}
  std::string loss_reason() const override { return {}; }
  void lose() {
    std::lock_guard lock(guard_);
    is_up_.store(false);
    down_.wake_all();
  }

 private:
  std::mutex guard_;
  WaitQueue down_;
};

/// What a server answers to one attempt to connect; nullopt: it lets us in.
using Reply = std::optional<ErrorKind>;

/// A session that stands at first, and where `wants_second` one more that does not.
class PoolUnderTest {
 public:
  /// `replies`: one after the other, the last for ever.
  explicit PoolUnderTest(std::vector<Reply> replies, bool wants_second = false,
                         Duration refusal_limit = 300ms)
      : replies_(std::move(replies)),
        pool_(runtime().context().reactors, runtime().context().clock,
              {.name = "storage",
               .reconnect_limit = 10s,
               .stall_limit = 60s,
               .refusal_limit = refusal_limit,
               .connect = [this](std::shared_ptr<Session>) { return connect(); }}) {
    (void)first_->go_up();
    pool_.add(first_, true);
    if (wants_second) pool_.add(std::make_shared<FakeSession>(runtime().reactor(0)), false);
    pool_.start();
  }
  ~PoolUnderTest() { EXPECT_TRUE(run(close())); }

  void lose_first() { first_->lose(); }
  /// What a request gets that waits for a connection.
  Result<void> wait(Duration limit) { return run(wait_for_session(limit)); }
  /// False: not within ten seconds.
  bool comes_up(unsigned count) {
    return eventually([&] { return pool_.count_up() >= count; });
  }
  bool is_asked(std::size_t times) {
    return eventually([&] { return asked_.load() >= times; });
  }
  bool is_gone() const { return !pool_.check_gone(); }

 private:
  Task<Result<void>> connect() {
    const Reply reply = replies_[std::min(asked_.fetch_add(1), replies_.size() - 1)];
    if (reply) co_return unexpected(fail(*reply, "connect", "storage"));
    co_return Result<void>{};
  }
  Task<Result<void>> wait_for_session(Duration limit) {
    DISKFERRY_CO_CHECK(co_await pool_.wait_for_session(runtime().context().clock.now() + limit));
    co_return pool_.check_gone();
  }
  Task<Result<void>> close() {
    co_await pool_.close();
    co_return Result<void>{};
  }
  static bool eventually(const std::function<bool()>& is_so) { return run(poll(is_so)).has_value(); }
  static Task<Result<void>> poll(const std::function<bool()>& is_so) {
    Clock& clock = runtime().context().clock;
    const TimePoint give_up = clock.now() + 10s;
    while (!is_so()) {
      if (clock.now() >= give_up) co_return unexpected(fail(ErrorKind::timed_out, "wait"));
      DISKFERRY_CO_CHECK(co_await clock.sleep_for(2ms));
    }
    co_return Result<void>{};
  }

  const std::vector<Reply> replies_;
  std::atomic<std::size_t> asked_ = 0;
  const std::shared_ptr<FakeSession> first_ = std::make_shared<FakeSession>(runtime().reactor(0));
  SessionPool pool_;
};

TEST(SessionPool, AFurtherConnectionThatFailsIsTriedAgain) {
  PoolUnderTest pool({ErrorKind::gone, ErrorKind::in_use, ErrorKind::permission, std::nullopt}, true);
  EXPECT_TRUE(pool.comes_up(2));
}

TEST(SessionPool, WhatNeverPassesEndsTheWaiting) {
  for (const ErrorKind kind :
       {ErrorKind::mismatch, ErrorKind::read_only, ErrorKind::unsupported, ErrorKind::permission}) {
    PoolUnderTest pool({kind});
    pool.lose_first();
    const auto waited = pool.wait(20s);
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().kind(), kind);
  }
}

TEST(SessionPool, WhatAServerSaysThatStartsIsWaitedOut) {
  PoolUnderTest pool({ErrorKind::gone, ErrorKind::permission, ErrorKind::not_found, ErrorKind::in_use,
                      ErrorKind::permission, std::nullopt});
  pool.lose_first();
  must(pool.wait(20s));
}

TEST(SessionPool, ARefusalIsWaitedOutWhereItMayBeAnExportThatIsNotThereYet) {
  PoolUnderTest pool({ErrorKind::permission}, false, Duration::max());
  pool.lose_first();
  const auto waited = pool.wait(500ms);
  ASSERT_FALSE(waited);
  EXPECT_EQ(waited.error().kind(), ErrorKind::gone);
}

TEST(SessionPool, ARefusalOfAFurtherConnectionIsNotTheEnd) {
  for (const ErrorKind kind : {ErrorKind::read_only, ErrorKind::unsupported, ErrorKind::permission}) {
    PoolUnderTest pool({kind}, true, Duration::zero());
    EXPECT_TRUE(pool.is_asked(4));
    EXPECT_FALSE(pool.is_gone()) << to_string(kind);
  }
  PoolUnderTest pool({ErrorKind::mismatch}, true);
  EXPECT_TRUE(pool.is_asked(1));
  must(pool.wait(1s));
  EXPECT_FALSE(pool.is_gone());
}

constexpr Verifier before_restart{'a'};
constexpr Verifier after_restart{'b'};

TEST(NfsUnflushed, WhatOneServerTookAndCommittedIsDurable) {
  Unflushed writes;
  EXPECT_TRUE(writes.is_empty());
  writes.written(before_restart);
  EXPECT_FALSE(writes.is_empty());
  writes.begin_commit();
  EXPECT_TRUE(writes.committed(before_restart));
  EXPECT_TRUE(writes.is_empty());
}

TEST(NfsUnflushed, AServerThatWasRestartedHasLostThem) {
  Unflushed writes;
  writes.written(before_restart);
  writes.begin_commit();
  EXPECT_FALSE(writes.committed(after_restart));
  writes.written(after_restart);
  writes.begin_commit();
  EXPECT_FALSE(writes.committed(after_restart)) << "no later commit gives them back";
  EXPECT_TRUE(writes.is_lost());
}

TEST(NfsUnflushed, WritesBeforeAndAfterARestartAreLostWhateverTheCommitSays) {
  Unflushed writes;
  writes.written(before_restart);
  writes.written(after_restart);
  writes.begin_commit();
  EXPECT_FALSE(writes.committed(after_restart));
}

TEST(NfsUnflushed, ARestartAfterTheCommitLosesNothing) {
  Unflushed writes;
  writes.written(before_restart);
  writes.begin_commit();
  writes.written(after_restart);  // while it was on its way
  EXPECT_TRUE(writes.committed(before_restart));
  EXPECT_FALSE(writes.is_empty());
  writes.begin_commit();
  EXPECT_TRUE(writes.committed(after_restart));
}

TEST(NfsUnflushed, WhatIsReadUnderAnotherVerifierMayBeOlder) {
  Unflushed writes;
  EXPECT_TRUE(writes.are_of(before_restart));
  writes.written(before_restart);
  EXPECT_TRUE(writes.are_of(before_restart));
  EXPECT_FALSE(writes.are_of(after_restart));
  writes.begin_commit();
  EXPECT_FALSE(writes.are_of(after_restart)) << "while it is on its way";
  EXPECT_TRUE(writes.committed(before_restart));
  EXPECT_TRUE(writes.are_of(after_restart)) << "what is durable survives";
  writes.lose();
  EXPECT_FALSE(writes.are_of(after_restart));
}

TEST(NfsUnflushed, ACommitThatFailedLeavesThemToTheNext) {
  Unflushed writes;
  writes.written(before_restart);
  writes.begin_commit();
  writes.written(after_restart);
  writes.failed();
  writes.begin_commit();
  EXPECT_FALSE(writes.committed(after_restart)) << "the first of them";
}

}  // namespace
}  // namespace diskferry::nfs
