// The gateway is killed right before and right after each phase is written down: clients wait for the next
// one, which goes on, and nothing that was acknowledged is lost.
#include "tests/e2e/replace_place.hpp"

namespace diskferry::test {
namespace {

class KilledAt : public testing::TestWithParam<std::string> {};

TEST_P(KilledAt, AnyPhaseTheJobGoesOnAndNothingIsLost) {
  Place place(Place::Gateway::is_killed);
  const std::string next = place.images / "next.raw";
  place.daemon.process().kill();
  place.daemon.start({"DISKFERRYD_DIES_AT=" + GetParam()});
  EXPECT_TRUE(place.write_on());
  const bool is_undone = GetParam().find("abort") != std::string::npos;
  std::vector<std::string> words{"replace",     "vm",   next,       "--detach",
                                 "--max-pause", "5000", "--retain", is_undone ? "600" : "1"};
  if (is_undone) words.insert(words.end(), {"--commit-by-hand", "--rate", "4M"});
  // Where it dies at once, nobody answers any more.
  (void)place.daemon.ask(words);
  const auto newest = [&] {
    return parse_json(place.daemon.ask({"jobs", "--all", "--json"}).out).at("jobs").at(0);
  };
  if (is_undone) (void)place.daemon.ask({"cancel", std::string(newest().at("id").as_string())});
  ASSERT_EQ(place.daemon.process().wait(std::chrono::seconds(60)), 128 + SIGKILL)
      << text_of(place.daemon.log());
  place.daemon.start();
  EXPECT_TRUE(place.write_on());
  const std::string job(newest().at("id").as_string());
  // A wish to cancel that was not written down yet is one to be said again.
  if (GetParam() == "before:aborting") (void)place.daemon.ask({"cancel", job});
  EXPECT_TRUE(place.comes_to(job, "phase", is_undone ? "aborted" : "released"));
  EXPECT_TRUE(place.write_on());
  place.clients.end();
  EXPECT_EQ(place.clients.check(place.daemon.uri("vm")), "");
  EXPECT_EQ(place.daemon.end(), 0);
  EXPECT_EQ(place.clients.check("file://" + (is_undone ? place.first : next)), "");
  EXPECT_EQ(std::filesystem::exists(next), !is_undone);
}
INSTANTIATE_TEST_SUITE_P(Phases, KilledAt,
                         testing::Values("prepared", "before:prepared", "bulk", "before:delta", "delta",
                                         "before:synchronized", "synchronized", "before:switching",
                                         "switching", "before:committed", "committed", "before:retained",
                                         "retained", "before:released", "released", "before:aborting",
                                         "aborting", "before:aborted", "aborted"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, ':', '_');
                           return name;
                         });

}  // namespace
}  // namespace diskferry::test
