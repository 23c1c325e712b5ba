// Storage that fails under a replacement: a target that is full, and an old storage that cannot be read at a
// place. Clients go on, the job tells what is wrong and what to do, and that is true.
#include "drivers/filters/fault.hpp"
#include "tests/e2e/replace_place.hpp"
#include "tests/support/small_file_system.hpp"
#include "tests/unit/nbd/test_server.hpp"

#include <array>

namespace diskferry::test {
namespace {

// --- a target that is full --------------------------------------------------------------------------------

TEST(ReplaceFaults, ATargetThatIsFullPausesAndGoesOnWhenThereIsRoom) {
  const SmallFileSystem small("64M");
  if (!small.is_mounted()) GTEST_SKIP() << "needs root, for a small tmpfs";
  const std::string ballast = small / "ballast";
  std::ofstream(ballast) << std::string(40 * mib, 'x');
  const TemporaryFolder images;
  const std::string first = images / "first.raw";
  make_full_disk(first);
  Place place(first, {.initial = unwritten});
  const std::string next = small / "next.raw";
  const std::string job = place.begin(next, {"--max-write-latency", "50"});
  ASSERT_TRUE(place.comes_to(job, "status", "paused"));
  const std::string told = place.field(job, "error");
  EXPECT_NE(told.find("make room there, then diskferry resume " + job), std::string::npos) << told;
  EXPECT_NE(told.find(next), std::string::npos) << told;
  EXPECT_TRUE(place.write_on());
  // Nothing has changed: it is told again.
  place.tell({"resume", job});
  const auto is_told_again = [&] {
    const auto seen = place.job(job).as_object();  // both at one time
    return seen.at("status") == "paused" && seen.contains("error");
  };
  ASSERT_TRUE(wait_until(is_told_again, std::chrono::seconds(60)));
  EXPECT_TRUE(place.write_on());
  std::filesystem::remove(ballast);
  place.tell({"resume", job});
  EXPECT_TRUE(place.comes_to(job, "phase", "released"));
  EXPECT_TRUE(place.write_on());
  place.clients.end();
  // No write has waited for the target beyond its 50 ms; the rest is what a busy machine makes of it.
  EXPECT_LT(place.clients.longest_write(), std::chrono::seconds(5));
  EXPECT_EQ(place.daemon.end(), 0);
  EXPECT_EQ(place.clients.check("file://" + next), "");
}

// --- a server that forgets --------------------------------------------------------------------------------

TEST(ReplaceFaults, AServerThatIsKilledUnderClientsIsAWaitAndNoErrorOfTheirFlushes) {
  const TemporaryFolder folder;
  const std::string images[] = {folder / "first.raw", folder / "next.raw"};
  const std::string sockets[] = {folder / "first", folder / "next"};
  std::array<std::unique_ptr<ChildProcess>, 2> servers;
  const auto serve = [&](std::size_t which) {
    std::filesystem::remove(sockets[which]);
    servers[which] = std::make_unique<ChildProcess>(std::vector<std::string>{
        "qemu-nbd", "-k", sockets[which], "-f", "raw", "-t", "-e", "8", "--discard=unmap", images[which]});
    ASSERT_TRUE(wait_until([&] { return accepts_connections(sockets[which]); }));
  };
  make_full_disk(images[0]);
  std::ofstream(images[1]).close();
  std::filesystem::resize_file(images[1], disk_bytes);
  serve(0);
  serve(1);
  Place place("nbd+unix:///?socket=" + sockets[0], {.initial = unwritten});
  const auto kill = [&](std::size_t which) {
    EXPECT_TRUE(place.write_on());
    servers[which]->kill();
    serve(which);
    EXPECT_TRUE(place.write_on(200));  // with flushes among them
  };
  for (int i = 0; i < 3; ++i) kill(0);
  // Whoever is in charge is kept, and that changes with the places.
  const std::string job =
      place.begin("nbd+unix:///?socket=" + sockets[1], {"--overwrite", "--retain", "600"});
  EXPECT_TRUE(place.comes_to(job, "phase", "retained"));
  for (int i = 0; i < 3; ++i) kill(1);
  place.tell({"fallback", job});
  EXPECT_TRUE(place.comes_to(job, "phase", "aborted"));
  kill(0);
  place.clients.end();
  EXPECT_EQ(place.daemon.end(), 0);
  EXPECT_NE(text_of(place.daemon.log()).find(sockets[1] + " was lost and is open again; "), std::string::npos)
      << text_of(place.daemon.log());
  servers[0]->stop();
  EXPECT_EQ(place.clients.check("file://" + images[0]), "");
}

// --- an old storage that cannot be read -------------------------------------------------------------------

constexpr Range bad{1 * mib + 4096, 1024};  // two sectors
constexpr Range area{8 * mib, disk_bytes - 8 * mib};

/// A disk behind a server, of which two sectors cannot be read.
struct BadDisk {
  BadDisk() {
    memory = checked(make_memory_device({.size_bytes = disk_bytes}));
    must(run(memory->write(0, full_disk(), {})));
    server.add({.name = "disk", .writable = true},
               make_fault_device(memory, faults, runtime().context().clock));
    faults->add({.verb = FaultVerb::read, .error = ErrorKind::io, .range = bad});
    server.start();
  }
  void heal() { faults->clear(); }

  std::shared_ptr<BlockDevice> memory;
  std::shared_ptr<FaultControl> faults = std::make_shared<FaultControl>(FaultPlan{});
  TestServer server;
};

struct BadPlace {
  BadDisk disk;
  Place place{disk.server.uri("disk"), {.area = area, .initial = unwritten}};
  std::string next = place.images / "next.raw";

  boost::json::array unreadable(const std::string& job) const {
    const auto found = place.job(job);
    const auto* disks = found.at("state").as_object().if_contains("disks");
    return disks == nullptr || disks->as_array().empty() ? boost::json::array{}
                                                         : disks->at(0).at("unreadable").as_array();
  }
  bool lists(const std::string& job, std::vector<Range> wanted) const {
    boost::json::array all;
    for (const Range one : wanted)
      all.push_back(boost::json::object{{"offset", one.offset}, {"length", one.length}});
    return wait_until([&] { return unreadable(job) == all; }, std::chrono::seconds(60));
  }
  /// What the new storage holds beside the bad place is what clients wrote.
  std::vector<std::byte> check_rest() {
    place.clients.end();
    EXPECT_EQ(place.daemon.end(), 0);
    auto bytes = Clients::bytes_of("file://" + next);
    EXPECT_EQ(place.clients.check(bytes, {0, bad.offset}), "");
    EXPECT_EQ(place.clients.check(bytes, {bad.end(), disk_bytes - bad.end()}), "");
    return bytes;
  }
};

TEST(ReplaceFaults, APlaceThatCannotBeReadPausesAndAWriteRestoresIt) {
  BadPlace all;
  Place& place = all.place;
  const std::string job = place.begin(all.next);
  ASSERT_TRUE(place.comes_to(job, "status", "paused"));
  const std::string told = place.field(job, "error");
  EXPECT_NE(told.find(fmt::format("at offset {}, length 512", bad.offset)), std::string::npos) << told;
  EXPECT_NE(told.find(all.disk.server.path()), std::string::npos) << told;
  EXPECT_NE(told.find("--on-read-error skip"), std::string::npos) << told;
  EXPECT_TRUE(place.write_on());
  place.clients.write_once(bad);
  all.disk.heal();
  place.tell({"resume", job});
  EXPECT_TRUE(place.comes_to(job, "phase", "released"));
  EXPECT_TRUE(place.write_on());
  const auto bytes = all.check_rest();
  EXPECT_EQ(place.clients.check(bytes, bad), "");
}

TEST(ReplaceFaults, APlaceThatIsSkippedIsListedAndZerosAlsoAfterACrash) {
  BadPlace all;
  Place& place = all.place;
  const std::string job = place.begin(all.next, {"--on-read-error", "skip", "--rate", "4M"});
  EXPECT_TRUE(all.lists(job, {bad}));
  place.clients.end();
  place.daemon.process().kill();
  place.daemon.start();
  place.tell({"set", job, "--rate", "0"});
  EXPECT_TRUE(place.comes_to(job, "phase", "released"));
  const auto report = place.job(job).at("report").at("unreadable").as_array();
  ASSERT_EQ(report.size(), 1u);
  EXPECT_EQ(report[0].at("offset").to_number<std::uint64_t>(), bad.offset);
  EXPECT_EQ(report[0].at("length").to_number<std::uint64_t>(), bad.length);
  const auto bytes = all.check_rest();
  EXPECT_TRUE(std::ranges::all_of(std::span(bytes).subspan(bad.offset, bad.length),
                                  [](std::byte one) { return one == std::byte{0}; }));
}

TEST(ReplaceFaults, WhatWasSkippedAndIsWrittenToIsNotLost) {
  BadPlace all;
  Place& place = all.place;
  const std::string job = place.begin(all.next, {"--on-read-error", "skip", "--commit-by-hand"});
  ASSERT_TRUE(place.comes_to(job, "phase", "synchronized"));
  EXPECT_TRUE(all.lists(job, {bad}));
  // Without leave to skip, what was skipped is in the way again.
  place.tell({"set", job, "--on-read-error", "stop"});
  ASSERT_TRUE(place.comes_to(job, "status", "paused"));
  place.tell({"set", job, "--on-read-error", "skip"});
  place.tell({"resume", job});
  EXPECT_TRUE(all.lists(job, {bad}));
  const Range first{bad.offset, 512};
  place.clients.write_once(first);
  all.disk.heal();
  all.disk.faults->add({.verb = FaultVerb::read, .error = ErrorKind::io, .range = {first.end(), 512}});
  EXPECT_TRUE(all.lists(job, {{first.end(), 512}}));
  place.tell({"commit", job});
  EXPECT_TRUE(place.comes_to(job, "phase", "released"));
  const auto bytes = all.check_rest();
  EXPECT_EQ(place.clients.check(bytes, first), "");
}

TEST(ReplaceFaults, APlaceThatCannotBeReadUndoesAJobThatIsToldSo) {
  BadPlace all;
  Place& place = all.place;
  const std::string job = place.begin(all.next, {"--on-read-error", "abort"});
  EXPECT_TRUE(place.comes_to(job, "phase", "aborted"));
  EXPECT_EQ(place.field(job, "status"), "rolled-back");
  EXPECT_NE(place.field(job, "error").find(fmt::format("at offset {}, length 512", bad.offset)),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(all.next));
  EXPECT_TRUE(place.write_on());
  place.clients.end();
}

}  // namespace
}  // namespace diskferry::test
