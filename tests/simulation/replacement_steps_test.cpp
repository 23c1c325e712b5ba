// Single events of a replacement, which a seed would have to meet: targets of which nobody knows whether they
// were made.
#include "gateway/jobs/event_bus.hpp"
#include "gateway/move/replacement.hpp"
#include "tests/simulation/exports.hpp"
#include "tests/simulation/journal.hpp"
#include "tests/simulation/storages.hpp"
#include "tests/support/test_runtime.hpp"

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
  Clock& clock() { return world_.clock(); }

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

}  // namespace
}  // namespace diskferry::sim
