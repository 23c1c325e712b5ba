// The pure parts of the GlusterFS driver: URIs, what the library's answers mean, which writes are durable.
#include "drivers/gluster/endpoint.hpp"
#include "drivers/gluster/status.hpp"
#include "drivers/support/unflushed.hpp"
#include "tests/support/test_runtime.hpp"

#include <cerrno>

#include <gtest/gtest.h>

namespace diskferry::gluster {
namespace {
using test::must;

Result<Endpoint> endpoint(const std::string& text) {
  DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(text));
  return parse_endpoint(uri);
}

TEST(GlusterEndpoint, TakesServersVolumeAndPath) {
  const Endpoint one = must(endpoint("gluster://server/vol-0/vms/disk%201.raw"));
  EXPECT_EQ(one.servers, (std::vector<Server>{{.transport = "tcp", .host = "server"}}));
  EXPECT_EQ(one.volume, "vol-0");
  EXPECT_EQ(one.path, "/vms/disk 1.raw");
  EXPECT_EQ(one.folder(), "/vms");
  EXPECT_EQ(one.stall_s, 42u);
  EXPECT_EQ(must(endpoint("gluster://h/v/d")).folder(), "/");
  const Endpoint all = must(endpoint(
      "gluster+tcp://[::1]:24010/v/d?backup-servers=b,c:7,%5Bfe80::1%5D:8,%5B::2%5D&connect-timeout=1.5&"
      "reconnect-timeout=0&stall-timeout=3"));
  EXPECT_EQ(all.servers, (std::vector<Server>{{.transport = "tcp", .host = "::1", .port = 24010},
                                              {.transport = "tcp", .host = "b"},
                                              {.transport = "tcp", .host = "c", .port = 7},
                                              {.transport = "tcp", .host = "fe80::1", .port = 8},
                                              {.transport = "tcp", .host = "::2"}}));
  EXPECT_EQ(all.connect_limit, std::chrono::milliseconds(1500));
  EXPECT_EQ(all.reconnect_limit, Duration::zero());
  EXPECT_EQ(all.stall_s, 3u);
  const Endpoint local = must(endpoint("gluster+unix:///v/d?socket=/run/glusterd.socket"));
  EXPECT_EQ(local.servers, (std::vector<Server>{{.transport = "unix", .host = "/run/glusterd.socket"}}));
}

TEST(GlusterEndpoint, RefusesWhatMakesNoSense) {
  for (const char* text : {"gluster:///v/d",
                           "gluster://h",
                           "gluster://h/",
                           "gluster://h/v",
                           "gluster://h/v/",
                           "gluster://h//d",
                           "gluster://h/v/d?stall-timeout=0",
                           "gluster://h/v/d?stall-timeout=1014",
                           "gluster://h/v/d?stall-timeout=1.5",
                           "gluster://h/v/d?connect-timeout=0",
                           "gluster://h/v/d?reconnect-timeout=-1",
                           "gluster://user@h/v/d",
                           "gluster://h/v/d?socket=/s",
                           "gluster+unix:///v/d",
                           "gluster+unix:///v/d?socket=relative",
                           "gluster+unix://h/v/d?socket=/s",
                           "gluster://h/v/d?backup-servers=a,,b",
                           "gluster://h/v/d?backup-servers=a:0",
                           "gluster://h/v/d?backup-servers=a:65536",
                           "gluster://h/v/d?backup-servers=a:",
                           "gluster://h/v/d?backup-servers=::1",
                           "gluster://h/v/d?backup-servers=%5B::1",
                           "gluster://h/v/d?backup-servers=%5B::1%5D7"})
    EXPECT_FALSE(endpoint(text)) << text;
}

TEST(GlusterEndpoint, AHostileNameNamesNothingButAFile) {
  // A volume's name is also that of a file at the server, a part of a path could leave the folder.
  for (const char* text :
       {"gluster://h/..%2f..%2fetc/d", "gluster://h/../d", "gluster://h/v%00w/d", "gluster://h/v w/d",
        "gluster://h/%0aoption/d", "gluster://h/v/../d", "gluster://h/v/a/../../d", "gluster://h/v/./d",
        "gluster://h/v//d", "gluster://h/v/a%00b", "gluster://h/v/%2e%2e/d",
        "gluster://h/v/d?backup-servers=a%00b", "gluster+unix:///v/d?socket=/a%00b"})
    EXPECT_FALSE(endpoint(text)) << text;
  EXPECT_EQ(must(endpoint("gluster://h/v/d?backup-servers=")).servers.size(), 1u);
  EXPECT_EQ(must(endpoint("gluster://h/v/%0a%1b%5B2Jx")).name.find('\n'), std::string::npos);
  EXPECT_EQ(must(endpoint("gluster://h/v/..data/...")).path, "/..data/...");
  EXPECT_EQ(endpoint("gluster://h/v/" + std::string(300, 'a')).error().kind(), ErrorKind::too_large);
  std::string deep = "gluster://h/v";
  for (int i = 0; i < 40; ++i) deep += "/" + std::string(120, 'a');
  EXPECT_EQ(endpoint(deep).error().kind(), ErrorKind::too_large);
  EXPECT_FALSE(endpoint("gluster://h/" + std::string(256, 'v') + "/d"));
  std::string many = "gluster://h/v/d?backup-servers=a";
  for (int i = 0; i < 16; ++i) many += ",a";
  EXPECT_FALSE(endpoint(many));
  EXPECT_FALSE(endpoint("gluster+unix:///v/d?socket=/" + std::string(107, 's')));
}

TEST(GlusterEndpoint, OneMountIsForTheSameServersVolumeAndTimeout) {
  const auto key = [](const std::string& text) { return must(endpoint(text)).mount_key(); };
  EXPECT_EQ(key("gluster://h/v/a"), key("gluster+tcp://h/v/b/c?reconnect-timeout=1"));
  for (const char* other :
       {"gluster://h/w/a", "gluster://i/v/a", "gluster://h:7/v/a", "gluster://h/v/a?stall-timeout=1",
        "gluster://h/v/a?backup-servers=i", "gluster+unix:///v/a?socket=/h"})
    EXPECT_NE(key("gluster://h/v/a"), key(other)) << other;
}

TEST(GlusterEndpoint, ChangesOutlastTheLibrarysOwnLimit) {
  using std::chrono::seconds;
  EXPECT_EQ(must(endpoint("gluster://h/v/d")).change_limit(), seconds(10 + 420));
  EXPECT_EQ(
      must(endpoint("gluster://h/v/d?stall-timeout=1&connect-timeout=2&reconnect-timeout=0")).change_limit(),
      seconds(2 + 10));
  EXPECT_EQ(must(endpoint("gluster://h/v/d?stall-timeout=1&reconnect-timeout=900")).change_limit(),
            seconds(900))
      << "never less than a lost brick is waited for";
}

struct Row {
  const char* name;
  int number;
  ErrorKind kind;
};
class GlusterStatus : public testing::TestWithParam<Row> {};
TEST_P(GlusterStatus, IsAnErrorOfItsKind) {
  const Error error = call_error(GetParam().number, "write", "gluster://h/v/d");
  EXPECT_EQ(error.kind(), GetParam().kind);
  EXPECT_EQ(error.cause().value(), GetParam().number);
}
INSTANTIATE_TEST_SUITE_P(
    Rows, GlusterStatus,
    testing::Values(
        Row{"full", ENOSPC, ErrorKind::no_space}, Row{"quota", EDQUOT, ErrorKind::no_space},
        Row{"too_big", EFBIG, ErrorKind::no_space}, Row{"denied", EACCES, ErrorKind::permission},
        Row{"not_permitted", EPERM, ErrorKind::permission}, Row{"read_only", EROFS, ErrorKind::read_only},
        Row{"missing", ENOENT, ErrorKind::not_found}, Row{"stale", ESTALE, ErrorKind::gone},
        Row{"disconnected", ENOTCONN, ErrorKind::gone}, Row{"bad_opening", EBADFD, ErrorKind::gone},
        Row{"failing", EIO, ErrorKind::io}, Row{"locked", EAGAIN, ErrorKind::in_use},
        Row{"unsupported", EOPNOTSUPP, ErrorKind::unsupported}, Row{"unknown", ENOTTY, ErrorKind::io}),
    [](const auto& row) { return std::string(row.param.name); });

TEST(GlusterStatusLost, IsWhatOpeningAgainMayMend) {
  for (const int number : {ENOTCONN, EBADFD, EBADF, ETIMEDOUT, ESTALE}) EXPECT_TRUE(is_lost(number));
  for (const int number : {0, EIO, ENOSPC, EROFS, EACCES, ENOENT, EAGAIN, EOPNOTSUPP})
    EXPECT_FALSE(is_lost(number)) << number;
}

TEST(GlusterLog, TellsWhyAVolumeIsNotMounted) {
  const auto refused = refusal_in_log(
      "[2026-01-02 03:04:05.6 +0000] E [MSGID: 114044] [client-handshake.c:756:client_setvolume_cbk] "
      "0-v-client-0: SETVOLUME on remote-host failed [{remote-error=Authentication failed}, {errno=13}]\n");
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->kind, ErrorKind::permission);
  EXPECT_TRUE(refused->is_final);
  EXPECT_EQ(mount_error(EIO, refused, "n").kind(), ErrorKind::permission);
  EXPECT_EQ(refusal_in_log("E [name.c:267:f] 0-gfapi: DNS resolution failed on host x")->kind,
            ErrorKind::gone);
  const auto unknown_host = refusal_in_log("E [name.c:267:f] 0-gfapi: DNS resolution failed on host x");
  EXPECT_FALSE(unknown_host->is_final) << "there may be another server";
  EXPECT_EQ(mount_error(ENOENT, unknown_host, "n").kind(), ErrorKind::not_found);
  EXPECT_EQ(mount_error(ENOTCONN, unknown_host, "n").why(), unknown_host->why);
  EXPECT_FALSE(refusal_in_log(""));
  EXPECT_FALSE(refusal_in_log("I [io-stats.c:3701:configure] 0-v: all is well"));
  EXPECT_EQ(mount_error(ENOENT, std::nullopt, "n").kind(), ErrorKind::not_found);
  EXPECT_EQ(mount_error(EIO, std::nullopt, "n").kind(), ErrorKind::gone);
  EXPECT_EQ(mount_error(ENOTCONN, std::nullopt, "n").kind(), ErrorKind::gone);
  for (const int number : {ENOENT, EIO, ENOTCONN})
    EXPECT_FALSE(mount_error(number, std::nullopt, "n").remedy().empty());
}

TEST(GlusterUnflushed, IsDurableAfterAFlushThroughTheSameOpening) {
  Unflushed unflushed;
  EXPECT_TRUE(unflushed.is_empty());
  unflushed.written(1);
  unflushed.written(1);
  unflushed.begin_commit();
  EXPECT_TRUE(unflushed.is_empty());
  unflushed.written(2);
  EXPECT_TRUE(unflushed.committed(1));
  EXPECT_FALSE(unflushed.is_empty());
  unflushed.begin_commit();
  EXPECT_TRUE(unflushed.committed(2));
  EXPECT_FALSE(unflushed.is_lost());
}

TEST(GlusterUnflushed, IsLostAfterAFlushThroughAnotherOpening) {
  Unflushed unflushed;
  unflushed.written(1);
  unflushed.begin_commit();
  EXPECT_FALSE(unflushed.committed(2));
  unflushed.written(2);
  unflushed.begin_commit();
  EXPECT_FALSE(unflushed.committed(2)) << "and stays lost";
}

TEST(GlusterUnflushed, IsLostWhereOpeningsAreMixed) {
  Unflushed unflushed;
  unflushed.written(1);
  unflushed.written(2);
  unflushed.begin_commit();
  EXPECT_FALSE(unflushed.committed(2));
}

TEST(GlusterUnflushed, IsStillToBeFlushedAfterAFlushThatWasNotCarriedOut) {
  Unflushed unflushed;
  unflushed.written(1);
  unflushed.begin_commit();
  unflushed.written(2);
  unflushed.failed();
  EXPECT_FALSE(unflushed.is_empty());
  unflushed.begin_commit();
  EXPECT_FALSE(unflushed.committed(2)) << "what was written through 1 is not covered";
}

TEST(GlusterUnflushed, IsLostWhereABrickSaysSo) {
  Unflushed unflushed;
  unflushed.written(1);
  unflushed.begin_commit();
  unflushed.failed();
  unflushed.lose();
  unflushed.begin_commit();
  EXPECT_FALSE(unflushed.committed(1));
}

}  // namespace
}  // namespace diskferry::gluster
