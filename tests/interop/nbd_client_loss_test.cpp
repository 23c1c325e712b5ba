// The NBD client when connections break, servers restart, stall, or come back as something else. The promises
// are those of docs/decisions/0003-nbd-reconnect.md, one test each.
#include "diskferry/task_group.hpp"
#include "tests/interop/nbd_client_support.hpp"
#include "tests/support/proxy.hpp"

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <future>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using namespace test;
using std::chrono::milliseconds;
using std::chrono::seconds;

class NbdClientLoss : public ::testing::Test {
 protected:
  NbdClientLoss() { EXPECT_EQ(run_program({"truncate", "-s", "16M", image_}).exit_code, 0); }
  std::vector<std::string> server_arguments(std::vector<std::string> more = {}) {
    std::vector<std::string> all{"nbdkit", "-f", "-U", "{socket}"};
    all.insert(all.end(), more.begin(), more.end());
    all.insert(all.end(), {"file", image_});
    return all;
  }
  std::string proxy_uri(const std::string& more = {}) { return "nbd+unix:///?socket=" + proxy_path_ + more; }

  TemporaryFolder folder_;
  std::string image_ = folder_ / "disk.raw";
  std::string proxy_path_ = folder_ / "proxy";
};

Result<void> write_pattern(BlockDevice& device, std::uint64_t offset, std::size_t length) {
  const auto data = pattern(offset, length);
  return run(device.write(offset, data, {}));
}
Result<void> expect_pattern(BlockDevice& device, std::uint64_t offset, std::size_t length) {
  std::vector<std::byte> data(length);
  DISKFERRY_CHECK(run(device.read(offset, data)));
  EXPECT_EQ(first_difference(data, offset), SIZE_MAX);
  return {};
}

TEST_F(NbdClientLoss, ReadsGoOnWhenTheServerIsKilledAndStartedAgain) {
  NbdServer server(server_arguments());
  OpenDevice device(server.uri(), {.writable = true});
  must(write_pattern(*device, 0, 100000));
  must(run(device->flush()));
  server.process().kill();
  server.start();
  must(expect_pattern(*device, 0, 100000));
  // Everything was flushed before the loss: nothing can be missing, so the promise of a flush holds.
  must(run(device->flush()));
  must(write_pattern(*device, 200000, 5000));
  must(run(device->flush()));
}

TEST_F(NbdClientLoss, ARequestWaitsForTheServerToComeBack) {
  NbdServer server(server_arguments());
  OpenDevice device(server.uri(), {.writable = true});
  server.process().kill();
  auto written = std::async(std::launch::async, [&] { return write_pattern(*device, 4096, 4096); });
  EXPECT_EQ(written.wait_for(milliseconds(300)), std::future_status::timeout);
  server.start();
  must(written.get());
  must(expect_pattern(*device, 4096, 4096));
}

TEST_F(NbdClientLoss, AFlushDoesNotPromiseWhatTheServerMayHaveLost) {
  NbdServer server(server_arguments());
  OpenDevice device(server.uri(), {.writable = true});
  must(write_pattern(*device, 0, 4096));
  server.process().kill();
  server.start();
  must(expect_pattern(*device, 0, 4096));
  for (int i = 0; i < 2; ++i) {
    const auto flushed = run(device->flush());
    ASSERT_FALSE(flushed);
    EXPECT_EQ(flushed.error().kind(), ErrorKind::gone) << flushed.error().message();
    EXPECT_NE(flushed.error().message().find("repeat the writes"), std::string::npos);
    EXPECT_NE(flushed.error().why().find("the connection was lost ("), std::string::npos)
        << "the reason of the loss: " << flushed.error().message();
  }
}

Task<Result<void>> read_64k(BlockDevice& device) {
  std::vector<std::byte> bytes(64 * kib);
  co_return co_await device.read(0, bytes);
}
Task<Result<void>> read_on(Executor executor, BlockDevice& device) {
  TaskGroup group(executor);
  group.spawn(read_64k(device));
  co_return co_await group.join();
}

TEST_F(NbdClientLoss, AFlushHoldsWhereAnotherConnectionSawTheServerLiveOn) {
  NbdServer server(server_arguments());
  Proxy proxy(proxy_path_, server.socket());
  OpenDevice device(proxy_uri("&connections=2"), {.writable = true});
  // Once the second one carries reads, both have stood since before the first write.
  ASSERT_TRUE(wait_until([&] {
    must(run(read_on(runtime().reactor(1), *device)));
    must(run(read_on(runtime().reactor(0), *device)));
    return proxy.forwarded(0) > 128 * kib && proxy.forwarded(1) > 128 * kib;
  }));
  must(write_pattern(*device, 0, 4096));
  proxy.cut(0);
  must(expect_pattern(*device, 0, 4096));
  must(run(device->flush()));
}

TEST_F(NbdClientLoss, AFlushFailsOnceEveryConnectionWasCut) {
  NbdServer server(server_arguments());
  Proxy proxy(proxy_path_, server.socket());
  OpenDevice device(proxy_uri("&connections=2"), {.writable = true});
  ASSERT_TRUE(wait_until([&] { return proxy.connections() == 2; }));
  must(write_pattern(*device, 0, 4096));
  proxy.cut_all();
  must(expect_pattern(*device, 0, 4096));
  const auto flushed = run(device->flush());
  ASSERT_FALSE(flushed);
  EXPECT_EQ(flushed.error().kind(), ErrorKind::gone);
}

Task<Result<void>> write_all(BlockDevice& device, const std::vector<std::byte>& data,
                             std::atomic<bool>& is_on_its_way) {
  constexpr std::size_t step = 64 * kib;
  for (std::uint64_t at = 0; at < data.size(); at += step) {
    DISKFERRY_CO_CHECK(co_await device.write(at, std::span(data).subspan(at, step), {}));
    is_on_its_way.store(true);
  }
  co_return Result<void>{};
}
Task<Result<void>> write_while_cutting(BlockDevice& device, Proxy& proxy,
                                       const std::vector<std::byte>& data) {
  TaskGroup group(runtime().reactor(0));
  std::atomic<bool> is_on_its_way = false;
  for (int i = 0; i < 8; ++i) group.spawn_on(runtime().reactor(i), write_all(device, data, is_on_its_way));
  SystemClock clock;
  for (int i = 0; i < 10 && group.size() != 0; ++i) {
    // A few writes got through since the last cut, and more are on their way.
    is_on_its_way.store(false);
    while (!is_on_its_way.load() && group.size() != 0)
      DISKFERRY_CO_CHECK(co_await clock.sleep_for(milliseconds(1)));
    proxy.cut_all();
  }
  co_return co_await group.join();
}

TEST_F(NbdClientLoss, NoWriteIsLostWhileConnectionsKeepBreaking) {
  // One thread a connection: nbdkit 1.32 with more may abort (raw_send_socket: sock >= 0) where a connection
  // is cut while several answers are on their way.
  NbdServer server(server_arguments({"--threads=1"}));
  Proxy proxy(proxy_path_, server.socket());
  OpenDevice device(proxy_uri(), {.writable = true});
  const auto data = pattern(0, 8 * mib);
  const auto written = run(write_while_cutting(*device, proxy, data));
  ASSERT_TRUE(server.process().is_running()) << "the server is at fault, not the client";
  must(written);
  must(expect_pattern(*device, 0, 8 * mib));
  EXPECT_GT(proxy.connections(), 2u) << "each of two was opened again";
}

TEST_F(NbdClientLoss, AServerThatStaysAwayMakesTheDeviceGone) {
  NbdServer server(server_arguments());
  OpenDevice device(server.uri("", "&reconnect-timeout=0.3"), {.writable = true});
  server.process().kill();
  const auto begun = std::chrono::steady_clock::now();
  const auto first = write_pattern(*device, 0, 4096);
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().kind(), ErrorKind::gone) << first.error().message();
  EXPECT_LT(std::chrono::steady_clock::now() - begun, seconds(5));
  server.start();
  const auto second = write_pattern(*device, 0, 4096);
  ASSERT_FALSE(second) << "gone is for good: the device must be opened again";
  EXPECT_EQ(second.error().kind(), ErrorKind::gone);
}

TEST_F(NbdClientLoss, AnotherDiskAtTheSameAddressIsRefused) {
  NbdServer server(server_arguments());
  OpenDevice device(server.uri(), {.writable = true});
  server.process().kill();
  server.start({"nbdkit", "-f", "-U", "{socket}", "memory", "32M"});
  const auto written = write_pattern(*device, 0, 4096);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().kind(), ErrorKind::mismatch);
  EXPECT_NE(written.error().message().find("33554432"), std::string::npos) << written.error().message();
}

TEST_F(NbdClientLoss, AnExportThatBecameReadOnlyIsRefused) {
  NbdServer server(server_arguments());
  OpenDevice device(server.uri(), {.writable = true});
  server.process().kill();
  server.start(server_arguments({"-r"}));
  const auto written = write_pattern(*device, 0, 4096);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().kind(), ErrorKind::mismatch) << written.error().message();
}

TEST_F(NbdClientLoss, ASilentServerCountsAsLostAndIsFoundAgain) {
  NbdServer server(server_arguments());
  Proxy proxy(proxy_path_, server.socket());
  OpenDevice device(proxy_uri("&stall-timeout=0.2&connect-timeout=0.3"), {.writable = true});
  must(write_pattern(*device, 0, 4096));
  const std::size_t before = proxy.connections();
  proxy.silence(true);
  // It speaks again once the client has dropped the silent connection and tried another.
  auto heard = std::async(std::launch::async, [&] {
    const bool tried = wait_until([&] { return proxy.connections() > before; });
    proxy.silence(false);
    return tried;
  });
  const auto read = expect_pattern(*device, 0, 4096);
  EXPECT_TRUE(heard.get()) << "the silent connection was not dropped";
  must(read);
}

Task<Result<void>> read_with_limit(BlockDevice& device, Duration limit) {
  SystemClock clock;
  std::vector<std::byte> bytes(4096);
  auto read = co_await with_deadline(clock, limit, "read", device.read(0, bytes));
  // The memory goes now: whatever still wrote to it would be seen by AddressSanitizer.
  co_return read;
}

TEST_F(NbdClientLoss, ACancelledReadDoesNotWaitForASlowServer) {
  NbdServer server({"nbdkit", "-f", "-U", "{socket}", "--filter=delay", "file", image_, "rdelay=20"});
  OpenDevice device(server.uri(), {.writable = true});
  const auto begun = std::chrono::steady_clock::now();
  const auto read = run(read_with_limit(*device, milliseconds(100)));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().kind(), ErrorKind::timed_out) << read.error().message();
  EXPECT_LT(std::chrono::steady_clock::now() - begun, seconds(5));
  must(write_pattern(*device, 0, 4096));  // the device goes on
}

TEST_F(NbdClientLoss, CancellingWhileTheServerIsAwayEndsAtOnce) {
  NbdServer server(server_arguments());
  OpenDevice device(server.uri(), {.writable = true});
  server.process().kill();
  const auto begun = std::chrono::steady_clock::now();
  const auto read = run(read_with_limit(*device, milliseconds(100)));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().kind(), ErrorKind::timed_out);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, seconds(2));
}

/// What nbdkit's log filter saw come in.
int reads_in(const std::string& log) {
  std::ifstream file(log);
  int count = 0;
  for (std::string line; std::getline(file, line);) count += line.find(" Read id=") != std::string::npos;
  return count;
}
TEST_F(NbdClientLoss, AServerThatShutsDownIsWaitedFor) {
  const std::string trigger = folder_ / "trigger";
  const std::string log = folder_ / "requests";
  NbdServer server({"nbdkit", "-f", "-U", "{socket}", "--filter=log", "--filter=error", "file", image_,
                    "logfile=" + log, "error=ESHUTDOWN", "error-pread-rate=100%", "error-file=" + trigger});
  OpenDevice device(server.uri(), {.writable = true});
  must(write_pattern(*device, 0, 4096));
  std::ofstream(trigger).put('x');
  // It works again once the client has come back for what was refused.
  auto repeated = std::async(std::launch::async, [&] {
    const bool came_back = wait_until([&] { return reads_in(log) >= 2; });
    std::filesystem::remove(trigger);
    return came_back;
  });
  const auto read = expect_pattern(*device, 0, 4096);
  EXPECT_TRUE(repeated.get()) << reads_in(log) << " reads";
  must(read);
}

TEST_F(NbdClientLoss, ClosingWithTheServerGoneIsQuick) {
  NbdServer server(server_arguments());
  const auto begun = std::chrono::steady_clock::now();
  {
    OpenDevice device(server.uri(), {.writable = true});
    server.process().kill();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, seconds(3));
}

TEST_F(NbdClientLoss, ClosingWithTheServerStoppedIsBounded) {
  NbdServer server(server_arguments());
  const auto begun = std::chrono::steady_clock::now();
  {
    OpenDevice device(server.uri(), {.writable = true});
    server.process().signal(SIGSTOP);
  }
  server.process().signal(SIGCONT);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, seconds(6));
}

}  // namespace
}  // namespace diskferry
