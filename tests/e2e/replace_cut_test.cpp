// A target at another place, of which the connection falls silent right at the commit: at the flush before
// guests are held, at the one while they are, and at the first write after it.
#include "tests/e2e/replace_place.hpp"
#include "tests/support/proxy.hpp"
#include "tests/unit/nbd/test_server.hpp"

namespace diskferry::test {
namespace {

constexpr std::uint16_t nbd_write = 1;
constexpr std::uint16_t nbd_flush = 3;

enum class Network : std::uint8_t { unix_socket, tcp };

/// A storage behind a server, reached by way of a proxy.
struct RemoteTarget {
  explicit RemoteTarget(Network network)
      : proxy(network == Network::tcp ? std::make_unique<Proxy>(Proxy::OnTcp{}, server.path())
                                      : std::make_unique<Proxy>(folder / "proxy", server.path())) {
    server.add({.name = "disk", .writable = true}, MemoryOptions{.size_bytes = disk_bytes});
    server.start();
    proxy->is_silent_from = [this](std::uint16_t type) {
      if (!is_armed) return false;
      if (type == nbd_flush) ++flushes;
      return type == wanted && flushes >= wanted_flushes && is_armed.exchange(false);
    };
  }
  std::string uri() const {
    const std::string patience = "stall-timeout=1&reconnect-timeout=30";
    if (proxy->port() != 0) return fmt::format("nbd://127.0.0.1:{}/disk?{}", proxy->port(), patience);
    return fmt::format("nbd+unix:///disk?socket={}&{}", folder / "proxy", patience);
  }
  /// The next request of that type, when there have been so many flushes from now on.
  void cut_at(std::uint16_t type, unsigned flushes_before) {
    wanted = type;
    wanted_flushes = flushes_before;
    flushes = 0;
    is_armed = true;
  }
  bool is_cut() const {
    return wait_until([&] { return !is_armed.load(); }, std::chrono::seconds(60));
  }
  void heal() {
    proxy->silence(false);
    proxy->cut_all();
  }

  TemporaryFolder folder;
  TestServer server;
  std::unique_ptr<Proxy> proxy;
  std::atomic<bool> is_armed = false;
  std::atomic<std::uint16_t> wanted = 0;
  std::atomic<unsigned> wanted_flushes = 0;
  std::atomic<unsigned> flushes = 0;
};

struct CutCase {
  std::string name;
  std::uint16_t type;
  unsigned flushes_before;
  Network network = Network::unix_socket;
};
void PrintTo(const CutCase& one, std::ostream* to) {
  *to << one.name;
}
class ReplaceCut : public testing::TestWithParam<CutCase> {};

TEST_P(ReplaceCut, LosesNothingAndEnds) {
  RemoteTarget target(GetParam().network);
  const bool is_before = GetParam().type == nbd_flush;
  // A server whose connection was lost with writes that were not flushed fails every flush from then on.
  Place place(is_before ? Place::Gateway::stays : Place::Gateway::is_killed);
  const std::string job = place.begin(
      target.uri(), {"--commit-by-hand", "--overwrite", "--retain", "0", "--max-write-latency", "50"});
  ASSERT_TRUE(place.comes_to(job, "phase", "synchronized"));
  target.cut_at(GetParam().type, GetParam().flushes_before);
  place.tell({"commit", job});
  ASSERT_TRUE(target.is_cut());
  // Before the commit the old storage serves them, whatever became of the target.
  if (is_before) EXPECT_TRUE(place.write_on());
  const auto old_then = text_of(place.first);
  target.heal();
  // It may rest, because what was sent and not flushed may be lost at the target.
  EXPECT_TRUE(wait_until(
      [&] {
        if (place.field(job, "status") == "paused") place.tell({"resume", job});
        return place.field(job, "phase") == "released";
      },
      std::chrono::seconds(60)))
      << text_of(place.daemon.log());
  EXPECT_TRUE(place.write_on());
  place.clients.end();
  // After it nothing came to the old one.
  if (!is_before) EXPECT_EQ(text_of(place.first), old_then);
  EXPECT_EQ(place.clients.check(place.daemon.uri("vm")), "");
  const int exit_code = place.daemon.end();
  // It ends with a flush, too.
  if (is_before) EXPECT_EQ(exit_code, 0);
  EXPECT_EQ(place.clients.check(target.server.uri("disk")), "");
}

INSTANTIATE_TEST_SUITE_P(At, ReplaceCut,
                         testing::Values(CutCase{"TheFlushBefore", nbd_flush, 1},
                                         CutCase{"TheFlushWhileTheyAreHeld", nbd_flush, 2},
                                         CutCase{"TheFirstWriteAfter", nbd_write, 2},
                                         CutCase{"TheFlushBeforeOverTcp", nbd_flush, 1, Network::tcp},
                                         CutCase{"TheFlushWhileTheyAreHeldOverTcp", nbd_flush, 2,
                                                 Network::tcp},
                                         CutCase{"TheFirstWriteAfterOverTcp", nbd_write, 2, Network::tcp}),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace diskferry::test
