// Sessions over UNIX sockets with a client that breaks the rules. Each test names the rule it keeps.
#include "drivers/image/image.hpp"
#include "tests/support/pattern.hpp"
#include "tests/unit/nbd/test_server.hpp"
#include "tests/unit/nbd/wire_client.hpp"

#include <atomic>
#include <fcntl.h>
#include <sys/stat.h>
#include <thread>

namespace diskferry::test {
namespace {

constexpr std::uint64_t disk_bytes = 1'000'001;

/// A memory disk that serves nothing inline, so that every request is a task; can be held and can fail.
struct Script {
  AsyncEvent gate;
  std::atomic<bool> hold_reads = false;
  std::atomic<int> waiting = 0;
  std::atomic<int> flushes = 0;
  std::atomic<int> fua_writes = 0;
  std::atomic<int> prefetches = 0;
  std::atomic<bool> no_hole_seen = false;
  std::optional<ErrorKind> fail_with;
};
class ScriptedDevice final : public BlockDevice {
 public:
  ScriptedDevice(std::shared_ptr<Script> script, MemoryOptions options)
      : script_(std::move(script)), memory_(make_memory_device(options)) {}
  const DeviceInfo& info() const noexcept override { return memory_->info(); }
  std::uint64_t size_bytes() const noexcept override { return memory_->size_bytes(); }
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    if (script_->hold_reads) {
      ++script_->waiting;
      DISKFERRY_CO_CHECK(co_await script_->gate.wait());
    }
    if (script_->fail_with) co_return unexpected(fail(*script_->fail_with, "read").why("as the test asked"));
    co_return co_await memory_->read(offset, into);
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    if (script_->fail_with) co_return unexpected(fail(*script_->fail_with, "write"));
    if (flags.fua) ++script_->fua_writes;
    co_return co_await memory_->write(offset, from, flags);
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    if (!flags.may_unmap) script_->no_hole_seen = true;
    if (flags.fast_only && script_->fail_with) co_return unexpected(fail(*script_->fail_with, "zero"));
    co_return co_await memory_->write_zeroes(range, flags);
  }
  Task<Result<void>> discard(Range range) override { co_return co_await memory_->discard(range); }
  Task<Result<void>> flush() override {
    ++script_->flushes;
    if (script_->fail_with) co_return unexpected(fail(*script_->fail_with, "flush"));
    co_return Result<void>{};
  }
  Task<Result<void>> prefetch(Range) override {
    ++script_->prefetches;
    co_return Result<void>{};
  }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    co_return co_await memory_->extents(range, extents_max);
  }
  Task<Result<void>> close() override { co_return Result<void>{}; }

 private:
  std::shared_ptr<Script> script_;
  DevicePtr memory_;
};

class StripesBitmap final : public BitmapView {
 public:
  const BitmapDescription& description() const noexcept override { return description_; }
  Task<Result<std::vector<BitmapRange>>> ranges(Range range, std::size_t ranges_max) override {
    std::vector<BitmapRange> found;
    std::uint64_t at = range.offset;
    while (at < range.end() && found.size() < ranges_max) {
      const std::uint64_t end = std::min(range.end(), align_down(at, 65536) + 65536);
      found.push_back({at, end - at, (at / 65536) % 2 == 1});
      at = end;
    }
    co_return found;
  }

 private:
  BitmapDescription description_{.name = "stripes", .granularity_bytes = 65536, .problem = {}};
};

class SessionTest : public testing::TestWithParam<ReplyStyle> {
 protected:
  void serve(ExportOptions options = {.name = "disk", .writable = true}, ServerOptions server_options = {}) {
    server.emplace(std::move(server_options));
    server->add(std::move(options), std::make_unique<ScriptedDevice>(script, memory));
    server->start();
  }
  WireClient connect() { return WireClient(server->path()); }
  WireClient enter(ReplyStyle style, const std::vector<std::string>& contexts = {}) {
    WireClient client(server->path());
    flags = client.enter("disk", style, contexts);
    return client;
  }
  std::shared_ptr<Script> script = std::make_shared<Script>();
  MemoryOptions memory{.size_bytes = disk_bytes};
  std::optional<TestServer> server;
  std::uint16_t flags = 0;
};
constexpr std::uint32_t einval = 22;
constexpr std::uint32_t enospc = 28;
constexpr std::uint32_t eperm = 1;
constexpr std::uint32_t eio = 5;
constexpr std::uint32_t enotsup = 95;

// All styles of reply.

TEST_P(SessionTest, WhatIsWrittenIsReadUpToTheOddEnd) {
  serve();
  auto client = enter(GetParam());
  EXPECT_EQ(client.size_bytes, disk_bytes) << "exact, not rounded to 512";
  const auto data = pattern(disk_bytes - 5001, 5001);
  EXPECT_EQ(client.call(Command::write, 0, disk_bytes - 5001, 5001, data), 0u);
  EXPECT_EQ(client.read(disk_bytes - 5001, 5001), data);
  EXPECT_EQ(client.read(disk_bytes - 1, 1), Bytes(data.end() - 1, data.end()));
}
TEST_P(SessionTest, LargeWritesAndReadsInOnePiece) {
  serve();
  auto client = enter(GetParam());
  const auto data = pattern(1, disk_bytes - 1);
  EXPECT_EQ(client.call(Command::write, 0, 1, data.size(), data), 0u);
  EXPECT_EQ(client.read(1, static_cast<std::uint32_t>(data.size())), data);
}
TEST_P(SessionTest, ARejectedWriteIsReadToItsEndBeforeTheReply) {
  serve();
  auto client = enter(GetParam());
  const Bytes payload(200'000, std::byte{1});
  EXPECT_EQ(client.call(Command::write, 0, disk_bytes, payload.size(), payload), enospc);
  EXPECT_EQ(client.call(Command::write, command_no_hole, 0, payload.size(), payload), einval);
  EXPECT_EQ(client.call(Command::flush, 0, 0, 0), 0u) << "the stream is still in step";
}
TEST_P(SessionTest, AReadOnlyExportRefusesEveryChange) {
  serve({.name = "disk"});
  auto client = enter(GetParam());
  EXPECT_TRUE(flags & flag_read_only);
  EXPECT_EQ(client.call(Command::write, 0, 0, 4096, Bytes(4096)), eperm);
  EXPECT_EQ(client.call(Command::trim, 0, 0, 4096), eperm);
  EXPECT_EQ(client.call(Command::write_zeroes, 0, 0, 4096), eperm);
  EXPECT_EQ(client.read(0, 4096), Bytes(4096));
}
TEST_P(SessionTest, UnknownCommandsAndFlagsAreInvalidAndTheSessionGoesOn) {
  serve();
  auto client = enter(GetParam());
  EXPECT_EQ(client.call(static_cast<Command>(99), 0, 0, 0), einval);
  EXPECT_EQ(client.call(Command::flush, 1 << 10, 0, 0), einval);
  EXPECT_EQ(client.call(Command::flush, 0, 0, 0), 0u);
}
TEST_P(SessionTest, ErrorsOfTheDeviceBecomeTheListedNumbers) {
  serve();
  auto client = enter(GetParam());
  const std::pair<ErrorKind, std::uint32_t> rows[] = {
      {ErrorKind::no_space, enospc}, {ErrorKind::io, eio},          {ErrorKind::gone, eio},
      {ErrorKind::corrupt, eio},     {ErrorKind::read_only, eperm}, {ErrorKind::timed_out, eio}};
  for (const auto& [kind, expected] : rows) {
    script->fail_with = kind;
    EXPECT_EQ(client.call(Command::write, 0, 0, 4096, Bytes(4096, std::byte{1})), expected)
        << to_string(kind);
  }
}
TEST_P(SessionTest, AReadErrorDoesNotEndTheSession) {
  serve();
  auto client = enter(GetParam());
  script->fail_with = ErrorKind::io;
  EXPECT_THROW(client.read(0, 4096), std::system_error);
  EXPECT_THROW(client.read(0, 500'000), std::system_error);
  script->fail_with.reset();
  EXPECT_EQ(client.read(0, 4096), Bytes(4096));
}
TEST_P(SessionTest, FuaIsTakenByEveryCommandAndHonoured) {
  serve();
  auto client = enter(GetParam());
  EXPECT_EQ(client.call(Command::write, command_fua, 0, 4096, Bytes(4096)), 0u);
  EXPECT_EQ(script->fua_writes, 1);
  EXPECT_EQ(client.call(Command::trim, command_fua, 0, 4096), 0u);
  EXPECT_EQ(script->flushes, 1);
  EXPECT_EQ(client.call(Command::flush, command_fua, 0, 0), 0u);
  EXPECT_EQ(client.call(Command::cache, command_fua, 0, 4096), 0u);
  EXPECT_EQ(client.read(0, 10, command_fua), Bytes(10));
}
TEST_P(SessionTest, ZeroLengthRequestsDoNotDisconnect) {
  serve();
  auto client = enter(GetParam());
  EXPECT_EQ(client.read(100, 0), Bytes());
  EXPECT_EQ(client.call(Command::write, 0, 100, 0), 0u);
  EXPECT_EQ(client.call(Command::trim, 0, 100, 0), 0u);
  EXPECT_EQ(client.call(Command::write_zeroes, 0, 100, 0), 0u);
  EXPECT_EQ(client.call(Command::cache, 0, 100, 0), 0u);
}
TEST_P(SessionTest, TrimZeroAndCacheMayExceedThePayloadLimit) {
  memory.size_bytes = 3ull << 30;
  serve();
  auto client = enter(GetParam());
  EXPECT_EQ(client.call(Command::write_zeroes, 0, 0, 3ull << 30), 0u);
  EXPECT_EQ(client.call(Command::trim, 0, 0, 3ull << 30), 0u);
  EXPECT_EQ(client.call(Command::cache, 0, 0, 3ull << 30), 0u);
  EXPECT_EQ(script->prefetches, 1);
}
TEST_P(SessionTest, NoHoleReachesTheDevice) {
  serve();
  auto client = enter(GetParam());
  EXPECT_EQ(client.call(Command::write_zeroes, command_no_hole, 0, 65536), 0u);
  EXPECT_TRUE(script->no_hole_seen);
}
TEST_P(SessionTest, FastZeroThatCannotBeFastIsNotSupportedAndChangesNothing) {
  serve();
  auto client = enter(GetParam());
  const auto data = pattern(0, 4096);
  client.call(Command::write, 0, 0, 4096, data);
  script->fail_with = ErrorKind::unsupported;
  EXPECT_EQ(client.call(Command::write_zeroes, command_fast_zero, 0, 4096), enotsup);
  script->fail_with.reset();
  EXPECT_EQ(client.read(0, 4096), data);
}
TEST_P(SessionTest, DiscFinishesWhatIsInFlightAndIsNotAnswered) {
  serve();
  auto client = enter(GetParam());
  script->hold_reads = true;
  client.send_request(Command::read, 0, 0, 512);
  ASSERT_TRUE(wait_until([&] { return script->waiting == 1; }));
  client.send_request(Command::disconnect, 0, 0, 0);
  script->gate.set();
  const auto replies = client.receive_replies();
  EXPECT_EQ(replies.back().cookie, 1u);
  if (client.style == ReplyStyle::simple) client.receive(512);
  EXPECT_TRUE(client.is_closed());
}
TEST_P(SessionTest, ManyRequestsInFlightAreAllAnswered) {
  serve();
  auto client = enter(GetParam());
  script->hold_reads = true;
  for (int i = 0; i < 400; ++i) client.send_request(Command::read, 0, 0, 16);
  ASSERT_TRUE(
      wait_until([&] { return script->waiting == static_cast<int>(Limits{}.requests_in_flight_max); }));
  script->gate.set();
  std::vector<bool> answered(401);
  for (int i = 0; i < 400; ++i) {
    const auto reply = client.receive_replies().back();
    EXPECT_EQ(reply.error, 0u);
    ASSERT_LE(reply.cookie, 400u);
    answered[reply.cookie] = true;
    if (client.style == ReplyStyle::simple) client.receive(16);
  }
  EXPECT_EQ(std::ranges::count(answered, true), 400);
}
TEST_P(SessionTest, AWrongMagicClosesOnlyThatConnection) {
  serve();
  auto good = enter(GetParam());
  auto bad = enter(GetParam());
  bad.send_bytes(Bytes(64, std::byte{0x5a}));
  EXPECT_TRUE(bad.is_closed());
  EXPECT_EQ(good.call(Command::flush, 0, 0, 0), 0u);
}
TEST_P(SessionTest, AWriteFarOverTheLimitDisconnects) {
  serve();
  auto client = enter(GetParam());
  client.send_request(Command::write, 0, 0, 0xffff'ffffu);
  EXPECT_TRUE(client.is_closed());
}
INSTANTIATE_TEST_SUITE_P(Styles, SessionTest,
                         testing::Values(ReplyStyle::simple, ReplyStyle::structured, ReplyStyle::extended),
                         [](const auto& info) {
                           return info.param == ReplyStyle::simple       ? "Simple"
                                  : info.param == ReplyStyle::structured ? "Structured"
                                                                         : "Extended";
                         });

// Rules of one style.
using RuleTest = SessionTest;

TEST_F(RuleTest, StructuredErrorsCarryText) {
  serve();
  auto client = enter(ReplyStyle::structured);
  script->fail_with = ErrorKind::io;
  client.send_request(Command::read, 0, 0, 512);
  const auto reply = client.receive_replies().back();
  EXPECT_EQ(reply.type, Chunk::error);
  const std::string text(reinterpret_cast<const char*>(reply.payload.data()), reply.payload.size());
  EXPECT_NE(text.find("as the test asked"), std::string::npos);
}
TEST_F(RuleTest, HolesAreSentAsHolesAndDfIsOneChunk) {
  serve();
  auto client = enter(ReplyStyle::structured);
  EXPECT_TRUE(flags & flag_send_df);
  auto expected = Bytes(600'000);
  fill_pattern(std::span(expected).subspan(200'000, 100), 200'000);
  client.call(Command::write, 0, 200'000, 100, pattern(200'000, 100));
  EXPECT_EQ(client.read(0, 600'000), expected);
  EXPECT_EQ(client.holes_seen, 2);
  EXPECT_EQ(client.chunks_seen, 3);
  EXPECT_EQ(client.read(0, 600'000, command_df), expected);
  EXPECT_EQ(client.chunks_seen, 1);
  EXPECT_EQ(client.read(0, 500'000 - 300'100), Bytes(199'900));
  EXPECT_EQ(client.holes_seen, 1);
}
TEST_F(RuleTest, OneStatusChunkForEachContextAndReqOneIsOneExtentNotPastTheRequest) {
  serve({.name = "disk", .writable = true, .bitmaps = {std::make_shared<StripesBitmap>()}});
  auto client = enter(ReplyStyle::structured,
                      {"base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:stripes"});
  ASSERT_EQ(client.context_ids.size(), 3u);
  client.call(Command::write, 0, 131072, 65536, pattern(131072, 65536));
  client.send_request(Command::block_status, 0, 0, 262144);
  const auto replies = client.receive_replies();
  ASSERT_EQ(replies.size(), 3u);
  std::vector<std::uint32_t> ids;
  for (const auto& reply : replies) {
    ids.push_back(load_big<std::uint32_t>(reply.payload.data()));
    EXPECT_EQ(reply.type, Chunk::block_status);
  }
  EXPECT_EQ(ids, client.context_ids);
  // base:allocation: hole 128 KiB, data 64 KiB, hole 64 KiB.
  ASSERT_EQ(replies[0].payload.size(), 4u + 3 * 8);
  EXPECT_EQ(load_big<std::uint32_t>(replies[0].payload.data() + 4), 131072u);
  EXPECT_EQ(load_big<std::uint32_t>(replies[0].payload.data() + 8), 3u);
  EXPECT_EQ(load_big<std::uint32_t>(replies[0].payload.data() + 16), 0u);
  // The bitmap: clean, dirty, clean, dirty.
  ASSERT_EQ(replies[2].payload.size(), 4u + 4 * 8);
  EXPECT_EQ(load_big<std::uint32_t>(replies[2].payload.data() + 16), state_dirty);
  client.send_request(Command::block_status, command_req_one, 0, 1000);
  for (const auto& reply : client.receive_replies()) {
    ASSERT_EQ(reply.payload.size(), 12u);
    EXPECT_LE(load_big<std::uint32_t>(reply.payload.data() + 4), 1000u);
  }
}
TEST_F(RuleTest, ExtendedStatusHas64BitLengthsAndAPayloadFilter) {
  memory.size_bytes = 1ull << 40;
  serve();
  auto client = enter(ReplyStyle::extended, {"base:allocation", "qemu:allocation-depth"});
  EXPECT_TRUE(flags & flag_block_status_payload);
  client.send_request(Command::block_status, 0, 4096, (1ull << 40) - 4096);
  auto replies = client.receive_replies();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(client.reply_offset, 4096u) << "the offset of the request";
  EXPECT_EQ(replies[0].type, Chunk::block_status_extended);
  EXPECT_EQ(load_big<std::uint32_t>(replies[0].payload.data() + 4), 1u);
  EXPECT_EQ(load_big<std::uint64_t>(replies[0].payload.data() + 8), (1ull << 40) - 4096);
  Bytes filter;
  put(filter, std::uint64_t{8192});
  put(filter, client.context_ids[1]);
  client.send_request(Command::block_status, command_payload_len, 0, filter.size(), filter);
  replies = client.receive_replies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(load_big<std::uint32_t>(replies[0].payload.data()), client.context_ids[1]);
  EXPECT_EQ(load_big<std::uint64_t>(replies[0].payload.data() + 8), 8192u);
  put(filter, std::uint32_t{4711});
  EXPECT_EQ(client.call(Command::block_status, command_payload_len, 0, filter.size(), filter), einval);
  filter.resize(100'000);
  EXPECT_EQ(client.call(Command::block_status, command_payload_len, 0, filter.size(), filter), einval);
  EXPECT_EQ(client.call(Command::flush, 0, 0, 0), 0u);
}
TEST_F(RuleTest, ExtentsOver4GiBAreClampedTo32Bits) {
  memory.size_bytes = 1ull << 40;
  serve();
  auto client = enter(ReplyStyle::structured, {"base:allocation"});
  client.send_request(Command::block_status, 0, 0, 0xffff'f000u);
  const auto reply = client.receive_replies().back();
  const auto length = load_big<std::uint32_t>(reply.payload.data() + 4);
  EXPECT_GT(length, 0u);
  EXPECT_LE(length, 0xffff'f000u);
}
TEST_F(RuleTest, StatusIsInvalidUnlessTheLastSelectionNamedThisExport) {
  serve();
  server->add({.name = "other", .writable = true}, MemoryOptions{.size_bytes = 4096});
  auto client = connect();
  client.greet();
  client.ask(Option::structured_reply);
  client.ask(Option::set_meta_context, context_data("other", {"base:allocation"}));
  client.ask(Option::go, go_data("disk"));
  client.style = ReplyStyle::structured;
  EXPECT_EQ(client.call(Command::block_status, 0, 0, 4096), einval);
}
TEST_F(RuleTest, UnalignedRequestsToADeviceWithBlocksAreInvalid) {
  memory.block_bytes = 4096;
  memory.size_bytes = 10 * 4096 + 100;
  serve();
  auto client = enter(ReplyStyle::structured);
  EXPECT_EQ(client.call(Command::write, 0, 512, 4096, Bytes(4096)), einval);
  EXPECT_EQ(client.call(Command::write, 0, 10 * 4096, 100, Bytes(100)), 0u);
}
TEST_F(RuleTest, AFlushOnOneConnectionCoversWritesOnAll) {
  serve();
  auto one = enter(ReplyStyle::structured);
  auto two = enter(ReplyStyle::structured);
  EXPECT_TRUE(flags & flag_can_multi_conn);
  const auto data = pattern(0, 4096);
  EXPECT_EQ(one.call(Command::write, 0, 0, 4096, data), 0u);
  EXPECT_EQ(two.read(0, 4096), data);
  EXPECT_EQ(two.call(Command::flush, 0, 0, 0), 0u);
  EXPECT_EQ(script->flushes, 1);
}

// A client that stalls, dies or lies.

TEST_F(RuleTest, AClientThatStallsInTheHandshakeIsLetGo) {
  ServerOptions options;
  options.limits.handshake_time = std::chrono::milliseconds(200);
  serve({.name = "disk"}, options);
  auto stalled = connect();
  stalled.receive(18);
  EXPECT_TRUE(stalled.is_closed());
  EXPECT_TRUE(wait_until([&] { return server->server->sessions() == 0; }));
}
TEST_F(RuleTest, ConnectionsOverTheLimitAreClosedAndTheOthersGoOn) {
  ServerOptions options;
  options.limits.connections_max = 2;
  serve({.name = "disk"}, options);
  auto one = enter(ReplyStyle::structured);
  auto two = enter(ReplyStyle::structured);
  auto three = connect();
  EXPECT_TRUE(three.is_closed());
  EXPECT_EQ(one.call(Command::flush, 0, 0, 0), 0u);
  two.hang_up();
  ASSERT_TRUE(wait_until([&] { return server->server->sessions() == 1; }));
  auto four = enter(ReplyStyle::structured);
  EXPECT_EQ(four.call(Command::flush, 0, 0, 0), 0u);
}
TEST_F(RuleTest, AClientThatReadsNoRepliesIsLetGoAndDisturbsNobody) {
  memory.size_bytes = 8 << 20;
  ServerOptions options;
  options.limits.stall_time = std::chrono::milliseconds(400);
  serve({.name = "disk", .writable = true}, options);
  auto greedy = enter(ReplyStyle::simple);
  auto honest = enter(ReplyStyle::simple);
  for (int i = 0; i < 64; ++i) greedy.send_request(Command::read, 0, 0, 1 << 20);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(honest.read(0, 65536).size(), 65536u);
  EXPECT_TRUE(wait_until([&] { return server->server->sessions() == 1; }));
  EXPECT_EQ(honest.call(Command::flush, 0, 0, 0), 0u);
}
TEST_F(RuleTest, AClientThatStopsInTheMiddleOfAWriteDoesNotKeepTheMemory) {
  memory.size_bytes = 8 << 20;
  ServerOptions options;
  options.limits.stall_time = std::chrono::milliseconds(400);
  options.limits.payload_memory_bytes = 8 << 20;
  options.limits.reserve_bytes = 64 << 10;
  serve({.name = "disk", .writable = true}, options);
  auto stopped = enter(ReplyStyle::simple);
  auto honest = enter(ReplyStyle::simple);
  stopped.send_request(Command::write, 0, 0, 8 << 20, Bytes(1000));
  EXPECT_EQ(honest.read(0, 4 << 20).size(), 4u << 20) << "it waits for memory, but not for ever";
  EXPECT_TRUE(stopped.is_closed());
}
TEST_F(RuleTest, AClientThatDiesInTheMiddleOfAWriteDisturbsNobody) {
  serve();
  auto honest = enter(ReplyStyle::structured);
  {
    auto dying = enter(ReplyStyle::structured);
    dying.send_request(Command::write, 0, 0, 900'000, Bytes(1000));
  }
  EXPECT_TRUE(wait_until([&] { return server->server->sessions() == 1; }));
  EXPECT_EQ(honest.read(0, 4096), Bytes(4096)) << "a torn payload is not written";
}
TEST_F(RuleTest, AClientThatDiesWithRequestsInFlightIsCleanedUp) {
  serve();
  script->hold_reads = true;
  {
    auto dying = enter(ReplyStyle::structured);
    dying.send_request(Command::read, 0, 0, 4096);
    ASSERT_TRUE(wait_until([&] { return script->waiting == 1; }));
  }
  script->gate.set();
  EXPECT_TRUE(wait_until([&] { return server->server->sessions() == 0; }));
}

// The end.

TEST_F(RuleTest, StoppingFinishesRequestsFlushesAndClosesWithoutEshutdown) {
  serve();
  auto client = enter(ReplyStyle::structured);
  script->hold_reads = true;
  client.send_request(Command::read, 0, 0, 4096);
  ASSERT_TRUE(wait_until([&] { return script->waiting == 1; }));
  std::thread stopping([&] { EXPECT_TRUE(run(server->server->stop())); });
  server->started = false;
  EXPECT_TRUE(wait_until([&] { return access(server->path().c_str(), F_OK) != 0; })) << "no more accepting";
  script->gate.set();
  EXPECT_EQ(client.receive_replies().back().error, 0u);
  EXPECT_TRUE(client.is_closed());
  stopping.join();
  EXPECT_EQ(script->flushes, 1);
}
TEST_F(RuleTest, StoppingDoesNotWaitForeverForADeviceThatHangs) {
  ServerOptions options;
  options.limits.drain_time = std::chrono::milliseconds(200);
  serve({.name = "disk", .writable = true}, options);
  auto client = enter(ReplyStyle::structured);
  script->hold_reads = true;
  client.send_request(Command::read, 0, 0, 4096);
  ASSERT_TRUE(wait_until([&] { return script->waiting == 1; }));
  EXPECT_TRUE(server->stop());
  EXPECT_TRUE(client.is_closed()) << "closed, not answered";
}
TEST_F(RuleTest, StoppingWithClientsInEveryStateIsPrompt) {
  serve();
  auto silent = connect();
  auto greeted = connect();
  greeted.greet();
  auto inside = enter(ReplyStyle::structured);
  auto torn = enter(ReplyStyle::structured);
  torn.send_request(Command::write, 0, 0, 500'000, Bytes(10));
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(server->stop());
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  EXPECT_TRUE(inside.is_closed());
}
TEST_F(RuleTest, DisconnectEndsTheSessionsOfOneExportOnly) {
  serve();
  const auto other = server->add({.name = "other"}, MemoryOptions{.size_bytes = 4096});
  auto stays = enter(ReplyStyle::structured);
  auto leaves = connect();
  leaves.enter("other", ReplyStyle::structured);
  server->server->exports().remove("other");
  must(run(server->server->disconnect(other)));
  EXPECT_TRUE(leaves.is_closed());
  EXPECT_EQ(stays.call(Command::flush, 0, 0, 0), 0u);
}
TEST_F(RuleTest, ADeviceIsSwappedUnderAConnectedClient) {
  serve();
  const auto found = server->server->exports().find("disk");
  auto client = enter(ReplyStyle::structured);
  client.call(Command::write, 0, 0, 4096, pattern(0, 4096));
  std::shared_ptr<BlockDevice> next = checked(make_memory_device({.size_bytes = disk_bytes}));
  script->hold_reads = true;
  client.send_request(Command::read, 0, 0, 4096);
  ASSERT_TRUE(wait_until([&] { return script->waiting == 1; }));
  std::shared_ptr<BlockDevice> old;
  std::thread swapping([&] { old = must(run(found->swap_device(next))); });
  script->gate.set();
  swapping.join();
  EXPECT_EQ(old, server->devices.front());
  EXPECT_EQ(client.receive_replies().back().error, 0u);
  EXPECT_EQ(client.read(0, 4096), Bytes(4096)) << "the new device";
  EXPECT_FALSE(run(found->swap_device(checked(make_memory_device({.size_bytes = 1})))));
  server->devices.push_back(next);
}

// Listeners.

TEST_F(RuleTest, AStaleUnixSocketIsReplacedAndALiveOneIsNot) {
  const TemporaryFolder folder;
  const std::string path = folder / "socket";
  const int stale = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.c_str(), path.size());
  ASSERT_EQ(bind(stale, reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
  close(stale);
  const ListenAddress address{.kind = ListenAddress::Kind::unix_socket, .path = path};
  Server first(runtime().context(), {.listen = {address}});
  must(run(first.start()));
  Server second(runtime().context(), {.listen = {address}});
  const auto refused = run(second.start());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::in_use);
  // Somebody replaced the path: it is not ours to remove.
  unlink(path.c_str());
  const int file = open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  close(file);
  must(run(first.stop()));
  EXPECT_EQ(access(path.c_str(), F_OK), 0);
}
TEST_F(RuleTest, OneClientOnAPairOfPipes) {
  int to_server[2];
  int from_server[2];
  ASSERT_EQ(pipe2(to_server, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(from_server, O_CLOEXEC), 0);
  Server pipes(runtime().context(), {.connected_in = to_server[0], .connected_out = from_server[1]});
  const auto made = must(Export::make(
      {.name = "disk"}, std::shared_ptr<BlockDevice>(checked(make_memory_device({.size_bytes = 512})))));
  must(pipes.exports().add(made));
  must(run(pipes.start()));
  Bytes hello(18);
  ASSERT_EQ(read(from_server[0], hello.data(), 18), 18);
  Bytes bytes;
  put(bytes, std::uint32_t{3});
  const Bytes go = option_bytes(Option::abort);
  bytes.insert(bytes.end(), go.begin(), go.end());
  ASSERT_EQ(write(to_server[1], bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  must(run(pipes.wait()));
  must(run(pipes.stop()));
  EXPECT_EQ(read(from_server[0], hello.data(), 18), 18);
  close(to_server[1]);
  close(from_server[0]);
}

}  // namespace
}  // namespace diskferry::test
