// Replacements in a simulated world: guests write to exports, the storage behind them is replaced, and
// storages fail, the job's record cannot be written, operators pause, cancel, commit and take back, and the
// gateway dies and comes back at any step. What was acknowledged is there at the end, all disks are on the
// same side whenever a gateway begins, and every job ends.
#include "gateway/move/replacement.hpp"

#include "diskferry/task_group.hpp"
#include "gateway/jobs/event_bus.hpp"
#include "tests/simulation/exports.hpp"
#include "tests/simulation/journal.hpp"
#include "tests/simulation/seeds.hpp"
#include "tests/simulation/storages.hpp"
#include "tests/support/test_runtime.hpp"

#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>

#include <spdlog/spdlog.h>

namespace diskferry::sim {
namespace {
using std::chrono::milliseconds;
using test::sector_bytes;
using test::SectorModel;

constexpr std::uint64_t granule_bytes = 64 * kib;
constexpr unsigned guests_per_disk = 2;
constexpr unsigned deaths_max = 3;
/// After so many acts the operator wants nothing more than that the job ends.
constexpr unsigned acts_max = 60;

/// What a run is made of; all of it follows from the seed.
struct Course {
  unsigned disks;
  std::uint64_t size_bytes;
  unsigned steps;  ///< of each guest
  unsigned target_faults;
  unsigned journal_faults;
  bool gateway_dies;
  bool borrowing_fails;
  bool caches_are_lost;
  bool operator_cancels;
  ReplaceRequest request;
};

Course course_of(World& world) {
  Course course{.disks = static_cast<unsigned>(1 + world.random(2)),
                .size_bytes = (1 + world.random(6)) * granule_bytes + world.random(2) * 3 * sector_bytes,
                .steps = static_cast<unsigned>(5 + world.random(40)),
                .target_faults = static_cast<unsigned>(world.one_in(2) ? world.random(4) : 0),
                .journal_faults = static_cast<unsigned>(world.one_in(2) ? world.random(4) : 0),
                .gateway_dies = world.one_in(2),
                .borrowing_fails = world.one_in(4),
                .caches_are_lost = world.one_in(2),
                .operator_cancels = world.one_in(8),
                .request = {}};
  ReplaceRequest& request = course.request;
  for (unsigned i = 0; i < course.disks; ++i)
    request.disks.push_back({.name = fmt::format("disk{}", i),
                             .uri = Storages::uri_of(fmt::format("new{}", i)),
                             .format = "raw"});
  request.max_pause_ms = 20 + world.random(2000);
  request.max_write_latency_ms = 1 + world.random(50);
  request.commit_by_hand = world.one_in(4);
  request.retain_s = world.one_in(3) ? 0 : 1 + world.random(4);
  request.remove_source = world.one_in(2);
  return course;
}

class Trial {
 public:
  explicit Trial(std::uint64_t seed)
      : world_(seed),
        course_(course_of(world_)),
        storages_(world_),
        bus_(world_.clock()),
        journal_(world_, {.id = "r-1",
                          .kind = "replace",
                          .subject = "disks",
                          .request = to_json(course_.request),
                          .phase = "planned"}) {
    constexpr std::array zeros{ZeroSupport::none, ZeroSupport::slow, ZeroSupport::fast,
                               ZeroSupport::unmapping};
    for (unsigned i = 0; i < course_.disks; ++i) {
      models_.emplace_back(course_.size_bytes, 1);
      storages_.add(fmt::format("old{}", i),
                    std::make_unique<Volume>(course_.size_bytes, 1, zeros[world_.random(zeros.size())]));
      Volume& target = storages_.add(
          fmt::format("new{}", i),
          std::make_unique<Volume>(course_.size_bytes, test::unwritten, zeros[world_.random(zeros.size())]));
      target.exists = false;
    }
    steps_left_.assign(course_.disks * guests_per_disk, course_.steps);
    journal_.on_places = [this] { places_changed(); };
  }

  std::string run() {
    Result<void> result;
    is_stuck_ = !world_.run(live(), result);
    if (is_stuck_ && !is_void_)
      return fmt::format("stuck after {} steps in {}, {}. {}", world_.steps(), journal_.job().phase,
                         to_string(journal_.job().status), problem_);
    if (is_void_) return {};
    if (!result && problem_.empty()) return result.error().message();
    return problem_;
  }
  bool is_stuck() const { return is_stuck_; }

 private:
  // --- lives of the gateway ---

  Task<Result<void>> live() {
    while (true) {
      is_dead_ = false;
      has_ended_ = false;
      storages_.live();
      journal_.live();
      exports_.emplace(world_);
      // Often right when a mirror has come or gone.
      exports_->on_swapped = [this] {
        if (course_.gateway_dies && deaths_ < deaths_max && world_.one_in(3))
          world_.after_steps(1 + world_.random(12), [this, life = life_] { die(life); });
      };
      DISKFERRY_CO_CHECK(co_await open_exports());
      ++life_;
      if (course_.gateway_dies && deaths_ < deaths_max)
        world_.after_steps(20 + world_.random(3000), [this, life = life_] { die(life); });
      const bool is_up = co_await take_up();
      TaskGroup tasks(world_.executor());
      TaskGroup job(world_.executor());
      job_ = &job;
      users_ = &tasks;
      for (unsigned guest = 0; guest < steps_left_.size(); ++guest) tasks.spawn(use(guest));
      tasks.spawn(operate());
      job.spawn(run_job(is_up));
      (void)co_await tasks.join();
      (void)co_await job.join();
      job_ = nullptr;
      users_ = nullptr;
      ++life_;  // this one can not die any more
      if (!is_dead_) break;
      replacement_.reset();
      co_await exports_->close_all();
      put_maps_back();
    }
    co_await check_end();
    co_await exports_->close_all();
    co_return Result<void>{};
  }

  Task<Result<void>> open_exports() {
    unsigned replaced = 0;
    note_charge();
    for (unsigned i = 0; i < course_.disks; ++i) {
      const std::string name = name_of(i);
      const EndpointRecord* const place = journal_.endpoint(name);
      const std::string uri = place != nullptr ? place->uri : source_of(i);
      replaced += uri == source_of(i) ? 0 : 1;
      DISKFERRY_CO_CHECK(co_await exports_->open(name, uri));
    }
    if (replaced != 0 && replaced != course_.disks) report("at the beginning", "the disks are on both sides");
    co_return Result<void>{};
  }

  /// The cache of what nobody relies on may be lost.
  void note_charge() {
    for (unsigned i = 0; i < course_.disks; ++i) {
      const bool is_new = is_replaced(i);
      storages_.find(fmt::format("old{}", i))->may_lose = course_.caches_are_lost && is_new;
      storages_.find(fmt::format("new{}", i))->may_lose = course_.caches_are_lost && !is_new;
    }
  }

  void die(unsigned life) {
    if (life != life_) return;
    world_.trace("the gateway dies");
    is_dead_ = true;
    ++deaths_;
    maps_.clear();
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      std::ifstream file(entry.path(), std::ios::binary);
      maps_[entry.path().string()] = {std::istreambuf_iterator<char>(file), {}};
    }
    heal();
    storages_.die();
    journal_.die();
    end_life();
  }
  void end_life() {
    if (replacement_) replacement_->gateway_stops();
    if (job_ != nullptr) job_->cancel();
    // Those who are held are not let go by one that does not know whether it has committed.
    if (users_ != nullptr) users_->cancel();
  }
  /// What was done to them after the death was not.
  void put_maps_back() {
    std::filesystem::remove_all(folder_.path());
    std::filesystem::create_directories(folder_.path());
    for (const auto& [path, bytes] : maps_)
      std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  // --- the job ---

  ReplaceEnvironment& make_environment() {
    environment_.emplace(ReplaceEnvironment{
        .drivers = world_.context(),
        .journal = journal_,
        .bus = bus_,
        .endpoints = *exports_,
        .controller = fmt::format("life {}", life_),
        .state_folder = folder_.path(),
        .window_bytes = 256 * kib,
        .connections = 1,
        .now_ms = [this] {
          return std::chrono::duration_cast<milliseconds>(world_.clock().now().time_since_epoch()).count();
        }});
    return *environment_;
  }

  Task<bool> take_up() {
    make_environment();
    if (is_final(journal_.job().status) || journal_.job().phase == "planned") co_return true;
    exports_->refuse_one_in = course_.borrowing_fails ? 4 : 0;
    replacement_.emplace(*environment_, journal_.job());
    const auto taken = co_await replacement_->take_up();
    exports_->refuse_one_in = 0;
    if (taken) co_return true;
    world_.trace("not taken up: " + taken.error().message());
    co_await replacement_->leave_to_next();
    replacement_.reset();
    co_return false;
  }

  Task<Result<void>> run_job(bool is_up) {
    has_ended_ = false;
    while (!is_up && !is_dead_) {
      DISKFERRY_CO_CHECK(co_await world_.clock().sleep_for(milliseconds(100)));
      is_up = co_await take_up();
    }
    if (!is_dead_ && !is_final(journal_.job().status)) {
      if (!replacement_) replacement_.emplace(*environment_, journal_.job());
      const auto ended = co_await replacement_->run();
      world_.trace("the job has ended: " + (ended ? std::string("done") : ended.error().message()));
      if (!is_dead_ && !is_final(journal_.job().status)) report("at its end", "the job is not over");
    } else if (replacement_) {
      co_await replacement_->leave_to_next();
    }
    has_ended_ = true;
    replacement_.reset();
    co_return Result<void>{};
  }

  // --- who looks after it ---

  Task<Result<void>> operate() {
    for (unsigned acts = 0; !has_ended_ && !is_dead_ && !is_void_ && problem_.empty(); ++acts) {
      DISKFERRY_CO_CHECK(co_await world_.clock().sleep_for(milliseconds(10 + world_.random(600))));
      if (!replacement_ || has_ended_ || is_dead_) continue;
      act(acts);
      note_charge();
      if (acts > acts_max * 20) report("at the end", "the job does not end: " + journal_.job().phase);
    }
    heal();
    if (!problem_.empty() || is_void_) end_life();
    co_return Result<void>{};
  }

  void act(unsigned acts) {
    const bool wants_end = acts > acts_max;
    if (wants_end) heal();
    if (wants_end || journal_.job().status == JobStatus::paused) {
      replacement_->resume();
      if (wants_end) {
        set_max_pause(60'000);
        replacement_->commit_now();
      }
      return;
    }
    const std::string phase = journal_.job().phase;
    if (phase == "retained" && world_.one_in(4)) {
      replacement_->fall_back();
      return;
    }
    switch (world_.random(12)) {
      case 0:
      case 1:
        spoil_target();
        break;
      case 2:
        spoil_journal();
        break;
      case 3:
        replacement_->pause();
        break;
      case 4:
      case 5:
        replacement_->commit_now();
        break;
      case 6:
        if (course_.operator_cancels && phase != "committed" && phase != "retained") {
          world_.trace("cancel");
          replacement_->cancel();
          job_->cancel();
        }
        break;
      default:
        set_max_pause(20 + world_.random(2000));
        break;
    }
  }

  void set_max_pause(std::uint64_t ms) {
    if (const auto set = replacement_->set({.max_pause_ms = ms}); !set) report("set", set.error().message());
  }

  void spoil_target() {
    if (faults_ >= course_.target_faults) return;
    ++faults_;
    const unsigned disk = static_cast<unsigned>(world_.random(course_.disks));
    Platter& platter = storages_.find(fmt::format("{}{}", is_replaced(disk) ? "old" : "new", disk))->platter;
    switch (world_.random(3)) {
      case 0:
        world_.trace("a target hangs");
        platter.is_hung = true;
        break;
      case 1:
        world_.trace("a target is gone");
        ++platter.openings;
        platter.is_gone = true;
        break;
      default:
        platter.fail_one_in = 30;
        break;
    }
    world_.after_steps(1 + world_.random(3000), [&platter] { heal(platter); });
  }
  /// As the records say.
  bool is_replaced(unsigned disk) const {
    const EndpointRecord* const place = journal_.endpoint(name_of(disk));
    return place != nullptr && place->uri != source_of(disk);
  }
  void spoil_journal() {
    if (journal_faults_ >= course_.journal_faults) return;
    ++journal_faults_;
    journal_.fail_one_in = static_cast<unsigned>(1 + world_.random(3));
    world_.after_steps(1 + world_.random(400), [this] { journal_.fail_one_in = 0; });
  }
  static void heal(Platter& platter) {
    platter.is_hung = false;
    platter.is_gone = false;
    platter.fail_one_in = 0;
  }
  void heal() {
    journal_.fail_one_in = 0;
    for (unsigned i = 0; i < course_.disks; ++i) {
      heal(storages_.find(fmt::format("old{}", i))->platter);
      heal(storages_.find(fmt::format("new{}", i))->platter);
    }
  }

  // --- guests ---

  Task<Result<void>> use(unsigned guest) {
    const unsigned disk = guest / guests_per_disk;
    while (steps_left_[guest] > 0 && !is_dead_ && problem_.empty()) {
      --steps_left_[guest];
      const auto what = world_.random(20);
      if (what < 8) {
        co_await write(disk, random_range(what == 0 ? 200 : 9));
      } else if (what < 10) {
        co_await zero(disk, random_range(60), world_.one_in(2));
      } else if (what < 13) {
        co_await read(disk, random_range(40));
      } else if (what < 15) {
        note(co_await exports_->use(name_of(disk)).device().flush(), "flush");
      } else {
        DISKFERRY_CO_CHECK(co_await world_.clock().sleep_for(milliseconds(world_.random(400))));
      }
    }
    co_return Result<void>{};
  }

  Range random_range(std::uint64_t sectors_most) {
    const std::uint64_t sectors = course_.size_bytes / sector_bytes;
    const std::uint64_t first = world_.random(world_.one_in(2) ? sectors : sectors / 8);
    return {first * sector_bytes, std::min(sectors - first, 1 + world_.random(sectors_most)) * sector_bytes};
  }

  Task<void> write(unsigned disk, Range range) {
    std::vector<std::byte> bytes(range.length);
    const std::uint64_t content = 100 + ++contents_;
    test::fill_sectors(bytes, content, range.offset / sector_bytes);
    const auto token = models_[disk].begin(range, content);
    trace("write", disk, range, "...");
    const auto hold = exports_->use(name_of(disk));
    auto done = world_.one_in(2) ? hold.device().try_write(range.offset, bytes) : std::nullopt;
    if (!done) done = co_await hold.device().write(range.offset, bytes, {.fua = world_.one_in(8)});
    if (*done) models_[disk].end(token);
    trace("write", disk, range, *done ? "done" : "failed");
    note(*done, "write");
  }
  Task<void> zero(unsigned disk, Range range, bool is_discard) {
    const auto token = models_[disk].begin(range, 0);
    trace("zero", disk, range, "...");
    const auto hold = exports_->use(name_of(disk));
    const auto done = is_discard
                          ? co_await hold.device().discard(range)
                          : co_await hold.device().write_zeroes(range, {.may_unmap = world_.one_in(2)});
    if (done && !is_discard) models_[disk].end(token);
    trace("zero", disk, range, done ? "done" : "failed");
    note(done, "zero");
  }
  Task<void> read(unsigned disk, Range range) {
    std::vector<std::byte> bytes(range.length);
    const auto since = models_[disk].now();
    const auto hold = exports_->use(name_of(disk));
    const auto done = co_await hold.device().read(range.offset, bytes);
    if (done) report("a read", models_[disk].check(bytes, range.offset, since));
    note(done, "read");
  }

  // --- what must be ---

  void note(const Result<void>& done, std::string_view verb) {
    if (!done && !is_dead_) report(verb, done.error().message());
  }
  void report(std::string_view when, const std::string& problem) {
    if (problem.empty() || !problem_.empty() || is_void_) return;
    problem_ = fmt::format("{}: {}", when, problem);
    world_.trace(problem_);
  }
  void trace(const char* verb, unsigned disk, Range range, const char* what) {
    world_.trace(fmt::format("guest of {}: {} {}+{} {}", disk, verb, range.offset / sector_bytes,
                             range.length / sector_bytes, what));
  }
  static std::string name_of(unsigned disk) { return fmt::format("disk{}", disk); }
  static std::string source_of(unsigned disk) { return Storages::uri_of(fmt::format("old{}", disk)); }

  void places_changed() {
    check_same();
    for (unsigned i = 0; i < course_.disks; ++i) {
      Volume& in_charge = *storages_.find(fmt::format("{}{}", is_replaced(i) ? "new" : "old", i));
      heal(in_charge.platter);
      // Lost after it was made durable: no mirror can help guests then.
      if (in_charge.is_lost() && !is_dead_) is_void_ = true;
    }
    note_charge();
  }
  /// When a change of places is written down, both sides are the same, durably.
  void check_same() {
    for (unsigned i = 0; i < course_.disks; ++i) {
      const auto& from = storages_.find(fmt::format("old{}", i))->platter.durable;
      const auto& to = storages_.find(fmt::format("new{}", i))->platter.durable;
      const auto differs = std::ranges::mismatch(from, to).in1;
      if (differs != from.end())
        report("at the commit",
               fmt::format("disk {} differs in sector {}", i,
                           static_cast<std::uint64_t>(differs - from.begin()) / sector_bytes));
    }
  }

  Task<void> check_end() {
    report("storages", storages_.problem());
    report("the record", journal_.problem());
    for (unsigned i = 0; i < course_.disks; ++i) {
      std::vector<std::byte> all(course_.size_bytes);
      const auto since = models_[i].now();
      const auto done = co_await exports_->use(name_of(i)).device().read(0, all);
      if (!done) report("at the end", done.error().message());
      report("at the end", models_[i].check(all, 0, since));
      // One that was cancelled too late has ended without having been released.
      const std::string& phase = journal_.job().phase;
      if ((phase == "released" && !is_replaced(i)) || (phase == "aborted" && is_replaced(i)))
        report("at the end", fmt::format("{} is on the wrong side of a job that is {}", name_of(i), phase));
      const std::string wanted = is_replaced(i) ? course_.request.disks[i].uri : source_of(i);
      if (exports_->place(name_of(i)) != wanted)
        report("at the end", fmt::format("{} is at {}", name_of(i), exports_->place(name_of(i))));
    }
  }

  World world_;
  const Course course_;
  test::TemporaryFolder folder_;
  Storages storages_;
  EventBus bus_;
  Journal journal_;
  std::deque<SectorModel> models_;
  std::optional<Exports> exports_;
  std::optional<ReplaceEnvironment> environment_;
  std::optional<Replacement> replacement_;
  TaskGroup* job_ = nullptr;
  TaskGroup* users_ = nullptr;
  std::map<std::string, std::string> maps_;  // files as they were when the gateway died
  std::vector<unsigned> steps_left_;
  unsigned life_ = 0;
  unsigned deaths_ = 0;
  unsigned faults_ = 0;
  unsigned journal_faults_ = 0;
  std::uint64_t contents_ = 0;
  bool has_ended_ = false;
  bool is_dead_ = false;
  bool is_stuck_ = false;
  bool is_void_ = false;
  std::string problem_;
};

class ReplacementSimulation : public testing::TestWithParam<unsigned> {};
TEST_P(ReplacementSimulation, LosesNothing) {
  if (std::getenv("DISKFERRY_TRACE") == nullptr) spdlog::set_level(spdlog::level::off);
  run_seeds<Trial>(GetParam(), 10'000);
}
INSTANTIATE_TEST_SUITE_P(Part, ReplacementSimulation, testing::Range(0u, parts));

}  // namespace
}  // namespace diskferry::sim
