// The storage behind an export is replaced while clients write to it: what each sector may hold is known, and
// held against what is read, through the export and from the storage itself.
#include "tests/e2e/replace_place.hpp"

namespace diskferry::test {
namespace {

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

/// An NBD server tells how large its disk is to those alone who open it.
TEST(Replace, GoesToAnNbdServer) {
  Place place;
  const std::string image = place.images / "there.raw";
  std::ofstream(image).close();
  std::filesystem::resize_file(image, disk_bytes + mib);
  const std::string socket = place.images / "there";
  ChildProcess server({"qemu-nbd", "-k", socket, "-f", "raw", "-t", "-e", "8", image});
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(socket); }));
  place.replace("nbd+unix:///?socket=" + socket, {"--overwrite"});
  EXPECT_TRUE(place.write_on());
  // Such a storage is its server's to remove, and that is told.
  const std::string away = place.replace(place.images / "away.raw", {"--remove-source"});
  EXPECT_NE(away.find("left over: the old storage of vm: nbd+unix:"), std::string::npos) << away;
  place.replace("nbd+unix:///?socket=" + socket, {"--overwrite", "--max-write-latency", "20ms"});
  EXPECT_TRUE(place.write_on());
  place.clients.end();
  EXPECT_EQ(place.clients.check(place.daemon.uri("vm")), "");
  EXPECT_EQ(place.daemon.end(), 0);
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(std::chrono::seconds(30)), 0);
  EXPECT_EQ(place.clients.check("file://" + image), "");
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
  EXPECT_NE(good.out.find((place.images / "next.raw") + " (raw), 48.0 MiB, will be made\n"),
            std::string::npos)
      << good.out;
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
  EXPECT_NE(running.find(fmt::format("vm: {} (raw) -> {} (raw), 48.0 MiB, made by the job", place.first,
                                     place.images / "next.raw")),
            std::string::npos)
      << running;
  EXPECT_NE(running.find("rate 4.0 MiB/s, "), std::string::npos) << running;
  EXPECT_EQ(running.find('{'), std::string::npos) << "a document for programs: " << running;
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
  EXPECT_TRUE(place.comes_to(job, "status", "cancelled"));
  EXPECT_NE(place.field(job, "error").find("it was cancelled, and the old storage"), std::string::npos);
  for (const auto& told : std::vector<std::vector<std::string>>{{"cancel", job},
                                                                {"fallback", job},
                                                                {"resume", job},
                                                                {"commit", job},
                                                                {"set", job, "--rate", "0"}}) {
    const auto refused = place.daemon.ask(told);
    EXPECT_EQ(refused.exit_code, 3) << told.front();
    EXPECT_NE(refused.err.find("diskferry status " + job + " tells how"), std::string::npos) << refused.err;
  }
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
    EXPECT_EQ(ran.exit_code, 3) << ran.err;
    EXPECT_NE((ran.err + ran.out).find(why), std::string::npos) << ran.err << ran.out;
  };
  refused("none", place.images / "x.raw", "no export of this name");
  refused("vm", there, "exists; give --overwrite to replace its content, or name another target\n");
  refused("vm", place.first, "exists");
  refused("vm", place.images / "none/x.raw", "No such file");
  const auto misnamed = place.daemon.ask({"plan", "replace", "vm", place.images / "x.vmdk"});
  EXPECT_EQ(misnamed.exit_code, 2) << misnamed.out;
  EXPECT_NE(misnamed.err.find("say -O raw or -O qcow2"), std::string::npos) << misnamed.err;
  EXPECT_EQ(text_of(there), "content");
  EXPECT_NE(place.daemon.ask({"exports"}).out.find(place.first), std::string::npos);
}

}  // namespace
}  // namespace diskferry::test
