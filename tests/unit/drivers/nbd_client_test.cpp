// The pure parts of the NBD client: URIs, what a server says of itself, block status.
#include "diskferry/units.hpp"
#include "drivers/nbd/block_status.hpp"
#include "drivers/nbd/endpoint.hpp"
#include "drivers/nbd/server_info.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry::nbd {
namespace {
using test::must;

Result<Endpoint> endpoint(const std::string& text) {
  DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(text));
  return parse_endpoint(uri);
}

TEST(NbdEndpoint, TakesTheFormsOfTheUriSpecification) {
  const Endpoint tcp = must(endpoint("nbd://example.org/disk%2Fone"));
  EXPECT_EQ(tcp.host, "example.org");
  EXPECT_EQ(tcp.port, "10809");
  EXPECT_EQ(tcp.export_name, "disk/one");
  EXPECT_FALSE(tcp.is_tls);
  EXPECT_EQ(must(endpoint("nbd://h:99//absolute")).export_name, "/absolute");
  EXPECT_EQ(must(endpoint("nbd://[::1]:99/")).host, "::1");
  const Endpoint local = must(endpoint("nbd+unix:///name?socket=/run/s&connections=3"));
  EXPECT_TRUE(local.is_unix());
  EXPECT_EQ(local.socket_path, "/run/s");
  EXPECT_EQ(local.connections, 3u);
  const Endpoint tls = must(endpoint("nbds://alice@h/?tls-psk-file=/k&reconnect-timeout=0.5"));
  EXPECT_TRUE(tls.is_tls);
  EXPECT_TRUE(tls.tls_verify_peer);
  EXPECT_EQ(tls.tls_username, "alice");
  EXPECT_EQ(tls.reconnect_limit, std::chrono::milliseconds(500));
}

TEST(NbdEndpoint, RefusesWhatMakesNoSense) {
  for (const char* text :
       {"nbd:///name", "nbd+unix:///name", "nbd+unix://host/name?socket=/s", "nbd://h/?socket=/s",
        "nbd://h/?connections=0", "nbd://h/?connections=17", "nbd://h/?connections=two",
        "nbd://h/?stall-timeout=0", "nbd://h/?connect-timeout=-1", "nbd://h/?reconnect-timeout=nan",
        "nbd://h/?tls-certificates=/x", "nbds://h/?tls-verify-peer=maybe",
        "nbds://h/?tls-certificates=/x&tls-psk-file=/y"}) {
    const auto parsed = endpoint(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().kind(), ErrorKind::invalid_argument) << text;
  }
  EXPECT_EQ(endpoint("nbd://h/" + std::string(4097, 'x')).error().kind(), ErrorKind::too_large);
  EXPECT_TRUE(endpoint("nbd://h/" + std::string(4096, 'x')));
  EXPECT_EQ(endpoint("nbd+unix:///?socket=/" + std::string(107, 'x')).error().kind(), ErrorKind::too_large);
}

TEST(NbdServerInfo, SizesThatContradictThemselvesAreAProtocolError) {
  for (const RawSizes& raw :
       {RawSizes{.size = -1}, RawSizes{.size = 1, .minimum = 3}, RawSizes{.size = 1, .minimum = 131072},
        RawSizes{.size = 1, .minimum = 4096, .preferred = 4096, .maximum = 512}}) {
    ServerInfo info;
    const auto taken = take_sizes(raw, info);
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error().kind(), ErrorKind::protocol);
  }
  ServerInfo info;
  must(take_sizes({.size = 10, .minimum = 512, .preferred = 4096, .maximum = 0xffffffff}, info));
  EXPECT_EQ(info.block_bytes, 512u);
  EXPECT_EQ(info.request_bytes_max, 32u << 20);
  must(take_sizes({.size = 10, .minimum = 512, .preferred = 7, .maximum = 1000}, info));
  EXPECT_EQ(info.preferred_bytes, 4096u);
  EXPECT_EQ(info.request_bytes_max, 512u);
}

TEST(NbdServerInfo, AServerMayGainButNotLose) {
  ServerInfo before;
  before.can_zero = true;
  before.size_bytes = 1;
  ServerInfo now = before;
  now.can_trim = true;
  EXPECT_FALSE(difference(before, now));
  now.can_zero = false;
  EXPECT_TRUE(difference(before, now));
  now = before;
  now.size_bytes = 2;
  EXPECT_TRUE(difference(before, now));
}

constexpr std::uint64_t data = 0;
constexpr std::uint64_t zero = 3;

struct StatusRun {
  std::uint64_t length;
  std::uint64_t flags;
};
Result<std::vector<Extent>> extents(Range range, std::vector<StatusRun> runs, std::uint32_t block = 512,
                                    std::size_t runs_max = 100) {
  BlockStatus status(range, runs_max);
  status.begin("base:allocation");
  for (const StatusRun& run : runs) status.add(run.length, run.flags);
  return status.extents(block, false);
}

TEST(NbdBlockStatus, MergesClampsAndKeepsWhatItKnows) {
  const auto found = must(extents({4096, 8192}, {{1024, data}, {1024, data}, {1 << 20, zero}}));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].range(), (Range{4096, 2048}));
  EXPECT_FALSE(found[0].reads_zero);
  EXPECT_EQ(found[1].range(), (Range{6144, 6144}));
  EXPECT_TRUE(found[1].reads_zero && found[1].is_hole);
}

TEST(NbdBlockStatus, AHoleAloneDoesNotReadAsZero) {
  const auto found = must(extents({0, 512}, {{512, 1}}));
  EXPECT_TRUE(found[0].is_hole);
  EXPECT_FALSE(found[0].reads_zero);
}

TEST(NbdBlockStatus, ABlockThatIsZeroInPartIsData) {
  const auto found = must(extents({0, 2048}, {{700, zero}, {100, data}, {1248, zero}}));
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].range(), (Range{0, 512}));
  EXPECT_EQ(found[1].range(), (Range{512, 512}));
  EXPECT_FALSE(found[1].reads_zero);
  EXPECT_EQ(found[2].range(), (Range{1024, 1024}));
  // The server stops in the middle of a block: what it did not say counts as data.
  EXPECT_FALSE(must(extents({0, 2048}, {{700, zero}}))[1].reads_zero);
  EXPECT_EQ(must(extents({0, 2048}, {{700, zero}})).back().end(), 1024u);
}

TEST(NbdBlockStatus, TheEndOfAnOddDeviceIsABlock) {
  const auto found = must(extents({512, 100}, {{100, zero}}));
  EXPECT_EQ(found[0].range(), (Range{512, 100}));
  EXPECT_TRUE(found[0].reads_zero);
}

TEST(NbdBlockStatus, IsBounded) {
  std::vector<StatusRun> runs;
  for (int i = 0; i < 1000; ++i) runs.push_back({512, i % 2 == 0 ? data : zero});
  const auto found = must(extents({0, 512000}, runs, 512, 10));
  EXPECT_EQ(found.size(), 10u);
  EXPECT_EQ(found.back().end(), 5120u);
}

TEST(NbdBlockStatus, NonsenseIsAProtocolError) {
  EXPECT_EQ(extents({0, 512}, {}).error().kind(), ErrorKind::protocol);
  EXPECT_EQ(extents({0, 512}, {{0, 0}}).error().kind(), ErrorKind::protocol);
  EXPECT_EQ(extents({0, 512}, {{512, 0}, {512, 0}}).error().kind(), ErrorKind::protocol);
  BlockStatus twice({0, 512}, 10);
  twice.begin("base:allocation");
  twice.add(512, 0);
  twice.begin("base:allocation");
  EXPECT_EQ(twice.extents(1, false).error().kind(), ErrorKind::protocol);
  BlockStatus foreign({0, 512}, 10);
  foreign.begin("x:y");
  EXPECT_EQ(foreign.extents(1, false).error().kind(), ErrorKind::protocol);
  BlockStatus without_depth({0, 512}, 10);
  without_depth.begin("base:allocation");
  without_depth.add(512, 0);
  EXPECT_EQ(without_depth.extents(1, true).error().kind(), ErrorKind::protocol);
}

}  // namespace
}  // namespace diskferry::nbd
