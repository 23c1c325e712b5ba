// The storage behind an export is replaced while clients write to it: what each sector may hold is known, and
// held against what is read, through the export and from the storage itself.
#include "diskferry/image_uri.hpp"
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/registry.hpp"
#include "tests/e2e/daemon_program.hpp"
#include "tests/support/sector_model.hpp"

#include <atomic>
#include <fmt/format.h>
#include <random>

namespace diskferry::test {
namespace {

constexpr std::uint64_t disk_bytes = 48 * mib;

/// Clients of an export that write, zero, discard, flush and read at random until they are told to end.
class Clients {
 public:
  /// Without `flushes` they live through a server that is killed: this client takes the loss of a connection
  /// for that of what was not flushed, which a killed process does not lose.
  Clients(const std::string& uri, unsigned count, bool flushes)
      : flushes_(flushes),
        model_(disk_bytes, 0, SectorModel::InFlight::may_be_torn),
        group_(runtime().reactor(0)) {
    // A daemon that is started anew is a wait and no error.
    const auto named = must(ImageUri::parse(uri + "&reconnect-timeout=60"));
    device_ = must(run(open_storage(runtime().context(), named, {.writable = true})));
    for (unsigned i = 0; i < count; ++i) group_.spawn_on(runtime().reactor(i), work(i + 1));
  }
  ~Clients() {
    if (!has_ended_) end();
  }
  Clients(const Clients&) = delete;
  Clients& operator=(const Clients&) = delete;

  void end() {
    has_ended_ = true;
    ends_ = true;
    must(run(group_.join()));
    if (flushes_) must(run(device_->flush()));
    must(run(device_->close()));
    for (const std::string& problem : problems_) ADD_FAILURE() << problem;
  }
  std::uint64_t writes() const { return writes_; }
  /// Reads a disk, from wherever, and says what is wrong with it.
  std::string check(const std::string& uri) {
    const auto device = must(run(open_storage(runtime().context(), must(ImageUri::parse(uri)), {})));
    std::vector<std::byte> bytes(disk_bytes);
    must(run(device->read(0, bytes)));
    must(run(device->close()));
    return model_.check(bytes, 0, model_.now());
  }

 private:
  Task<Result<void>> work(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    while (!ends_) {
      const std::uint64_t sectors = disk_bytes / sector_bytes;
      const std::uint64_t first = random() % (random() % 2 == 0 ? sectors : sectors / 64);
      const std::uint64_t count = std::min(sectors - first, 1 + random() % (random() % 4 == 0 ? 512 : 16));
      const Range range{first * sector_bytes, count * sector_bytes};
      const auto what = random() % 16;
      if (what < 10) {
        co_await write(range, flushes_ && random() % 8 == 0);
      } else if (what < 12) {
        co_await zero(range);
      } else if (what < 15) {
        co_await read(range);
      } else if (flushes_) {
        note(co_await device_->flush(), "flush");
      }
    }
    co_return Result<void>{};
  }
  Task<void> write(Range range, bool fua) {
    const std::uint64_t content = 100 + ++contents_;
    std::vector<std::byte> bytes(range.length);
    fill_sectors(bytes, content, range.offset / sector_bytes);
    const auto token = model_.begin(range, content);
    const auto done = co_await device_->write(range.offset, bytes, {.fua = fua});
    if (done) model_.end(token);
    note(done, "write");
    ++writes_;
  }
  Task<void> zero(Range range) {
    const auto token = model_.begin(range, 0);
    const auto done = co_await device_->write_zeroes(range, {});
    if (done) model_.end(token);
    note(done, "zero");
  }
  Task<void> read(Range range) {
    std::vector<std::byte> bytes(range.length);
    const auto since = model_.now();
    const auto done = co_await device_->read(range.offset, bytes);
    note(done, "read");
    if (done) report(model_.check(bytes, range.offset, since));
  }
  void note(const Result<void>& result, const std::string& verb) {
    if (!result) report(verb + ": " + result.error().message());
  }
  void report(const std::string& problem) {
    if (problem.empty()) return;
    std::lock_guard lock(guard_);
    if (problems_.size() < 5) problems_.push_back(problem);
  }

  const bool flushes_;
  SectorModel model_;
  DevicePtr device_;
  std::mutex guard_;
  std::vector<std::string> problems_;
  std::atomic<std::uint64_t> contents_ = 0;
  std::atomic<std::uint64_t> writes_ = 0;
  std::atomic<bool> ends_ = false;
  bool has_ended_ = false;
  TaskGroup group_;
};

/// A daemon with one export that clients write to.
struct Place {
  enum class Gateway : std::uint8_t { stays, is_killed };
  explicit Place(Gateway gateway = Gateway::stays, const std::string& format = "raw")
      : first(images / ("first." + format)),
        daemon((tool({"qemu-img", "create", "-q", "-f", format, first, std::to_string(disk_bytes)}),
                export_table("vm", first, "format = \"" + format + "\"\nwritable = true\n"))),
        clients(daemon.uri("vm"), 4, gateway == Gateway::stays) {}

  bool write_on(std::uint64_t more = 50) const {
    return wait_until([&, before = clients.writes()] { return clients.writes() >= before + more; },
                      std::chrono::seconds(60));
  }
  std::string replace(const std::string& target, std::vector<std::string> more = {}) const {
    // A busy machine may take its time over what is held.
    more.insert(more.begin(), {"replace", "vm", target, "--progress", "none", "--max-pause", "5000"});
    const auto ran = daemon.ask(more);
    EXPECT_EQ(ran.exit_code, 0) << ran.err << text_of(daemon.log());
    return ran.out;
  }
  std::string status(const std::string& job) const {
    return std::string(parse_json(daemon.ask({"status", job, "--json"}).out).at("phase").as_string());
  }

  TemporaryFolder images;
  std::string first;
  Daemon daemon;
  Clients clients;
};

TEST(Replace, ClientsWriteOnWhileTheirStorageMovesForthAndBack) {
  Place place;
  std::string at = place.first;
  for (unsigned i = 0; i < 6; ++i) {
    EXPECT_TRUE(place.write_on());
    const std::string next = place.images / fmt::format("next{}.{}", i, i % 2 == 0 ? "qcow2" : "raw");
    const std::string out = place.replace(next, {"--remove-source"});
    EXPECT_NE(out.find("done (released)"), std::string::npos) << out;
    EXPECT_FALSE(std::filesystem::exists(at));
    at = next;
  }
  EXPECT_TRUE(place.write_on());
  place.clients.end();
  EXPECT_EQ(place.clients.check(place.daemon.uri("vm")), "");
  EXPECT_EQ(place.daemon.end(), 0);
  EXPECT_EQ(place.clients.check("file://" + at), "");
}

TEST(Replace, IsThereAfterARestart) {
  Place place(Place::Gateway::is_killed);
  const std::string next = place.images / "next.raw";
  place.replace(next);
  EXPECT_TRUE(place.write_on());
  place.daemon.process().kill();
  place.daemon.start();
  EXPECT_TRUE(place.write_on());
  place.clients.end();
  EXPECT_NE(place.daemon.ask({"exports"}).out.find(next), std::string::npos);
  EXPECT_EQ(place.daemon.end(), 0);
  EXPECT_EQ(place.clients.check("file://" + next), "");
}

TEST(Replace, AConfigurationThatIsChangedAfterwardsCounts) {
  Place place;
  const std::string next = place.images / "next.raw";
  const std::string other = place.images / "other.raw";
  place.replace(next);
  place.clients.end();
  EXPECT_EQ(place.daemon.end(), 0);
  std::filesystem::copy_file(next, other);
  std::string text = text_of(place.daemon.config());
  text.replace(text.find(place.first), place.first.size(), other);
  std::ofstream(place.daemon.config()) << text;
  place.daemon.start();
  EXPECT_NE(place.daemon.ask({"exports"}).out.find(other), std::string::npos);
  EXPECT_NE(text_of(place.daemon.log()).find("was replaced by"), std::string::npos);
}

TEST(Replace, APlanTellsWhatStandsInTheWay) {
  Place place;
  const auto good = place.daemon.ask({"plan", "replace", "vm", place.images / "next.raw"});
  EXPECT_EQ(good.exit_code, 0) << good.err;
  EXPECT_FALSE(std::filesystem::exists(place.images / "next.raw"));
  const auto bad =
      place.daemon.ask({"plan", "replace", "vm", place.first, "none", place.images / "x.raw", "--json"});
  EXPECT_EQ(bad.exit_code, 3) << bad.err;
  EXPECT_EQ(parse_json(bad.out).at("blockers").as_array().size(), 2u) << bad.out;
  // The export is whose it was.
  place.replace(place.images / "next.raw");
  EXPECT_TRUE(place.write_on());
}

TEST(Replace, GoesOnWhereAKilledGatewayLeftIt) {
  Place place(Place::Gateway::is_killed);
  const std::string next = place.images / "next.raw";
  const auto begun = place.daemon.ask({"replace", "vm", next, "--rate", "4M", "--retain", "600", "--detach",
                                       "--max-pause", "5000", "--commit-by-hand"});
  ASSERT_EQ(begun.exit_code, 0) << begun.err;
  const std::string job = begun.out.substr(0, begun.out.find('\n'));
  for (unsigned i = 0; i < 4; ++i) {
    EXPECT_TRUE(place.write_on());
    place.daemon.process().kill();
    place.daemon.start();
  }
  EXPECT_EQ(place.daemon.ask({"set", job, "--rate", "0"}).exit_code, 0);
  EXPECT_TRUE(wait_until([&] { return place.status(job) == "synchronized"; }, std::chrono::seconds(60)))
      << text_of(place.daemon.log());
  EXPECT_EQ(place.daemon.ask({"commit", job}).exit_code, 0);
  EXPECT_TRUE(wait_until([&] { return place.status(job) == "retained"; }, std::chrono::seconds(60)))
      << text_of(place.daemon.log());
  EXPECT_TRUE(place.write_on());
  place.daemon.process().kill();
  place.daemon.start();
  EXPECT_TRUE(place.write_on());
  EXPECT_EQ(place.daemon.ask({"commit", job}).exit_code, 0);
  EXPECT_TRUE(wait_until([&] { return place.status(job) == "released"; }, std::chrono::seconds(60)))
      << text_of(place.daemon.log());
  place.clients.end();
  EXPECT_EQ(place.daemon.end(), 0);
  EXPECT_EQ(place.clients.check("file://" + next), "");
}

TEST(Replace, TellsHowItsDisksStand) {
  Place place;
  const auto begun = place.daemon.ask({"replace", "vm", place.images / "next.raw", "--rate", "4M", "--detach",
                                       "--max-pause", "5000", "--commit-by-hand"});
  ASSERT_EQ(begun.exit_code, 0) << begun.err;
  const std::string job = begun.out.substr(0, begun.out.find('\n'));
  const std::string seen = place.images / "seen";
  ChildProcess watch(
      {DISKFERRY_PROGRAM, "watch", job, "--progress", "bar", "--gateway", "unix:" + place.daemon.control()},
      seen);
  for (const char* word :
       {"vm: frontier ", ", dirty ", ", resent ", "  guest ", "/s, added p50 ", " p99 ", ", bounded"})
    EXPECT_TRUE(wait_until([&] { return text_of(seen).find(word) != std::string::npos; }))
        << word << text_of(seen);
  const std::string running = place.daemon.ask({"status", job}).out;
  EXPECT_NE(running.find("vm: frontier "), std::string::npos) << running;
  EXPECT_EQ(place.daemon.ask({"set", job, "--rate", "0"}).exit_code, 0);
  EXPECT_EQ(place.daemon.ask({"commit", job}).exit_code, 0);
  EXPECT_EQ(watch.wait(std::chrono::seconds(60)), 0) << text_of(seen);
  EXPECT_NE(text_of(seen).find("  end  released\n"), std::string::npos) << text_of(seen);
  EXPECT_NE(text_of(seen).find("\nwrites held: "), std::string::npos) << text_of(seen);
  const std::string ended = place.daemon.ask({"status", job}).out;
  EXPECT_NE(ended.find("writes held: "), std::string::npos) << ended;
}

TEST(Replace, FallsBackToWhatWasKeptInStep) {
  Place place;
  const std::string next = place.images / "next.raw";
  const auto begun =
      place.daemon.ask({"replace", "vm", next, "--retain", "600", "--detach", "--max-pause", "5000"});
  const std::string job = begun.out.substr(0, begun.out.find('\n'));
  EXPECT_TRUE(wait_until([&] { return place.status(job) == "retained"; }, std::chrono::seconds(60)))
      << text_of(place.daemon.log());
  EXPECT_TRUE(place.write_on(200));
  EXPECT_EQ(place.daemon.ask({"fallback", job}).exit_code, 0);
  EXPECT_TRUE(wait_until([&] { return place.status(job) == "aborted"; }, std::chrono::seconds(60)))
      << text_of(place.daemon.log());
  EXPECT_TRUE(place.write_on());
  place.clients.end();
  EXPECT_EQ(place.daemon.end(), 0);
  EXPECT_EQ(place.clients.check("file://" + place.first), "");
  EXPECT_FALSE(std::filesystem::exists(next));
}

TEST(Replace, ACancelledOneLeavesTheOldStorage) {
  Place place;
  const std::string next = place.images / "next.raw";
  const auto begun =
      place.daemon.ask({"replace", "vm", next, "--rate", "1M", "--detach", "--max-pause", "5000"});
  const std::string job = begun.out.substr(0, begun.out.find('\n'));
  EXPECT_TRUE(place.write_on());
  EXPECT_EQ(place.daemon.ask({"cancel", job}).exit_code, 0);
  EXPECT_TRUE(wait_until([&] { return place.status(job) == "aborted"; }, std::chrono::seconds(60)));
  EXPECT_TRUE(place.write_on());
  place.clients.end();
  EXPECT_FALSE(std::filesystem::exists(next));
  EXPECT_EQ(place.daemon.end(), 0);
  EXPECT_EQ(place.clients.check("file://" + place.first), "");
}

TEST(Replace, WhatCannotBeIsRefusedBeforeAnythingIsChanged) {
  Place place;
  place.clients.end();
  const std::string there = place.images / "there.raw";
  std::ofstream(there) << "content";
  const auto refused = [&](const std::string& name, const std::string& target, const std::string& why) {
    const auto ran = place.daemon.ask({"replace", name, target, "--progress", "none"});
    EXPECT_NE(ran.exit_code, 0);
    EXPECT_NE((ran.err + ran.out).find(why), std::string::npos) << ran.err << ran.out;
  };
  refused("none", place.images / "x.raw", "no export of this name");
  refused("vm", there, "exists");
  refused("vm", place.first, "exists");
  refused("vm", place.images / "none/x.raw", "No such file");
  EXPECT_EQ(text_of(there), "content");
  EXPECT_NE(place.daemon.ask({"exports"}).out.find(place.first), std::string::npos);
}

}  // namespace
}  // namespace diskferry::test
