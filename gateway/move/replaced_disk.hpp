// One disk of a replacement: its target, the mirror behind its export, and the copying. The replacement (the
// job) says when; nothing here decides on a switchover.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/copy/engine.hpp"
#include "gateway/mirror/difference_file.hpp"
#include "gateway/mirror/mirror_device.hpp"
#include "gateway/move/endpoints.hpp"
#include "gateway/move/replace_request.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <string>

namespace diskferry {

struct ReplacedDiskOptions {
  std::string map_path{};  ///< of the file of what differs
  std::uint64_t window_bytes = 64u << 20;
  std::shared_ptr<CopyPace> pace{};  ///< of all copies here
  Duration latency_max{};            ///< what a guest's write may wait for the target
  unsigned connections = 0;
  bool overwrite = false;
  bool was_made = false;  ///< the target, by an earlier process of this job: it may be used
};

/// Where a disk is, for those who watch.
struct ReplacedDiskStats {
  std::string name{};
  std::uint64_t size_bytes = 0;
  std::uint64_t frontier_bytes = 0;  ///< where the first pass is
  MirrorStats mirror{};
  WindowStats window{};
  std::uint64_t rounds = 0;
  std::uint64_t unreadable_bytes = 0;  ///< of the old storage, skipped
};

/// Thread: one reactor, but where said. Lifetime: end() before destruction, where begin() was called.
class ReplacedDisk {
 public:
  /// `state` is the job's record of this disk; what is found out is noted in it. Lifetime: of all.
  ReplacedDisk(DriverContext& context, Endpoints& endpoints, ReplaceDiskState& state,
               ReplacedDiskOptions options);
  ~ReplacedDisk();
  ReplacedDisk(const ReplacedDisk&) = delete;
  ReplacedDisk& operator=(const ReplacedDisk&) = delete;

  /// Borrows the export and looks at the target, which is not touched. Errors: those of Endpoints::borrow()
  /// and of looking; already_exists, in_use (both are one storage), too_large.
  Task<Result<void>> look();
  /// After look(): the target is not there.
  bool makes_target() const noexcept { return makes_target_; }
  /// Makes the target, where it is not there. Errors: no_space, permission, and those of the storage.
  Task<Result<void>> make_target();
  /// Once it is there: notes which storage it is. Errors: those of the storage.
  Task<Result<void>> identify_target();
  /// Puts the mirror behind the export. `is_again`: what an earlier process noted still holds, if the export
  /// is where the job's record has it, which is the target where that is in charge. Errors: no_space (the
  /// map), mismatch.
  Task<Result<void>> begin(bool is_again, bool target_is_in_charge);
  /// Opens the target, or the old storage where that `is_back`, and has it follow. Errors: those of the
  /// storage, too_large.
  Task<Result<void>> attach(bool is_back);
  /// Copies until nothing is dirty but what guests keep writing, and goes on with that. Returns only with an
  /// error: of the target, which follows no more; of the primary, naming the place; cancelled.
  Task<Result<void>> follow();
  /// Nothing follows any more; what the target has is noted. It can be attached again.
  Task<void> detach() { return let_target_go(true); }

  /// The first pass is over, what guests do not write all the time was copied once more, and what waited to
  /// be sent then is at the target.
  bool is_in_step() const noexcept { return is_in_step_; }
  MirrorDevice& mirror() noexcept { return *mirror_; }

  /// Whether places of the old storage that cannot be read are skipped, and listed, or end follow().
  void set_skips_unreadable(bool skips) { salvage_.set_skips(skips); }
  /// What was skipped and must not be (any more): the target is none to change places with.
  bool has_loss_to_take_up() const;
  /// Why follow() or copy_rest() ended, where it was the old storage.
  std::optional<Error> read_failure() const { return salvage_.failure(); }
  /// Notes in the job's record what was skipped; whether that has changed. What is not written down there is
  /// not forgotten by the map of what differs.
  bool note_loss();

  /// Guests' writes wait from now on, until let_go(). Errors: cancelled, and then none waits.
  Task<Result<void>> hold() { return mirror_->hold(); }
  void let_go() { mirror_->let_go(); }
  /// With guests' writes held: copies what is left. Errors: as follow().
  Task<Result<void>> copy_rest();
  /// With guests' writes held, and nothing left: primary and target are durable. Errors: theirs.
  Task<Result<void>> make_durable();
  /// After that: the target is in charge, and the old storage follows it where `keep_in_step`.
  Task<void> switch_over(bool keep_in_step);

  /// The export is what is in charge now; mirror and map are gone, and what is not in charge is closed.
  /// Without begin(): the export is what it was.
  Task<Result<void>> end(bool target_is_in_charge);
  /// The process ends and a later one goes on: the mirror stays behind the export until that closes it, and
  /// notes what guests write. Precondition: detach().
  void leave();
  ReplacedDiskStats stats() const;

 private:
  Task<Result<void>> begin_now(bool is_again, bool target_is_in_charge);
  Result<void> check_place(bool target_is_in_charge) const;
  bool remove_map() const;
  Task<Result<void>> check_follower(std::string name, std::string identity);
  Task<Result<std::shared_ptr<BlockDevice>>> open_side(std::string name, std::string format);
  Task<Result<void>> bulk(CopyEngine& engine, BlockDevice& primary, BlockDevice& target);
  Task<Result<void>> rounds(CopyEngine& engine, BlockDevice& primary);
  Task<Result<void>> copy_all(CopyEngine& engine, BlockDevice& primary, BlockDevice& target);
  Task<Result<void>> checkpoints();
  Task<Result<void>> checkpoint();
  Task<void> let_target_go(bool may_come_back);
  Task<Result<void>> take_up_loss(BlockDevice& primary);
  EngineHooks hooks(std::function<void()> progress);

  DriverContext& context_;
  Endpoints& endpoints_;
  ReplaceDiskState& state_;
  const ReplacedDiskOptions options_;
  Endpoints::Lent lent_{};
  std::shared_ptr<BlockDevice> checked_mirror_{};       // what clients use
  MirrorDevice* mirror_ = nullptr;                      // the same
  std::shared_ptr<std::atomic<bool>> primary_keeps_{};  // of both: as KeepOptions::is_on
  std::shared_ptr<std::atomic<bool>> target_keeps_{};
  bool is_borrowed_ = false;
  bool makes_target_ = false;
  bool is_bulk_done_ = false;
  bool old_is_primary_ = true;
  Salvage salvage_;
  std::uint64_t loss_noted_ = 0;  // Salvage::changes()
  TimePoint look_again_at_{};     // at what was skipped
  std::atomic<bool> is_in_step_ = false;
  std::atomic<std::uint64_t> frontier_bytes_ = 0;
  std::atomic<std::uint64_t> rounds_ = 0;
};

}  // namespace diskferry
