// The mirror and its copies in a simulated world: guests write, the target is slow, hangs, fails, goes away
// and loses what it had not flushed, the gateway dies and comes back, and both change places, forth and back.
// The model knows what each sector may hold. DISKFERRY_SEED=N runs one seed, DISKFERRY_SEEDS=N so many.
#include "diskferry/task_group.hpp"
#include "drivers/checked_device.hpp"
#include "gateway/copy/engine.hpp"
#include "gateway/move/mirror_work.hpp"
#include "tests/simulation/disk.hpp"
#include "tests/simulation/seeds.hpp"

#include <fmt/format.h>
#include <memory>

#include <gtest/gtest.h>

namespace diskferry::sim {
namespace {
using test::sector_bytes;
using test::SectorModel;

constexpr std::uint64_t granule_bytes = 4096;
constexpr unsigned guests = 3;

/// What a run is made of; all of it follows from the seed.
struct Course {
  std::uint64_t size_bytes;
  MirrorMode mode;
  Duration latency_max;
  std::uint64_t window_bytes;
  unsigned steps;        ///< of each guest
  unsigned switchovers;  ///< at most
  bool target_fails;
  bool target_hangs;
  bool gateway_dies;
  bool primary_fails;
  ZeroSupport primary_zero;
  ZeroSupport target_zero;
  bool target_starts_zeroed;
  bool primary_starts_zeroed;
};

Course course_of(World& world) {
  constexpr std::array zeros{ZeroSupport::none, ZeroSupport::slow, ZeroSupport::fast, ZeroSupport::unmapping};
  return {.size_bytes = (8 + world.random(56)) * granule_bytes + world.random(2) * 3 * sector_bytes,
          .mode = static_cast<MirrorMode>(world.random(3)),
          .latency_max =
              world.one_in(3) ? Duration::zero() : Duration(std::chrono::milliseconds(1 + world.random(50))),
          .window_bytes = world.one_in(3) ? 16 * kib : 256 * kib,
          .steps = static_cast<unsigned>(5 + world.random(40)),
          .switchovers = static_cast<unsigned>(1 + world.random(3)),
          .target_fails = world.one_in(4),
          .target_hangs = world.one_in(3),
          .gateway_dies = world.one_in(2),
          .primary_fails = world.one_in(8),
          .primary_zero = zeros[world.random(zeros.size())],
          .target_zero = zeros[world.random(zeros.size())],
          .target_starts_zeroed = world.one_in(2),
          .primary_starts_zeroed = world.one_in(4)};
}

class Trial {
 public:
  explicit Trial(std::uint64_t seed)
      : world_(seed),
        course_(course_of(world_)),
        model_(course_.size_bytes, course_.primary_starts_zeroed ? 0 : 1),
        platters_{Platter(course_.size_bytes, course_.primary_starts_zeroed ? 0 : 1),
                  Platter(course_.size_bytes, course_.target_starts_zeroed ? 0 : test::unwritten)},
        kept_(GranuleMap::words_for(divide_up(course_.size_bytes, granule_bytes)), ~std::uint64_t{0}) {
    for (unsigned& left : steps_left_) left = course_.steps;
    switchovers_left_ = course_.switchovers;
    if (course_.primary_fails) platters_[0].fail_one_in = 40;
    if (!course_.target_starts_zeroed && world_.one_in(2)) leave_patches();
  }

  std::string run() {
    Result<void> result;
    is_stuck_ = !world_.run(live(), result);
    if (is_stuck_) return fmt::format("stuck after {} steps. {}", world_.steps(), problem_);
    if (!result && problem_.empty()) return result.error().message();
    return problem_;
  }
  bool is_stuck() const { return is_stuck_; }

 private:
  /// The target was in use before: what is left there lies between zeros, anywhere.
  void leave_patches() {
    for (std::uint64_t at = 0; at < course_.size_bytes;) {
      const std::uint64_t length = std::min(course_.size_bytes - at, (1 + world_.random(40)) * sector_bytes);
      if (world_.one_in(2)) platters_[1].zero({at, length});
      at += length;
    }
    platters_[1].durable = platters_[1].current;
  }

  // --- lives of the gateway ---

  Task<Result<void>> live() {
    while (true) {
      is_dead_ = false;
      for (Platter& platter : platters_) platter.is_gone = false;
      open();
      if (course_.gateway_dies && deaths_ < 3)
        world_.after_steps(50 + world_.random(4000), [this, life = ++life_] { die(life); });
      TaskGroup tasks(world_.executor());
      for (unsigned guest = 0; guest < guests; ++guest) tasks.spawn(use(guest));
      tasks.spawn(move());
      DISKFERRY_CO_CHECK(co_await tasks.join());
      ++life_;  // this one can not die any more
      if (!is_dead_) break;
      (void)co_await device_->close();
      device_.reset();
      kept_ = kept_at_death_;
      if (world_.one_in(2)) platters_[1 - primary_].cut_power(world_);
    }
    co_await check_end();
    co_return co_await device_->close();
  }

  void open() {
    auto mirror = std::make_unique<MirrorDevice>(world_.context(), disk(primary_),
                                                 MirrorOptions{.mode = course_.mode,
                                                               .latency_max = course_.latency_max,
                                                               .granule_bytes = granule_bytes,
                                                               .kept = kept_});
    mirror_ = mirror.get();
    was_opened_ = true;
    device_ = checked(std::move(mirror));
  }

  void die(unsigned life) {
    if (life != life_) return;
    is_dead_ = true;
    world_.trace("the gateway dies");
    ++deaths_;
    kept_at_death_ = kept_;
    for (Platter& platter : platters_) platter.is_gone = true;
  }

  std::shared_ptr<BlockDevice> disk(unsigned index) {
    DeviceInfo info;
    info.block_bytes = 512;
    info.zero = index == 0 ? course_.primary_zero : course_.target_zero;
    info.can_discard = true;
    info.can_report_extents = true;
    info.starts_zeroed = index == 0 ? course_.primary_starts_zeroed && !was_opened_
                                    : course_.target_starts_zeroed && !was_attached_;
    return checked(std::make_unique<Disk>(world_, platters_[index], index == 0 ? "first" : "second", info));
  }

  // --- guests ---

  Task<Result<void>> use(unsigned guest) {
    while (steps_left_[guest] > 0 && !is_dead_ && problem_.empty()) {
      --steps_left_[guest];
      const auto what = world_.random(20);
      if (what < 11) {
        co_await write(random_range(what == 0 ? 40 : 9));
      } else if (what < 13) {
        co_await zero(random_range(60), world_.one_in(2));
      } else if (what < 16) {
        co_await read(random_range(40));
      } else if (what < 18) {
        co_await flush();
      } else {
        (void)co_await world_.clock().sleep_for(std::chrono::milliseconds(world_.random(5)));
      }
    }
    co_return Result<void>{};
  }

  /// Often the same places, so that guests meet each other and copies.
  Range random_range(std::uint64_t sectors_most) {
    const std::uint64_t sectors = course_.size_bytes / sector_bytes;
    const std::uint64_t unit = world_.one_in(3) ? 1 : granule_bytes / sector_bytes;
    const std::uint64_t first = world_.random(world_.one_in(2) ? sectors : sectors / 8) / unit * unit;
    const std::uint64_t count =
        std::min(sectors - first, (1 + world_.random(sectors_most)) * (world_.one_in(3) ? 1 : unit));
    return {first * sector_bytes, std::min(count, sectors_most * 2) * sector_bytes};
  }

  Task<void> write(Range range) {
    const std::uint64_t content = 100 + ++contents_;
    std::vector<std::byte> bytes(range.length);
    test::fill_sectors(bytes, content, range.offset / sector_bytes);
    const auto token = model_.begin(range, content);
    trace("write", range, "...");
    auto done = world_.one_in(2) ? device_->try_write(range.offset, bytes) : std::nullopt;
    if (!done) done = co_await device_->write(range.offset, bytes, {.fua = world_.one_in(8)});
    if (*done) model_.end(token);
    trace("write", range, *done ? "done" : "failed");
    note(*done, "write");
  }
  Task<void> zero(Range range, bool is_discard) {
    // What a discard leaves is old or zeros, in any mixture of blocks; the disk forgets all of it or nothing.
    const auto token = model_.begin(range, 0);
    trace(is_discard ? "discard" : "zero", range, "...");
    const auto done = is_discard ? co_await device_->discard(range)
                                 : co_await device_->write_zeroes(range, {.may_unmap = world_.one_in(2)});
    if (done && !is_discard) model_.end(token);
    trace(is_discard ? "discard" : "zero", range, done ? "done" : "failed");
    note(done, "zero");
  }
  Task<void> read(Range range) {
    std::vector<std::byte> bytes(range.length);
    const auto since = model_.now();
    auto done = world_.one_in(2) ? device_->try_read(range.offset, bytes) : std::nullopt;
    if (!done) done = co_await device_->read(range.offset, bytes);
    note(*done, "read");
    if (*done) report("a guest reads", model_.check(bytes, range.offset, since));
  }
  Task<void> flush() {
    const auto since = model_.now();
    const auto done = co_await device_->flush();
    note(done, "flush");
    if (done) report("after a flush", model_.check(platters_[primary_].durable, 0, since));
  }
  /// A guest sees no error but the primary's own, and none when the gateway has died, for its client waits.
  void note(const Result<void>& result, const char* verb) {
    if (result || is_dead_ || course_.primary_fails) return;
    report(fmt::format("a guest's {} fails", verb), result.error().message());
  }
  void trace(const char* verb, Range range, const char* what) {
    world_.trace(fmt::format("guest {} {}+{} {}", verb, range.offset / sector_bytes,
                             range.length / sector_bytes, what));
  }
  void report(const std::string& when, const std::string& what) {
    if (!what.empty() && problem_.empty()) problem_ = fmt::format("{}: {}", when, what);
  }

  // --- the mover ---

  static const char* words(bool is_same) { return is_same ? "attach the same" : "attach"; }
  bool is_over() const { return is_dead_ || !problem_.empty(); }

  Task<Result<void>> move() {
    bool is_same = false;
    while (!is_over() && switchovers_left_ > 0) {
      // What the other side had not flushed is known to be unsettled.
      if (!is_same && world_.one_in(3)) platters_[1 - primary_].cut_power(world_);
      Platter& platter = platters_[1 - primary_];
      platter.is_hung = false;
      platter.fail_one_in = course_.target_fails && world_.one_in(2) ? 60 : 0;
      if (course_.target_hangs) plan_hang(platter);
      auto target = disk(1 - primary_);
      was_attached_ = true;
      WindowOptions options{
          .window_bytes = course_.window_bytes, .requests_max = 4, .request_bytes_max = 64u << 10};
      world_.trace(words(is_same));
      if (is_same && mirror_->copy_target()) {
        mirror_->let_go();  // what was the primary follows already
        (void)co_await target->close();
      } else if (is_same) {
        co_await attach_same(std::move(target), std::move(options));
      } else {
        mirror_->attach(std::move(target), std::move(options));
      }
      is_same = co_await copy_and_switch();
      if (!(is_same && switchovers_left_ > 0 && mirror_->copy_target())) {
        const auto left = co_await mirror_->detach();
        if (left) (void)co_await left->close();
      }
      platter.fail_one_in = 0;
      if (is_same && (switchovers_left_ == 0 || is_dead_)) mirror_->let_go();
      if (const auto former = co_await mirror_->take_former()) (void)co_await former->close();
    }
    co_return Result<void>{};
  }

  Task<void> attach_same(std::shared_ptr<BlockDevice> target, WindowOptions options) {
    mirror_->attach_same(std::move(target), std::move(options));
    mirror_->let_go();
    co_return;
  }

  void plan_hang(Platter& platter) {
    world_.after_steps(world_.random(2000), [this, &platter] {
      if (&platter != &platters_[1 - primary_]) return;
      platter.is_hung = true;
      world_.after_steps(1 + world_.random(1500), [&platter] { platter.is_hung = false; });
    });
  }

  /// True: they have changed places, and writes are held. What fails is tried again by who calls.
  Task<bool> copy_and_switch() {
    auto primary = mirror_->primary();
    auto target = mirror_->copy_target();
    CopyEngine engine(world_.context(), {*primary, *target},
                      {.request_bytes = 4 * granule_bytes, .requests = 3, .granularity_bytes = 512}, {});
    const MirrorWork::Options options{.request_bytes = 4 * granule_bytes};
    // Also once more on a target that has been written to.
    for (unsigned passes = world_.one_in(3) ? 2 : 1; passes > 0; --passes) {
      CopyPlan plan({*primary, target.get()}, {.source_bytes = course_.size_bytes,
                                               .target_bytes = course_.size_bytes,
                                               .align_bytes = granule_bytes,
                                               .request_bytes = 4 * granule_bytes,
                                               .gap_bytes_max = 2 * granule_bytes});
      MirrorWork bulk(*mirror_, &plan, options);
      if (!co_await engine.run(bulk)) co_return false;
    }
    const auto rounds = world_.random(4);
    for (std::uint64_t round = 0; round < rounds; ++round) {
      MirrorWork dirty(*mirror_, nullptr,
                       {.request_bytes = 4 * granule_bytes, .skip_recent = world_.one_in(2)});
      if (!co_await engine.run(dirty)) co_return false;
      if (world_.one_in(2) && !co_await mirror_->checkpoint()) co_return false;
      if (world_.one_in(3)) mirror_->next_age();
      if (world_.one_in(4)) mirror_->set_mode(static_cast<MirrorMode>(world_.random(3)));
    }
    if (!co_await mirror_->hold()) co_return false;
    if (!co_await finish(engine)) {
      mirror_->let_go();
      co_return false;
    }
    co_return true;
  }

  Task<Result<void>> finish(CopyEngine& engine) {
    while (mirror_->dirty_bytes() > 0) {
      MirrorWork dirty(*mirror_, nullptr, {.request_bytes = 4 * granule_bytes});
      DISKFERRY_CO_CHECK(co_await engine.run(dirty));
    }
    DISKFERRY_CO_CHECK(co_await mirror_->checkpoint());
    const auto old = mirror_->primary();
    DISKFERRY_CO_CHECK(co_await old->flush());
    if (is_dead_) co_return unexpected(cancelled_error("commit"));
    report("at the commit", model_.check(platters_[1 - primary_].durable, 0, model_.now()));
    const auto differs = std::ranges::mismatch(platters_[0].durable, platters_[1].durable).in1;
    if (differs != platters_[0].durable.end())
      report("at the commit",
             fmt::format("the disks differ in sector {}",
                         static_cast<std::uint64_t>(differs - platters_[0].durable.begin()) / sector_bytes));
    for (const std::uint64_t word : kept_) {
      if (word != 0) report("at the commit", "something is unsettled");
    }
    primary_ = 1 - primary_;  // the commit record
    --switchovers_left_;
    co_await mirror_->switch_over();
    if (switchovers_left_ > 0 && world_.one_in(2))
      mirror_->attach_former({.window_bytes = course_.window_bytes, .requests_max = 4});
    co_return Result<void>{};
  }

  Task<void> check_end() {
    std::vector<std::byte> all(course_.size_bytes);
    const auto since = model_.now();
    platters_[primary_].fail_one_in = 0;
    const auto done = co_await device_->read(0, all);
    if (!done) report("at the end", done.error().message());
    report("at the end", model_.check(all, 0, since));
  }

  World world_;
  const Course course_;
  SectorModel model_;
  std::array<Platter, 2> platters_;
  std::vector<std::uint64_t> kept_;
  std::vector<std::uint64_t> kept_at_death_;
  unsigned primary_ = 0;  // as the commit records say
  unsigned life_ = 0;
  unsigned deaths_ = 0;
  bool is_dead_ = false;
  bool is_stuck_ = false;
  bool was_attached_ = false;
  bool was_opened_ = false;
  std::array<unsigned, guests> steps_left_{};
  unsigned switchovers_left_ = 0;
  std::uint64_t contents_ = 0;
  std::string problem_;
  DevicePtr device_;
  MirrorDevice* mirror_ = nullptr;
};

class MirrorSimulation : public testing::TestWithParam<unsigned> {};
TEST_P(MirrorSimulation, LosesNothing) {
  run_seeds<Trial>(GetParam(), 10'000);
}
INSTANTIATE_TEST_SUITE_P(Part, MirrorSimulation, testing::Range(0u, parts));

}  // namespace
}  // namespace diskferry::sim
