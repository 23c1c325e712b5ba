// Limits of a replacement that are changed while it runs, and the time at which it changes places.
#include "drivers/support/wall_clock.hpp"
#include "tests/e2e/replace_place.hpp"

namespace diskferry::test {
namespace {

TEST(ReplaceLimits, WhatIsSetHoldsAlsoAfterARestart) {
  Place place(Place::Gateway::is_killed);
  const std::string job =
      place.begin(place.images / "next.raw", {"--rate", "2M", "--deadline", "3600", "--commit-by-hand"});
  const auto limit = [&](std::string_view name) {
    return place.job(job).at("state").at("limits").at(name).to_number<std::int64_t>();
  };
  ASSERT_TRUE(wait_until([&] { return place.job(job).at("state").as_object().contains("limits"); }));
  const std::int64_t first_deadline = limit("deadline-at-ms");
  const std::int64_t before = now_ms();
  place.tell({"set", job, "--rate", "1M", "--max-pause", "4s", "--max-write-latency", "7ms", "--deadline",
              "7200", "--on-read-error", "skip"});
  EXPECT_TRUE(wait_until([&] { return limit("max-write-latency-ms") == 7; }));
  place.daemon.process().kill();
  place.daemon.start();
  EXPECT_TRUE(place.write_on());
  EXPECT_EQ(limit("bytes-per-second"), 1 << 20);
  EXPECT_EQ(limit("max-pause-ms"), 4000);
  EXPECT_GT(limit("deadline-at-ms"), first_deadline);
  EXPECT_GE(limit("deadline-at-ms"), before + 7'200'000);
  EXPECT_EQ(place.job(job).at("state").at("limits").at("on-read-error").as_string(), "skip");
  for (const auto& [option, value] :
       {std::pair{"--max-write-latency", "0"}, std::pair{"--max-pause", "2000s"},
        std::pair{"--on-read-error", "ignore"}}) {
    const auto refused = place.daemon.ask({"set", job, option, value});
    EXPECT_NE(refused.exit_code, 0) << option;
    EXPECT_NE(refused.err.find(std::string(option).substr(2)), std::string::npos) << refused.err;
  }
  EXPECT_EQ(limit("max-write-latency-ms"), 7);
  place.tell({"set", job, "--rate", "0"});
  EXPECT_TRUE(place.comes_to(job, "phase", "synchronized"));
  place.tell({"commit", job});
  EXPECT_TRUE(place.comes_to(job, "phase", "released"));
  place.clients.end();
}

TEST(ReplaceLimits, OfPauseAndResumeTheLastOneCounts) {
  // What waits for a slow target makes a pause take a while, in which more can be said.
  const TemporaryFolder images;
  const std::string first = images / "first.raw";
  make_full_disk(first);
  Place place(first, {.initial = unwritten});
  const std::string job = place.begin(images / "next.raw", {"--rate", "1M", "--commit-by-hand"});
  ASSERT_TRUE(wait_until([&] { return place.status(job) != "planned" && place.status(job) != "prepared"; }));
  const auto told = place.daemon.ask({"pause", job});
  EXPECT_EQ(told.out.find(job + ": told to pause; it was running ("), 0u) << told.out << told.err;
  place.tell({"resume", job});
  place.tell({"set", job, "--rate", "0"});
  EXPECT_TRUE(place.comes_to(job, "phase", "synchronized"));
  place.tell({"resume", job});  // of one that runs: no matter for the pause that follows
  place.tell({"pause", job});
  EXPECT_TRUE(place.comes_to(job, "status", "paused"));
  place.tell({"pause", job});
  place.tell({"resume", job});
  EXPECT_TRUE(place.comes_to(job, "status", "running"));
  place.tell({"commit", job});
  EXPECT_TRUE(place.comes_to(job, "phase", "released"));
  place.clients.end();
}

/// With a small rate all of the disk waits in the window when all of it has been read.
TEST(ReplaceLimits, InStepIsATargetThatHasTheContent) {
  const TemporaryFolder images;
  const std::string first = images / "first.raw";
  make_full_disk(first);
  Place place(first, {.initial = unwritten});
  EXPECT_TRUE(place.write_on());
  place.clients.end();
  const std::string next = images / "next.raw";
  const std::string job = place.begin(next, {"--rate", "16M", "--commit-by-hand"});
  ASSERT_TRUE(place.comes_to(job, "phase", "synchronized"));
  const std::string there = text_of(next);
  ASSERT_EQ(there.size(), disk_bytes);
  EXPECT_EQ(place.clients.check(std::as_bytes(std::span(there)), {0, disk_bytes}), "");
  place.tell({"commit", job});
  EXPECT_TRUE(place.comes_to(job, "phase", "released"));
  EXPECT_EQ(place.daemon.end(), 0);
}

/// Clients that write all the time do not put it off.
TEST(ReplaceLimits, InStepIsAlsoATargetThatIsWrittenToAllTheTime) {
  const TemporaryFolder images;
  const std::string first = images / "first.raw";
  make_full_disk(first);
  Place place(first, {.initial = unwritten});
  const std::string job = place.begin(images / "next.raw", {"--rate", "16M", "--commit-by-hand"});
  EXPECT_TRUE(place.comes_to(job, "phase", "synchronized"));
  EXPECT_TRUE(place.write_on());
  place.tell({"cancel", job});
  EXPECT_TRUE(place.comes_to(job, "phase", "aborted"));
  place.clients.end();
}

TEST(ReplaceLimits, PlacesAreChangedAtTheTimeThatWasSaid) {
  Place place;
  const std::string next = place.images / "next.raw";
  for (const std::string past : {"2020-01-01T00:00Z", "+0s", "soon"}) {
    const auto refused = place.daemon.ask({"plan", "replace", "vm", next, "--commit-at", past});
    EXPECT_EQ(refused.exit_code, 2) << past << refused.err << refused.out;
  }
  const std::string job = place.begin(next, {"--commit-at", "+8s"});
  EXPECT_TRUE(place.comes_to(job, "phase", "released"));
  const std::int64_t at = place.job(job).at("request").at("commit-at-ms").as_int64();
  for (const auto& each : place.job(job).at("report").at("timeline").as_array())
    if (each.at("phase").as_string() == "committed") EXPECT_GE(each.at("at-ms").as_int64(), at);
  // Nobody has to wait for a time that is far away.
  const std::string job2 = place.begin(place.images / "other.raw", {"--commit-at", "+2h"});
  EXPECT_TRUE(place.comes_to(job2, "phase", "synchronized"));
  place.tell({"commit", job2});
  EXPECT_TRUE(place.comes_to(job2, "phase", "released"));
  EXPECT_TRUE(place.write_on());
  place.clients.end();
  EXPECT_EQ(place.daemon.end(), 0);
  EXPECT_EQ(place.clients.check("file://" + (place.images / "other.raw")), "");
}

}  // namespace
}  // namespace diskferry::test
