// One replacement in a simulated world: guests write to exports, the storage behind them is replaced, and
// storages fail, are cut off, the job's record cannot be written, operators pause, cancel, commit and take
// back, and the gateway dies and comes back at any step. What was acknowledged is there at the end, exactly
// one side is in charge at any time, all disks are on the same side whenever a gateway begins, and every job
// ends.
#pragma once

#include "diskferry/task_group.hpp"
#include "gateway/jobs/event_bus.hpp"
#include "gateway/move/replacement.hpp"
#include "tests/simulation/exports.hpp"
#include "tests/simulation/journal.hpp"
#include "tests/simulation/storages.hpp"
#include "tests/support/test_runtime.hpp"

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

namespace diskferry::sim {

/// A cut that begins at one request of the commit.
struct PlannedCut {
  enum class Side : std::uint8_t { its_own, other, both };
  std::uint64_t at = 0;  ///< so many requests to storages after `synchronized`; 0: none
  Side side = Side::its_own;
  Link::Cut how{};
  std::uint64_t heals_after_steps = 1;
};

/// What a run is made of; all of it follows from the seed.
struct Course {
  unsigned disks = 1;
  std::uint64_t size_bytes = 0;
  std::uint64_t content = 1;  ///< of the old storage
  unsigned steps = 0;         ///< of each guest
  unsigned rest_ms = 400;     ///< of a guest, at most: one that rests long is there when the job ends
  unsigned target_faults = 0;
  unsigned journal_faults = 0;
  unsigned cuts = 0;  ///< at any time
  bool gateway_dies = false;
  bool borrowing_fails = false;
  bool caches_are_lost = false;
  bool operator_cancels = false;
  enum class Operator : std::uint8_t { anybody, commits, takes_back };
  Operator who_operates = Operator::anybody;
  PlannedCut planned_cut{};
  ReplaceRequest request{};
  bool has_cuts() const { return cuts != 0 || planned_cut.at != 0; }
};

Course random_course(World& world);
/// As those of one part of the commit: nothing else goes wrong.
Course quiet_course(World& world, bool takes_back);
Link::Cut random_cut(World& world);

class ReplacementTrial {
 public:
  explicit ReplacementTrial(std::uint64_t seed, const std::function<Course(World&)>& course = random_course);

  /// Empty: all was as it must be.
  std::string run();
  /// It cannot be taken apart then.
  bool is_stuck() const { return is_stuck_; }
  /// Of storages, from `synchronized` to the end of `retained`.
  std::uint64_t requests_of_commit() const { return requests_; }
  const JobRecord& job() const { return journal_.job(); }
  unsigned failed_guests() const { return failed_guests_; }

 private:
  struct Charge;
  static constexpr std::uint64_t granule_bytes = 64 * kib;
  static constexpr unsigned guests_per_disk = 2;
  friend Course random_course(World& world);
  friend Course quiet_course(World& world, bool takes_back);

  // replacement_trial.cpp: lives of the gateway, the job, and who looks after it
  Task<Result<void>> live();
  Task<Result<void>> open_exports();
  Task<Result<void>> open_reachable();
  void note_charge();
  void die(unsigned life);
  void end_life();
  void die_soon(std::uint64_t one_in, std::uint64_t within_steps);
  void die_near_swap();
  void read_maps();
  void put_maps_back();
  ReplaceEnvironment& make_environment();
  Task<bool> take_up();
  Task<Result<void>> run_job(bool is_up);
  Task<Result<void>> operate();
  void act(unsigned acts);
  void set_max_pause(std::uint64_t ms);
  void spoil_target();
  void spoil_journal();
  static void heal(Platter& platter);
  void heal_disks();
  void heal();

  // replacement_guests.cpp: guests, and what must be
  Task<Result<void>> use(unsigned guest);
  Range random_range(std::uint64_t sectors_most);
  Task<void> write(unsigned disk, Range range);
  Task<void> zero(unsigned disk, Range range, bool is_discard);
  Task<void> read(unsigned disk, Range range);
  Task<void> flush(unsigned disk);
  void note(const Result<void>& done, std::string_view verb, const Charge& before);
  void check_charge(unsigned disk, Range range);
  void places_changed();
  void check_same();
  void check_maps();
  void check_map(unsigned disk, std::string_view file);
  Task<void> check_end();

  // replacement_cuts.cpp: storages that are cut off, and what may come to the side that is not in charge
  void watch_cuts();
  void note_request(unsigned disk, bool is_new);
  void cut(Platter& platter, const Link::Cut& how, std::uint64_t heals_after_steps);
  void cut_somebody_off();
  void heal_links();
  bool is_charge_cut_off();
  std::uint64_t given_up();
  Charge charge_of(unsigned disk);
  void begin_charge(unsigned disk);
  void note_put(unsigned disk, bool is_new, Range range);

  void report(std::string_view when, const std::string& problem);
  void trace(const char* verb, unsigned disk, Range range, const char* what);
  /// As the records say.
  bool is_replaced(unsigned disk) const;
  Volume& volume_of(unsigned disk, bool is_new) {
    return *storages_.find(fmt::format("{}{}", is_new ? "new" : "old", disk));
  }
  static std::string name_of(unsigned disk) { return fmt::format("disk{}", disk); }
  static std::string source_of(unsigned disk) { return Storages::uri_of(fmt::format("old{}", disk)); }

  World world_;
  const Course course_;
  test::TemporaryFolder folder_;
  Storages storages_;
  EventBus bus_;
  Journal journal_;
  std::deque<test::SectorModel> models_;
  std::optional<Exports> exports_;
  std::optional<ReplaceEnvironment> environment_;
  std::optional<Replacement> replacement_;
  TaskGroup* job_ = nullptr;
  TaskGroup* users_ = nullptr;
  std::map<std::string, std::string> maps_;  // files as they were when the gateway died
  std::vector<unsigned> steps_left_;
  /// Of each disk, what each sector of the side in charge has held since it is in charge.
  std::vector<std::unordered_set<std::uint64_t>> held_;
  std::uint64_t requests_ = 0;
  unsigned life_ = 0;
  unsigned deaths_ = 0;
  unsigned faults_ = 0;
  unsigned journal_faults_ = 0;
  unsigned cuts_ = 0;
  unsigned failed_guests_ = 0;
  std::uint64_t contents_ = 0;
  bool has_ended_ = false;
  bool is_dead_ = false;
  bool is_up_ = false;  // the job: operators reach it
  bool is_stuck_ = false;
  bool is_void_ = false;
  bool is_over_ = false;
  std::string problem_;
};

/// Who was in charge of a disk, and what had failed because it was cut off.
struct ReplacementTrial::Charge {
  unsigned disk = 0;
  bool is_new = false;
  std::uint64_t given_up_old = 0;
  std::uint64_t given_up_new = 0;
};

}  // namespace diskferry::sim
