// Lives of the gateway, the job, and who looks after it. See replacement_trial.hpp.
#include "tests/simulation/replacement_trial.hpp"

#include <array>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>

namespace diskferry::sim {
namespace {
using std::chrono::milliseconds;

constexpr unsigned deaths_max = 3;
/// After so many acts the operator wants nothing more than that the job ends.
constexpr unsigned acts_max = 60;
constexpr std::array sides{PlannedCut::Side::its_own, PlannedCut::Side::other, PlannedCut::Side::both};
}  // namespace

Course random_course(World& world) {
  Course course{.disks = static_cast<unsigned>(1 + world.random(2)),
                .size_bytes = (1 + world.random(6)) * ReplacementTrial::granule_bytes +
                              world.random(2) * 3 * test::sector_bytes,
                .content = world.random(2),
                .steps = static_cast<unsigned>(5 + world.random(40)),
                .rest_ms = world.one_in(2) ? 400u : 3000u,
                .target_faults = static_cast<unsigned>(world.one_in(2) ? world.random(4) : 0),
                .journal_faults = static_cast<unsigned>(world.one_in(2) ? world.random(4) : 0),
                .cuts = static_cast<unsigned>(world.one_in(3) ? 1 + world.random(3) : 0),
                .gateway_dies = world.one_in(2),
                .borrowing_fails = world.one_in(2),
                .caches_are_lost = world.one_in(2),
                .operator_cancels = world.one_in(8)};
  if (world.one_in(4))
    course.planned_cut = {.at = 1 + world.random(world.one_in(2) ? 40 : 400),
                          .side = sides[world.random(sides.size())],
                          .how = random_cut(world),
                          .heals_after_steps = 1 + world.random(3000)};
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

Course quiet_course(World& world, bool takes_back) {
  Course course = random_course(world);
  course.disks = 2;
  course.size_bytes = 2 * ReplacementTrial::granule_bytes + 3 * test::sector_bytes;
  course.content = 1;
  course.steps = 50;
  course.rest_ms = 300;
  course.target_faults = course.journal_faults = course.cuts = 0;
  course.gateway_dies = course.borrowing_fails = course.operator_cancels = false;
  course.who_operates = takes_back ? Course::Operator::takes_back : Course::Operator::commits;
  course.planned_cut = {};
  course.request.disks.resize(1);
  course.request.disks.push_back({.name = "disk1", .uri = Storages::uri_of("new1"), .format = "raw"});
  course.request.commit_by_hand = true;
  course.request.retain_s = 2;
  return course;
}

ReplacementTrial::ReplacementTrial(std::uint64_t seed, const std::function<Course(World&)>& course)
    : world_(seed),
      course_(course(world_)),
      storages_(world_),
      bus_(world_.clock()),
      journal_(world_, {.id = "r-1",
                        .kind = "replace",
                        .subject = "disks",
                        .request = to_json(course_.request),
                        .phase = "planned"}) {
  constexpr std::array zeros{ZeroSupport::none, ZeroSupport::slow, ZeroSupport::fast, ZeroSupport::unmapping};
  for (unsigned i = 0; i < course_.disks; ++i) {
    models_.emplace_back(course_.size_bytes, course_.content);
    storages_.add(fmt::format("old{}", i), std::make_unique<Volume>(course_.size_bytes, course_.content,
                                                                    zeros[world_.random(zeros.size())]));
    Volume& target = storages_.add(
        fmt::format("new{}", i),
        std::make_unique<Volume>(course_.size_bytes, test::unwritten, zeros[world_.random(zeros.size())]));
    target.exists = false;
  }
  steps_left_.assign(course_.disks * guests_per_disk, course_.steps);
  journal_.on_places = [this] { places_changed(); };
  if (course_.has_cuts()) watch_cuts();
}

std::string ReplacementTrial::run() {
  Result<void> result;
  is_stuck_ = !world_.run(live(), result);
  if (is_stuck_ && !is_void_)
    return fmt::format("stuck after {} steps in {}, {}. {}", world_.steps(), journal_.job().phase,
                       to_string(journal_.job().status), problem_);
  if (is_void_) return {};
  if (!result && problem_.empty()) return result.error().message();
  return problem_;
}

// --- lives of the gateway ---

Task<Result<void>> ReplacementTrial::live() {
  while (true) {
    is_dead_ = false;
    has_ended_ = false;
    storages_.live();
    journal_.live();
    exports_.emplace(world_);
    exports_->on_swapped = [this] { die_near_swap(); };
    DISKFERRY_CO_CHECK(co_await open_reachable());
    ++life_;
    die_soon(1, 3000);
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
    check_maps();
  }
  is_over_ = true;
  heal();
  co_await check_end();
  co_await exports_->close_all();
  co_return Result<void>{};
}

Task<Result<void>> ReplacementTrial::open_exports() {
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

/// A gateway that does not reach what it serves is started again until it does.
Task<Result<void>> ReplacementTrial::open_reachable() {
  while (true) {
    (void)co_await world_.turn([this] { return !is_charge_cut_off(); });
    const std::uint64_t before = given_up();
    auto opened = co_await open_exports();
    if (opened || given_up() == before) co_return opened;
    co_await exports_->close_all();
  }
}

/// The cache of what nobody relies on may be lost.
void ReplacementTrial::note_charge() {
  for (unsigned i = 0; i < course_.disks; ++i) {
    const bool is_new = is_replaced(i);
    volume_of(i, false).may_lose = course_.caches_are_lost && is_new;
    volume_of(i, true).may_lose = course_.caches_are_lost && !is_new;
  }
}

/// Perhaps, within so many steps.
void ReplacementTrial::die_soon(std::uint64_t one_in, std::uint64_t within_steps) {
  if (!course_.gateway_dies || deaths_ >= deaths_max || is_dead_ || !world_.one_in(one_in)) return;
  world_.after_steps(1 + world_.random(within_steps), [this, life = life_] { die(life); });
}
/// Often right when a mirror has come or gone; most of all when one has gone and its job is not over.
void ReplacementTrial::die_near_swap() {
  const bool is_end = journal_.job().phase == "retained";
  die_soon(is_end ? 2 : 4, is_end ? 6 : 12);
}

void ReplacementTrial::die(unsigned life) {
  if (life != life_) return;
  world_.trace("the gateway dies");
  is_dead_ = true;
  ++deaths_;
  read_maps();
  heal_disks();
  if (world_.one_in(2)) heal_links();
  storages_.die();
  journal_.die();
  end_life();
}
void ReplacementTrial::end_life() {
  if (replacement_) replacement_->gateway_stops();
  if (job_ != nullptr) job_->cancel();
  // Those who are held are not let go by one that does not know whether it has committed.
  if (users_ != nullptr) users_->cancel();
}
void ReplacementTrial::read_maps() {
  maps_.clear();
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
    std::ifstream file(entry.path(), std::ios::binary);
    maps_[entry.path().string()] = {std::istreambuf_iterator<char>(file), {}};
  }
}
/// What was done to them after the death was not.
void ReplacementTrial::put_maps_back() {
  std::filesystem::remove_all(folder_.path());
  std::filesystem::create_directories(folder_.path());
  for (const auto& [path, bytes] : maps_)
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// --- the job ---

ReplaceEnvironment& ReplacementTrial::make_environment() {
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

Task<bool> ReplacementTrial::take_up() {
  make_environment();
  is_up_ = true;
  if (is_final(journal_.job().status) || journal_.job().phase == "planned") co_return true;
  exports_->refuse_one_in = course_.borrowing_fails ? 3 : 0;
  replacement_.emplace(*environment_, journal_.job());
  is_up_ = false;
  const auto taken = co_await replacement_->take_up();
  exports_->refuse_one_in = 0;
  is_up_ = taken.has_value();
  if (taken) co_return true;
  world_.trace("not taken up: " + taken.error().message());
  co_await replacement_->leave_to_next();
  replacement_.reset();
  co_return false;
}

Task<Result<void>> ReplacementTrial::run_job(bool is_up) {
  has_ended_ = false;
  while (!is_up && !is_dead_) {
    DISKFERRY_CO_CHECK(co_await world_.clock().sleep_for(milliseconds(100 + world_.random(2000))));
    if (is_dead_) break;
    read_maps();
    check_maps();
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

Task<Result<void>> ReplacementTrial::operate() {
  for (unsigned acts = 0; !has_ended_ && !is_dead_ && !is_void_ && problem_.empty();) {
    DISKFERRY_CO_CHECK(co_await world_.clock().sleep_for(milliseconds(10 + world_.random(600))));
    if (!replacement_ || !is_up_ || has_ended_ || is_dead_) continue;
    act(++acts);
    note_charge();
    if (acts > acts_max * 20) report("at the end", "the job does not end: " + journal_.job().phase);
  }
  heal();
  if (!problem_.empty() || is_void_) end_life();
  co_return Result<void>{};
}

void ReplacementTrial::act(unsigned acts) {
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
  if (course_.who_operates != Course::Operator::anybody) {
    if (phase == "delta" || phase == "synchronized") replacement_->commit_now();
    if (phase == "retained" && course_.who_operates == Course::Operator::takes_back)
      replacement_->fall_back();
    return;
  }
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
      if (world_.one_in(2)) cut_somebody_off();
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

void ReplacementTrial::set_max_pause(std::uint64_t ms) {
  if (const auto set = replacement_->set({.max_pause_ms = ms}); !set) report("set", set.error().message());
}

void ReplacementTrial::spoil_target() {
  if (faults_ >= course_.target_faults) return;
  ++faults_;
  const unsigned disk = static_cast<unsigned>(world_.random(course_.disks));
  Platter& platter = volume_of(disk, !is_replaced(disk)).platter;
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
bool ReplacementTrial::is_replaced(unsigned disk) const {
  const EndpointRecord* const place = journal_.endpoint(name_of(disk));
  return place != nullptr && place->uri != source_of(disk);
}
void ReplacementTrial::spoil_journal() {
  if (journal_faults_ >= course_.journal_faults) return;
  ++journal_faults_;
  journal_.fail_one_in = static_cast<unsigned>(1 + world_.random(3));
  world_.after_steps(1 + world_.random(400), [this] { journal_.fail_one_in = 0; });
}
void ReplacementTrial::heal(Platter& platter) {
  platter.is_hung = false;
  platter.is_gone = false;
  platter.fail_one_in = 0;
}
void ReplacementTrial::heal_disks() {
  journal_.fail_one_in = 0;
  for (unsigned i = 0; i < course_.disks; ++i)
    for (const bool is_new : {false, true}) heal(volume_of(i, is_new).platter);
}
void ReplacementTrial::heal() {
  heal_disks();
  heal_links();
}

}  // namespace diskferry::sim
