// Single events of a replacement, which a seed would have to meet: targets of which nobody knows whether they
// were made, files that cannot be removed, and the way back to storage that was not kept in step.
#include "gateway/jobs/event_bus.hpp"
#include "gateway/move/replacement.hpp"
#include "tests/simulation/exports.hpp"
#include "tests/simulation/journal.hpp"
#include "tests/simulation/storages.hpp"
#include "tests/support/test_runtime.hpp"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

namespace diskferry::sim {
namespace {

constexpr std::uint64_t disk_bytes = 256 * kib;
constexpr std::uint64_t unwritten_content = 1;

ReplaceRequest one_disk() {
  ReplaceRequest request;
  request.disks.push_back({.name = "disk", .uri = Storages::uri_of("new"), .format = "raw"});
  request.max_pause_ms = 10'000;
  request.max_write_latency_ms = 50;
  return request;
}

/// A gateway with one export, of which the storage is replaced.
class Scene {
 public:
  explicit Scene(const ReplaceRequest& request = one_disk())
      : journal(world_, {.id = "r-1",
                         .kind = "replace",
                         .subject = "disk",
                         .request = to_json(request),
                         .phase = "planned"}),
        old_side(
            storages_.add("old", std::make_unique<Volume>(disk_bytes, unwritten_content, ZeroSupport::fast))),
        new_side(
            storages_.add("new", std::make_unique<Volume>(disk_bytes, test::unwritten, ZeroSupport::fast))) {
    spdlog::set_level(spdlog::level::off);
    new_side.exists = false;
    make_environment();
  }
  ~Scene() { EXPECT_EQ(storages_.problem(), ""); }
  Scene(const Scene&) = delete;
  Scene& operator=(const Scene&) = delete;

  /// A task in this world, to its end.
  Result<void> run(Task<Result<void>> task) {
    Result<void> result;
    EXPECT_TRUE(world_.run(std::move(task), result)) << "stuck in " << journal.job().phase;
    return result;
  }
  Task<Result<void>> open() {
    const EndpointRecord* const place = journal.endpoint("disk");
    co_return co_await exports.open("disk", place != nullptr ? place->uri : Storages::uri_of("old"));
  }
  std::unique_ptr<Replacement> make_job() {
    return std::make_unique<Replacement>(*environment_, journal.job());
  }
  std::string map_path() const { return folder_ / "r-1-0.map"; }
  Clock& clock() { return world_.clock(); }
  Executor executor() { return world_.executor(); }

 private:
  void make_environment() {
    environment_.emplace(ReplaceEnvironment{.drivers = world_.context(),
                                            .journal = journal,
                                            .bus = bus_,
                                            .endpoints = exports,
                                            .controller = "here",
                                            .state_folder = folder_.path(),
                                            .window_bytes = 256 * kib,
                                            .connections = 1,
                                            .now_ms = [this] {
                                              return std::chrono::duration_cast<std::chrono::milliseconds>(
                                                         clock().now().time_since_epoch())
                                                  .count();
                                            }});
  }

  World world_{1};
  test::TemporaryFolder folder_;
  Storages storages_{world_};
  EventBus bus_{world_.clock()};
  std::optional<ReplaceEnvironment> environment_;

 public:
  Journal journal;
  Exports exports{world_};
  Volume& old_side;
  Volume& new_side;
};

/// The job from its beginning to its end.
Task<Result<void>> whole(Scene& scene, Replacement& job) {
  DISKFERRY_CO_CHECK(co_await scene.open());
  auto ended = co_await job.run();
  co_await scene.exports.close_all();
  co_return ended;
}

// --- targets that cannot be made --------------------------------------------------------------------------

TEST(ReplacementSteps, ATargetThatMayHaveBeenMadeIsToldOfAndNotRemoved) {
  for (const ErrorKind kind : {ErrorKind::gone, ErrorKind::timed_out, ErrorKind::io, ErrorKind::no_space}) {
    Scene scene;
    scene.new_side.made_fails = kind;
    const auto job = scene.make_job();
    const auto ended = scene.run(whole(scene, *job));
    ASSERT_FALSE(ended);
    EXPECT_EQ(ended.error().kind(), kind);
    EXPECT_NE(
        ended.error().remedy().find("sim://world/new may have been made: remove it, or begin again with "
                                    "--overwrite"),
        std::string::npos)
        << ended.error().message();
    EXPECT_EQ(scene.journal.job().phase, "aborted");
    EXPECT_NE(scene.journal.job().error.find("may have been made"), std::string::npos);
    EXPECT_NE(scene.journal.job().report.find("sim://world/new: it may have been made by this job"),
              std::string::npos)
        << scene.journal.job().report;
    EXPECT_TRUE(scene.new_side.exists) << "it may be somebody else's";
  }
}

/// Nobody has to look after what is not there, or was made by somebody else.
TEST(ReplacementSteps, ATargetThatWasRefusedIsNotToldOf) {
  for (const ErrorKind kind : {ErrorKind::no_space, ErrorKind::io, ErrorKind::already_exists}) {
    Scene scene;
    scene.new_side.making_fails = kind;
    const auto job = scene.make_job();
    const auto ended = scene.run(whole(scene, *job));
    ASSERT_FALSE(ended);
    EXPECT_EQ(ended.error().message().find("may have been made"), std::string::npos)
        << ended.error().message();
    EXPECT_EQ(scene.journal.job().report.find("may have been made"), std::string::npos);
    EXPECT_EQ(scene.journal.job().phase, "aborted");
    EXPECT_FALSE(scene.new_side.exists);
  }
}

// --- files that cannot be removed -------------------------------------------------------------------------

/// Until it is in step; then the gateway stops, and leaves it to the next one.
Task<Result<void>> come_in_step_and_stop(Scene& scene, Replacement& job) {
  DISKFERRY_CO_CHECK(co_await scene.open());
  TaskGroup running(scene.executor());
  running.spawn(job.run());
  while (scene.journal.job().phase != "synchronized")
    DISKFERRY_CO_CHECK(co_await scene.clock().sleep_for(std::chrono::milliseconds(10)));
  job.gateway_stops();
  running.cancel();
  (void)co_await running.join();
  co_await scene.exports.close_all();
  co_return Result<void>{};
}

/// What the next gateway says of it.
Task<Result<void>> take_up(Scene& scene, Replacement& job) {
  DISKFERRY_CO_CHECK(co_await scene.open());
  scene.exports.refuse_one_in = 1;
  auto taken = co_await job.take_up();
  co_await job.leave_to_next();
  co_await scene.exports.close_all();
  co_return taken;
}

class ATakeUpThatFails : public testing::Test {
 protected:
  ATakeUpThatFails() {
    ReplaceRequest request = one_disk();
    request.commit_by_hand = true;
    scene.emplace(request);
    const auto job = scene->make_job();
    test::must(scene->run(come_in_step_and_stop(*scene, *job)));
    EXPECT_TRUE(std::filesystem::exists(scene->map_path()));
  }
  Error refused() {
    const auto next = scene->make_job();
    const auto taken = scene->run(take_up(*scene, *next));
    EXPECT_FALSE(taken);
    return taken.error();
  }
  std::optional<Scene> scene;
};

TEST_F(ATakeUpThatFails, LeavesNoNotesThatWillNotBeTrueAnyMore) {
  EXPECT_EQ(refused().operation(), "borrow");
  EXPECT_FALSE(std::filesystem::exists(scene->map_path()));
}

TEST_F(ATakeUpThatFails, SaysWhichNotesHaveToBeRemovedByHand) {
  // No file, and not empty: nobody removes that by chance.
  std::filesystem::remove(scene->map_path());
  std::filesystem::create_directory(scene->map_path());
  std::ofstream(scene->map_path() + "/something") << "x";
  const Error told = refused();
  EXPECT_NE(told.message().find(scene->map_path()), std::string::npos) << told.message();
  EXPECT_NE(told.remedy().find("remove it before the gateway is started again, or cancel the job r-1"),
            std::string::npos)
      << told.remedy();
  EXPECT_TRUE(std::filesystem::exists(scene->map_path()));
}

// --- back to what was not kept in step --------------------------------------------------------------------

/// A guest writes from the commit on, for a while.
Task<Result<void>> write_on(Scene& scene) {
  const std::vector<std::byte> bytes(disk_bytes / 2, std::byte{7});
  while (scene.journal.job().phase != "retained")
    DISKFERRY_CO_CHECK(co_await scene.clock().sleep_for(std::chrono::milliseconds(1)));
  const auto hold = scene.exports.use("disk");
  DISKFERRY_CO_CHECK(co_await hold.device().write(0, bytes, {}));
  co_return Result<void>{};
}

Task<Result<void>> go_and_come_back(Scene& scene, Replacement& job) {
  DISKFERRY_CO_CHECK(co_await scene.open());
  TaskGroup guests(scene.executor());
  guests.spawn(write_on(scene));
  const auto ended = co_await job.run();
  DISKFERRY_CO_CHECK(co_await guests.join());
  std::vector<std::byte> all(disk_bytes);
  DISKFERRY_CO_CHECK(co_await scene.exports.use("disk").device().read(0, all));
  EXPECT_TRUE(std::ranges::all_of(std::span(all).first(disk_bytes / 2),
                                  [](std::byte one) { return one == std::byte{7}; }));
  EXPECT_EQ(scene.exports.place("disk"), Storages::uri_of("old"));
  co_await scene.exports.close_all();
  co_return ended;
}

TEST(ReplacementSteps, OldStorageThatIsNotRetainedIsTakenBackWhereItIsSaidInTime) {
  ReplaceRequest request = one_disk();
  request.retain_s = 0;
  Scene scene(request);
  const auto job = scene.make_job();
  // Right when the commit is written down; nothing follows from there on.
  unsigned changes = 0;
  scene.journal.on_places = [&] {
    if (++changes == 1) job->fall_back();
  };
  const auto ended = scene.run(go_and_come_back(scene, *job));
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().why(), "the old storage was taken back") << ended.error().message();
  EXPECT_EQ(changes, 2u);
  EXPECT_EQ(scene.journal.job().phase, "aborted");
  EXPECT_FALSE(scene.new_side.exists) << "what was made is removed";
  EXPECT_TRUE(std::ranges::all_of(std::span(scene.old_side.platter.durable).first(disk_bytes / 2),
                                  [](std::byte one) { return one == std::byte{7}; }));
}

}  // namespace
}  // namespace diskferry::sim
