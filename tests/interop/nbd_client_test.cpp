// The NBD client against nbdkit, qemu-nbd and nbd-server: every verb, as those servers understand it.
#include "diskferry/task_group.hpp"
#include "tests/interop/nbd_client_support.hpp"

#include <atomic>
#include <bit>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using namespace test;

Task<Result<void>> write_read_zero(BlockDevice& device) {
  const auto data = pattern(300 * kib, 400 * kib);
  DISKFERRY_CO_CHECK(co_await device.write(300 * kib, data, {}));
  std::vector<std::byte> back(data.size());
  DISKFERRY_CO_CHECK(co_await device.read(300 * kib, back));
  EXPECT_EQ(first_difference(back, 300 * kib), SIZE_MAX);
  DISKFERRY_CO_CHECK(co_await device.write_zeroes({400 * kib, 64 * kib}, {}));
  DISKFERRY_CO_CHECK(co_await device.read(400 * kib, std::span(back).first(64 * kib)));
  EXPECT_TRUE(is_zero(std::span(back).first(64 * kib)));
  DISKFERRY_CO_CHECK(co_await device.write(0, std::span(data).first(4096), {.fua = true}));
  DISKFERRY_CO_CHECK(co_await device.discard({1 * mib, 64 * kib}));
  DISKFERRY_CO_CHECK(co_await device.prefetch({0, 64 * kib}));
  co_return co_await device.flush();
}

TEST(NbdClient, ReadsWritesZeroesAndFlushesOnNbdkit) {
  auto server = nbdkit({"memory", "16M"});
  OpenDevice device(server.uri(), {.writable = true});
  EXPECT_EQ(device->size_bytes(), 16 * mib);
  EXPECT_TRUE(device->info().can_fua);
  EXPECT_TRUE(device->info().can_multi_connection);
  must(run(write_read_zero(*device)));
  const auto extents = must(run(device->extents({0, 16 * mib}, 100)));
  EXPECT_FALSE(extents.front().reads_zero);
  EXPECT_TRUE(extents.back().reads_zero);
  EXPECT_EQ(extents.back().end(), 16 * mib);
}

TEST(NbdClient, ReadsWritesZeroesAndFlushesOnQemuNbd) {
  TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  ASSERT_EQ(run_program({"truncate", "-s", "16M", image}).exit_code, 0);
  auto server = qemu_nbd({"-e", "8", "-f", "raw", "-A", image});
  OpenDevice device(server.uri(), {.writable = true});
  EXPECT_EQ(device->info().zero, ZeroSupport::unmapping);
  must(run(write_read_zero(*device)));
}

TEST(NbdClient, ReportsTheDepthOfAChain) {
  TemporaryFolder folder;
  const std::string base = folder / "base.qcow2";
  const std::string top = folder / "top.qcow2";
  ASSERT_EQ(run_program({"qemu-img", "create", "-q", "-f", "qcow2", base, "1M"}).exit_code, 0);
  ASSERT_EQ(run_program({"qemu-io", "-f", "qcow2", "-c", "write 0 128k", base}).exit_code, 0);
  ASSERT_EQ(
      run_program({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top}).exit_code, 0);
  ASSERT_EQ(run_program({"qemu-io", "-f", "qcow2", "-c", "write 64k 64k", top}).exit_code, 0);
  auto server = qemu_nbd({"-r", "-f", "qcow2", "-A", top});
  OpenDevice device(server.uri());
  const auto extents = must(run(device->extents({0, 1 * mib}, 10)));
  ASSERT_EQ(extents.size(), 3u);
  EXPECT_EQ(extents[0], (Extent{.offset = 0, .length = 64 * kib, .depth = 1}));
  EXPECT_EQ(extents[1], (Extent{.offset = 64 * kib, .length = 64 * kib, .depth = 0}));
  EXPECT_TRUE(extents[2].reads_zero);
  EXPECT_TRUE(extents[2].is_hole);
  EXPECT_EQ(extents[2].depth, Extent::depth_none);
}

/// What other servers can and cannot do, as filters of one: the verbs must come to the same.
TEST(NbdClient, ServersOfOtherAbilitiesAreUsedAlike) {
  const std::vector<std::vector<std::string>> servers{
      {"--filter=noextents", "memory", "16M"},
      {"--filter=nozero", "memory", "16M", "zeromode=none"},
      {"--filter=nozero", "memory", "16M", "zeromode=notrim"},
      {"--filter=nozero", "memory", "16M", "fastzeromode=none"},
      {"--filter=nozero", "memory", "16M", "fastzeromode=slow"},
      {"--filter=fua", "memory", "16M", "fuamode=emulate"},
      {"--filter=fua", "memory", "16M", "fuamode=force"},
      {"--filter=multi-conn", "memory", "16M", "multi-conn-mode=disable"},
      {"--filter=multi-conn", "memory", "16M", "multi-conn-mode=emulate"},
      {"--filter=blocksize-policy", "memory", "16M", "blocksize-minimum=4096", "blocksize-preferred=64K",
       "blocksize-maximum=128K", "blocksize-error-policy=error"},
      {"--filter=blocksize", "memory", "16M", "minblock=4096", "maxdata=64K", "maxlen=128K"},
      {"--filter=limit", "memory", "16M", "limit=1"},
      {"--filter=cow", "memory", "16M"},
      {"--filter=cache", "memory", "16M"},
      {"--filter=swab", "memory", "16M", "swab-bits=16"},
      {"--filter=error", "memory", "16M", "error-cache-rate=0%"},
      {"--mask-handshake=1", "memory", "16M"},
  };
  for (const auto& arguments : servers) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(arguments, " ")));
    auto server = nbdkit(arguments);
    OpenDevice device(server.uri("", "&connect-timeout=5"), {.writable = true});
    must(run(write_read_zero(*device)));
  }
}

TEST(NbdClient, SpeaksToServersWithoutStructuredReplies) {
  auto server = nbdkit({"--no-sr", "memory", "16M"});
  OpenDevice device(server.uri(), {.writable = true});
  EXPECT_FALSE(device->info().can_report_extents);
  must(run(write_read_zero(*device)));
}

TEST(NbdClient, SpeaksOverTcpToANamedExport) {
  TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  ASSERT_EQ(run_program({"truncate", "-s", "8M", image}).exit_code, 0);
  for (int attempt = 0;; ++attempt) {
    ASSERT_LT(attempt, 10) << "no port was free ten times";
    const std::uint16_t port = free_tcp_port();
    const auto number = std::to_string(port);
    ChildProcess server({"qemu-nbd", "-t", "-e", "9", "-x", "disk one/a", "-b", "127.0.0.1", "-p", number,
                         "-f", "raw", image});
    if (!wait_until([&] { return is_listening(port) || !server.is_running(); }) || !server.is_running())
      continue;
    OpenDevice device("nbd://localhost:" + number + "/disk%20one/a", {.writable = true});
    must(run(write_read_zero(*device)));
    const auto missing = open_nbd("nbd://localhost:" + number + "/other");
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().kind(), ErrorKind::not_found) << missing.error().message();
    break;
  }
}

TEST(NbdClient, SaysWhyAServerCannotBeUsed) {
  auto server = nbdkit({"-r", "memory", "1M"});
  const auto writable = open_nbd(server.uri(), {.writable = true});
  ASSERT_FALSE(writable);
  EXPECT_EQ(writable.error().kind(), ErrorKind::read_only);
  const auto nobody = open_nbd("nbd://127.0.0.1:" + std::to_string(free_tcp_port()));
  ASSERT_FALSE(nobody);
  EXPECT_EQ(nobody.error().kind(), ErrorKind::gone) << nobody.error().message();
  EXPECT_NE(nobody.error().message().find("Connection refused"), std::string::npos);
  const auto no_socket = open_nbd("nbd+unix:///?socket=/nonexistent/socket");
  ASSERT_FALSE(no_socket);
  EXPECT_EQ(no_socket.error().kind(), ErrorKind::not_found) << no_socket.error().message();
}

TEST(NbdClient, ErrorsOfTheServerKeepTheirMeaning) {
  struct Row {
    const char* name;
    ErrorKind kind;
  };
  for (const auto& [name, kind] : {Row{"EIO", ErrorKind::io}, Row{"ENOSPC", ErrorKind::no_space},
                                   Row{"EPERM", ErrorKind::permission}, Row{"EINVAL", ErrorKind::io}}) {
    auto server =
        nbdkit({"--filter=error", "memory", "1M", std::string("error=") + name, "error-pwrite-rate=100%"});
    OpenDevice device(server.uri(), {.writable = true});
    const std::vector<std::byte> data(4096);
    const auto written = run(device->write(0, data, {}));
    ASSERT_FALSE(written) << name;
    EXPECT_EQ(written.error().kind(), kind) << written.error().message();
  }
}

TEST(NbdClient, OddSizesReadToTheLastByte) {
  auto server = nbdkit({"pattern", "1000001"});
  OpenDevice device(server.uri());
  std::vector<std::byte> tail(1001);
  must(run(device->read(999000, tail)));
  std::uint64_t word = 0;  // the pattern: each 8 bytes are their own offset
  std::memcpy(&word, tail.data(), 8);
  EXPECT_EQ(std::byteswap(word), 999000u);
}

// nbdkit's policy "allow" takes what is no whole block, "error" refuses it.
TEST(NbdClient, TheEndOfAnExportThatIsNoWholeBlockIsForTheServerToTake) {
  constexpr std::uint64_t size = 1 * mib + 517;
  for (const std::uint64_t block : {512, 4096, 65536}) {
    for (const std::string policy : {"allow", "error"}) {
      auto server = nbdkit({"--filter=blocksize-policy", "memory", std::to_string(size),
                            "blocksize-minimum=" + std::to_string(block), "blocksize-preferred=65536",
                            "blocksize-maximum=1M", "blocksize-error-policy=" + policy});
      OpenDevice device(server.uri(), {.writable = true});
      const std::uint64_t at = 1 * mib - block;
      const std::uint64_t tail = 1 * mib + align_down(517, block);
      // Where data is can be asked in either case, up to the end.
      const auto all = must(run(device->extents({0, size}, 100)));
      EXPECT_LE(all.back().end(), size);
      const auto last = must(run(device->extents({tail, size - tail}, 100)));
      ASSERT_EQ(last.size(), 1u);
      EXPECT_EQ(last.front(), (Extent{.offset = tail, .length = size - tail}));
      const auto data = pattern(at, size - at);
      const auto written = run(device->write(at, data, {}));
      if (policy == "error") {
        ASSERT_FALSE(written) << block;
        EXPECT_EQ(written.error().kind(), ErrorKind::io);
        EXPECT_NE(written.error().message().find("no multiple of its block size " + std::to_string(block)),
                  std::string::npos)
            << written.error().message();
        continue;
      }
      must(written);
      std::vector<std::byte> back(size - at);
      must(run(device->read(at, back)));
      EXPECT_EQ(first_difference(back, at), SIZE_MAX) << block;
      must(run(device->write_zeroes({tail, size - tail}, {})));
    }
  }
}

TEST(NbdClient, AnEmptyExportIsADevice) {
  auto server = nbdkit({"memory", "0"});
  OpenDevice device(server.uri(), {.writable = true});
  EXPECT_EQ(device->size_bytes(), 0u);
  must(run(device->flush()));
}

Task<Result<void>> read_one(BlockDevice& device, std::uint64_t offset, std::size_t length) {
  std::vector<std::byte> bytes(length);
  DISKFERRY_CO_CHECK(co_await device.read(offset, bytes));
  std::uint64_t word = 0;
  std::memcpy(&word, bytes.data(), 8);
  if (std::byteswap(word) != offset)
    co_return unexpected(fail(ErrorKind::mismatch, "read").at(offset, length));
  co_return Result<void>{};
}
/// Half of the reads on each reactor.
Task<Result<void>> read_many(BlockDevice& device, unsigned count) {
  TaskGroup group(runtime().reactor(0));
  for (unsigned i = 0; i < count; ++i)
    group.spawn_on(runtime().reactor(i), read_one(device, i * 64 * kib, 64 * kib));
  co_return co_await group.join();
}

TEST(NbdClient, ManyReadsFromBothReactorsOverSeveralConnections) {
  auto server = nbdkit({"pattern", "256M"});
  OpenDevice device(server.uri());
  must(run(read_many(*device, 4096)));
}

TEST(NbdClient, ManyReadsOverOneConnection) {
  auto server = nbdkit({"pattern", "256M"});
  OpenDevice device(server.uri("", "&connections=1"));
  must(run(read_many(*device, 4096)));
}

TEST(NbdClient, AServerThatTakesFewerConnectionsIsServedByThose) {
  TemporaryFolder folder;
  const std::string image = folder / "disk.raw";
  ASSERT_EQ(run_program({"truncate", "-s", "256M", image}).exit_code, 0);
  auto server = qemu_nbd({"-e", "2", "-f", "raw", image});
  OpenDevice device(server.uri("", "&connections=8&connect-timeout=1"), {.writable = true});
  must(run(write_read_zero(*device)));
}

Task<Result<void>> copy_some(BlockDevice& source, BlockDevice& target, std::atomic<std::uint64_t>& next) {
  std::vector<std::byte> bytes(256 * kib);
  while (true) {
    const std::uint64_t at = next.fetch_add(bytes.size());
    if (at >= source.size_bytes()) co_return Result<void>{};
    DISKFERRY_CO_CHECK(co_await source.read(at, bytes));
    DISKFERRY_CO_CHECK(co_await target.write(at, bytes, {}));
  }
}
Task<Result<void>> copy_all(BlockDevice& source, BlockDevice& target) {
  TaskGroup group(runtime().reactor(0));
  std::atomic<std::uint64_t> next = 0;
  for (int i = 0; i < 32; ++i) group.spawn_on(runtime().reactor(i), copy_some(source, target, next));
  co_return co_await group.join();
}

// Writes fill the socket, so that they are sent in pieces while answers come in: libnbd stalls for good where
// it is told to read in between and nothing is there.
TEST(NbdClient, WritesInPiecesBesideAnswersDoNotStall) {
  auto from = nbdkit({"pattern", "256M"});
  auto to = nbdkit({"memory", "256M"});
  OpenDevice source(from.uri());
  OpenDevice target(to.uri(), {.writable = true});
  must(run(copy_all(*source, *target)));
  must(run(read_many(*target, 4096)));
}

}  // namespace
}  // namespace diskferry
