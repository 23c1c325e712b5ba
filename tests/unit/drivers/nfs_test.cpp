// The pure parts of the NFS driver: URIs, what a server's answers mean, which writes are durable.
#include "drivers/nfs/endpoint.hpp"
#include "drivers/nfs/status.hpp"
#include "drivers/support/unflushed.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry::nfs {
namespace {
using test::must;

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
