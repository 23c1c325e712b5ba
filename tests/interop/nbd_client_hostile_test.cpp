// The NBD client and servers that break the rules: a clear error in bounded time, never a crash, a hang or
// wrong data. Honest answers in unusual forms must be understood all the same.
#include "tests/interop/nbd_client_support.hpp"
#include "tests/interop/scripted_nbd_server.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using namespace test;
using std::chrono::seconds;
using Peer = ScriptedNbdServer::Peer;
using WireRequest = ScriptedNbdServer::Request;
using Script = ScriptedNbdServer::Script;

const std::string quick = "&connect-timeout=2&reconnect-timeout=1&stall-timeout=1";
constexpr std::uint16_t data_chunk = 1;
constexpr std::uint16_t hole_chunk = 2;
constexpr std::uint16_t status_chunk = 5;

class NbdClientHostile : public testing::Test {
 public:
  NbdClientHostile() : begun_(std::chrono::steady_clock::now()) {}
  ~NbdClientHostile() override { EXPECT_LT(std::chrono::steady_clock::now() - begun_, seconds(60)); }

 protected:
  /// What a read of [4096, 12288) from the server says; its data is checked where it succeeds.
  static Result<void> read_once(Script script) {
    ScriptedNbdServer server(std::move(script));
    OpenDevice device(server.uri(quick), {.writable = true});
    std::vector<std::byte> bytes(8192);
    DISKFERRY_CHECK(run(device->read(4096, bytes)));
    EXPECT_EQ(first_difference(bytes, 4096), SIZE_MAX);
    return {};
  }
  static Result<void> read_with(std::function<void(Peer&, const WireRequest&)> answer) {
    return read_once({.answer = [answer = std::move(answer)](Peer& peer, const WireRequest& request) {
      request.type == 0 ? answer(peer, request) : ScriptedNbdServer::answer_honestly(peer, request);
    }});
  }
  static Result<std::vector<Extent>> status_with(std::function<void(Peer&, const WireRequest&)> answer,
                                                 std::uint64_t size_bytes = 1 << 20) {
    ScriptedNbdServer server({.size_bytes = size_bytes, .answer = std::move(answer)});
    OpenDevice device(server.uri(quick));
    return run(device->extents({0, 1 << 20}, 1000));
  }

 private:
  const std::chrono::steady_clock::time_point begun_;
};

std::vector<std::byte> piece(std::uint64_t offset, std::size_t length) {
  return wire(offset) + pattern(offset, length);
}

TEST_F(NbdClientHostile, ChunksThatAreNotEveryByteOnceAreNoAnswer) {
  const std::vector<std::pair<const char*, std::function<void(Peer&, const WireRequest&)>>> cases{
      {"nothing", [](Peer& p, const WireRequest& r) { p.chunk(r, 0, {}, true); }},
      {"missing end", [](Peer& p, const WireRequest& r) { p.chunk(r, data_chunk, piece(4096, 4096), true); }},
      {"missing start",
       [](Peer& p, const WireRequest& r) { p.chunk(r, data_chunk, piece(8192, 4096), true); }},
      {"gap",
       [](Peer& p, const WireRequest& r) {
         p.chunk(r, data_chunk, piece(4096, 100), false);
         p.chunk(r, data_chunk, piece(4200, 8088), true);
       }},
      {"twice",
       [](Peer& p, const WireRequest& r) {
         p.chunk(r, data_chunk, piece(4096, 8192), false);
         p.chunk(r, data_chunk, piece(4096, 8192), true);
       }},
      {"overlap",
       [](Peer& p, const WireRequest& r) {
         p.chunk(r, data_chunk, piece(4096, 5000), false);
         p.chunk(r, hole_chunk, wire(std::uint64_t{9000}, std::uint32_t{3288}), true);
       }},
      {"overlap that makes up for a gap",
       [](Peer& p, const WireRequest& r) {
         p.chunk(r, data_chunk, piece(4096, 4096), false);
         p.chunk(r, data_chunk, piece(4096, 4096), true);
       }},
  };
  for (const auto& [name, answer] : cases) {
    const auto got = read_with(answer);
    ASSERT_FALSE(got) << name;
    EXPECT_EQ(got.error().kind(), ErrorKind::protocol) << name << ": " << got.error().message();
  }
}

TEST_F(NbdClientHostile, ChunksOutsideTheRequestNeverTouchMemory) {
  for (const auto& [offset, length] : {std::pair<std::uint64_t, std::uint32_t>{0, 8192},
                                       {4095, 8192},
                                       {4097, 8192},
                                       {4096, 8193},
                                       {UINT64_MAX, 8192},
                                       {4096, 0}}) {
    const auto data = read_with([&](Peer& p, const WireRequest& r) {
      p.chunk(r, data_chunk, wire(offset) + std::vector<std::byte>(length), true);
    });
    ASSERT_FALSE(data) << offset << " " << length;
    EXPECT_EQ(data.error().kind(), ErrorKind::protocol) << data.error().message();
    const auto hole =
        read_with([&](Peer& p, const WireRequest& r) { p.chunk(r, hole_chunk, wire(offset, length), true); });
    ASSERT_FALSE(hole) << offset << " " << length;
    EXPECT_EQ(hole.error().kind(), ErrorKind::protocol) << hole.error().message();
  }
}

TEST_F(NbdClientHostile, ChunksInAnyOrderAreAnAnswer) {
  must(read_with([](Peer& p, const WireRequest& r) {
    p.chunk(r, data_chunk, piece(10000, 2288), false);
    p.chunk(r, data_chunk, piece(4096, 4), false);
    p.chunk(r, data_chunk, piece(4100, 5900), false);
    p.chunk(r, 0, {}, true);
  }));
}

TEST_F(NbdClientHostile, AnErrorInTheMiddleOfAReadIsAnError) {
  const auto got = read_with([](Peer& p, const WireRequest& r) {
    p.chunk(r, data_chunk, piece(4096, 8192), false);
    p.chunk(r, (1 << 15) + 2, wire(std::uint32_t{5}, std::uint16_t{0}, std::uint64_t{5000}), true);
  });
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().kind(), ErrorKind::io) << got.error().message();
}

TEST_F(NbdClientHostile, AnswersWithoutSenseEndAsProtocolErrors) {
  const std::vector<std::pair<const char*, std::vector<std::byte>>> cases{
      {"magic", std::vector<std::byte>(64, std::byte{0x41})},
      {"unknown cookie", wire(std::uint32_t{0x67446698}, std::uint32_t{0}, std::uint64_t{0x1234567890})},
      {"chunk of 4 GiB", wire(std::uint32_t{0x668e33ef}, std::uint16_t{1}, std::uint16_t{1}, std::uint64_t{1},
                              std::uint32_t{0xffffffff})},
      {"extended header without asking", wire(std::uint32_t{0x6e8a278c}, std::uint16_t{1}, std::uint16_t{0},
                                              std::uint64_t{1}, std::uint64_t{0}, std::uint64_t{0})},
  };
  for (const auto& [name, bytes] : cases) {
    const auto got = read_with([&](Peer& p, const WireRequest&) {
      p.send(bytes);
      p.fall_silent();
    });
    ASSERT_FALSE(got) << name;
    EXPECT_TRUE(got.error().kind() == ErrorKind::protocol || got.error().kind() == ErrorKind::gone)
        << name << ": " << got.error().message();
  }
}

TEST_F(NbdClientHostile, ARequestThatIsNeverAnsweredEnds) {
  const auto got = read_with([](Peer& p, const WireRequest&) { p.fall_silent(); });
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().kind(), ErrorKind::gone) << got.error().message();
}

TEST_F(NbdClientHostile, TricklingBytesAreReadToTheEnd) {
  must(read_once({.trickles = true}));
}

TEST_F(NbdClientHostile, ErrorsKeepTheirMeaningAndUnknownOnesAreIo) {
  struct Row {
    std::uint32_t number;
    ErrorKind kind;
  };
  for (const auto& [number, kind] :
       {Row{1, ErrorKind::permission}, Row{5, ErrorKind::io}, Row{12, ErrorKind::io}, Row{22, ErrorKind::io},
        Row{28, ErrorKind::no_space}, Row{75, ErrorKind::io}, Row{95, ErrorKind::unsupported},
        Row{108, ErrorKind::gone}, Row{2, ErrorKind::io}, Row{107, ErrorKind::io}, Row{71, ErrorKind::io},
        Row{0x7fffffff, ErrorKind::io}, Row{0xffffffff, ErrorKind::io}}) {
    ScriptedNbdServer server({.answer = [&](Peer& peer, const WireRequest& request) {
      request.type == 1 ? peer.simple(request, number) : ScriptedNbdServer::answer_honestly(peer, request);
    }});
    OpenDevice device(server.uri(quick), {.writable = true});
    const std::vector<std::byte> data(512);
    const auto written = run(device->write(0, data, {}));
    ASSERT_FALSE(written) << number;
    EXPECT_EQ(written.error().kind(), kind) << number << ": " << written.error().message();
  }
}

TEST_F(NbdClientHostile, StatusThatBreaksTheRulesIsNotBelieved) {
  const std::vector<std::pair<const char*, std::vector<std::byte>>> cases{
      {"no extent", wire(std::uint32_t{1})},
      {"no length", wire(std::uint32_t{1}, std::uint32_t{0}, std::uint32_t{3})},
      {"no length between",
       wire(std::uint32_t{1}, std::uint32_t{512}, std::uint32_t{3}, std::uint32_t{0}, std::uint32_t{0})},
      {"beyond the end", wire(std::uint32_t{1}, std::uint32_t{1 << 20}, std::uint32_t{3}, std::uint32_t{512},
                              std::uint32_t{0})},
      {"other context", wire(std::uint32_t{77}, std::uint32_t{1 << 20}, std::uint32_t{3})},
      {"half an extent", wire(std::uint32_t{1}, std::uint32_t{1 << 20})},
      {"nothing", {}},
  };
  for (const auto& [name, payload] : cases) {
    const auto got =
        status_with([&](Peer& p, const WireRequest& r) { p.chunk(r, status_chunk, payload, true); });
    if (got && std::string_view(name) == "no length between") {
      // libnbd 1.18 and newer cut the answer there: what was said before stands.
      EXPECT_EQ(got->back().end(), 512u);
      continue;
    }
    ASSERT_FALSE(got) << name;
    EXPECT_TRUE(got.error().kind() == ErrorKind::protocol || got.error().kind() == ErrorKind::gone)
        << name << ": " << got.error().message();
  }
  const auto silent = status_with([](Peer& p, const WireRequest& r) { p.chunk(r, 0, {}, true); });
  ASSERT_FALSE(silent);
  EXPECT_EQ(silent.error().kind(), ErrorKind::protocol) << silent.error().message();
}

TEST_F(NbdClientHostile, AnOverlongLastExtentAndTooManyAreCut) {
  // Beyond what was asked, but not beyond the export: that libnbd refuses itself from 1.18 on.
  const auto overlong = must(status_with(
      [](Peer& p, const WireRequest& r) {
        p.chunk(r, status_chunk, wire(std::uint32_t{1}, std::uint32_t{0xffffffff}, std::uint32_t{3}), true);
      },
      8 * gib));
  ASSERT_EQ(overlong.size(), 1u);
  EXPECT_EQ(overlong[0].length, 1u << 20);
  const auto many = must(status_with([](Peer& p, const WireRequest& r) {
    std::vector<std::byte> extents((1 << 20) / 4 * 8);
    for (std::size_t i = 0; i < extents.size(); i += 8) {
      store_big(extents.data() + i, std::uint32_t{4});
      store_big(extents.data() + i + 4, std::uint32_t{(i / 8) % 2 == 0 ? 0u : 3u});
    }
    p.chunk(r, status_chunk, wire(std::uint32_t{1}) + extents, true);
  }));
  EXPECT_LE(many.size(), 1000u);
}

TEST_F(NbdClientHostile, AnExportOf8EiBIsRefused) {
  for (const std::uint64_t size : {std::uint64_t{1} << 63, UINT64_MAX}) {
    ScriptedNbdServer server({.size_bytes = size});
    const auto device = open_nbd(server.uri(quick));
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().kind(), ErrorKind::protocol) << device.error().message();
  }
}

TEST_F(NbdClientHostile, BlockSizesThatMakeNoSenseAreAsGoodAsNone) {
  // libnbd forgets them; what counts is that reads go on.
  for (const std::array<std::uint32_t, 3> sizes : {std::array<std::uint32_t, 3>{0, 0, 0},
                                                   {128 << 10, 128 << 10, 1 << 20},
                                                   {3, 4096, 1 << 20},
                                                   {4096, 4096, 512}})
    must(read_once({.block_sizes = sizes}));
}

TEST_F(NbdClientHostile, AnyConversationThatIsCutEndsWellOrWithAnError) {
  // At every byte of the handshake and of the answer's header, and here and there in the data.
  for (std::size_t cut = 0; cut < 4096; cut += cut < 230 ? 1 : 61) {
    ScriptedNbdServer server({.send_at_most = cut + 1, .cuts_once = true});
    auto device = open_nbd(server.uri("&connect-timeout=5&reconnect-timeout=5"));
    if (!device) {
      const ErrorKind kind = device.error().kind();
      ASSERT_TRUE(kind == ErrorKind::gone || kind == ErrorKind::protocol)
          << cut << ": " << device.error().message();
      continue;
    }
    // Once the device is open a cut is nothing: the client comes back and asks again.
    std::vector<std::byte> bytes(3000);
    must(run((*device)->read(500, bytes)));
    ASSERT_EQ(first_difference(bytes, 500), SIZE_MAX) << cut;
    must(run((*device)->close()));
  }
}

TEST_F(NbdClientHostile, ZerosTooLongForTheServerAreAskedForInPieces) {
  for (const bool discards : {false, true}) {
    std::atomic<std::uint64_t> zeroed = 0;
    std::atomic<int> refusals = 0;
    ScriptedNbdServer server(
        {.size_bytes = std::uint64_t{1} << 30, .answer = [&](Peer& peer, const WireRequest& request) {
           const bool is_too_long = request.length > 40 * mib;
           is_too_long ? refusals += 1 : static_cast<int>(zeroed += request.length);
           peer.simple(request, is_too_long ? 22 : 0);
         }});
    OpenDevice device(server.uri(quick), {.writable = true});
    const Range range{4096, (std::uint64_t{1} << 30) - 8192};
    must(discards ? run(device->discard(range)) : run(device->write_zeroes(range, {})));
    EXPECT_EQ(zeroed, range.length);
    EXPECT_LE(refusals, 6);
  }
  // Refused whatever their length: an error, after a bounded number of attempts.
  std::atomic<int> requests = 0;
  ScriptedNbdServer server(
      {.size_bytes = std::uint64_t{1} << 30, .answer = [&](Peer& peer, const WireRequest& request) {
         ++requests;
         peer.simple(request, 22);
       }});
  OpenDevice device(server.uri(quick), {.writable = true});
  const auto refused = run(device->write_zeroes({0, std::uint64_t{1} << 30}, {}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::io) << refused.error().message();
  EXPECT_LE(requests, 20);
}

}  // namespace
}  // namespace diskferry
