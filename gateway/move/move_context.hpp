// What the parts of one move share: its record with the phases that are written into it, the other gateway,
// and the disks that go over. The coordinator owns it; the way of the move (move_way.hpp) works with it.
#pragma once

#include "gateway/hypervisor/libvirt.hpp"
#include "gateway/jobs/job_store.hpp"
#include "gateway/move/move_environment.hpp"
#include "gateway/move/move_state.hpp"
#include "gateway/move/preflight.hpp"
#include "gateway/move/source_disks.hpp"
#include "gateway/move/target_gateway.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

/// What the disks ask the move for; empty ones let everything pass.
struct SourceDisksHooks {
  std::function<Task<Result<void>>()> flushed{};      ///< as SourceDisksOptions::flushed
  std::function<Task<Result<void>>()> drop_caches{};  ///< as SourceDisksOptions::drop_caches
};

/// Thread: one reactor; but where said.
struct MoveContext {
  MoveContext(MoveEnvironment& environment, JobRecord job);
  MoveContext(const MoveContext&) = delete;
  MoveContext& operator=(const MoveContext&) = delete;

  MoveEnvironment& environment;
  JobRecord job;
  MoveRequest request{};
  MoveState state{};
  std::unique_ptr<TargetGateway> gateway{};  ///< null: not reached
  std::unique_ptr<SourceDisks> disks{};      ///< null: nothing is mirrored, or not any more
  LibvirtJob memory{};                       ///< how the memory goes over, as it was last seen
  std::uint64_t copied_bytes = 0;            ///< of a machine that is shut off
  const std::string socket;                  ///< where the hypervisor here mirrors to
  /// What the operator may change while it runs; 0: no bound. Thread: any.
  std::atomic<std::uint64_t> bytes_per_s = 0;
  std::atomic<std::uint64_t> max_pause_ms = 0;

  Clock& clock() const { return environment.drivers.clock; }
  unsigned connections() const;

  /// Takes the job's lease and reads what its record says. Errors: in_use, invalid_argument.
  Task<Result<void>> load(Duration lease);
  /// Writes the phase down; it is in force when that is durable. Errors: internal (it may not follow the
  /// present one), those of the job store.
  Task<Result<void>> enter(Phase next);
  /// Writes the state down with `changes`.
  Task<Result<void>> save(JobChanges changes);

  /// Notes the warnings. Errors: as refuse_blockers().
  Result<void> take_findings(const std::vector<Finding>& findings);
  Task<Result<void>> connect_gateway();
  /// Has the other gateway make and offer what the disks of the state go to. `monitor`: of the QEMU that
  /// waits there; empty: libvirt starts one.
  Task<Result<void>> prepare_targets(std::string monitor);
  /// Network storage that is not there yet; what this gateway made, it removes when the move is undone.
  Task<Result<void>> make_network_target(MoveDiskState& disk);
  Task<Result<void>> remove_network_targets();
  /// Opens the targets, and listens for the hypervisor here.
  Task<Result<void>> open_sources(SourceDisksHooks hooks);
  /// Ends what the other gateway has of this move, and waits for it as long as it is away.
  Task<Result<void>> finish_target(TargetEnd end, Duration limit);
  /// Nothing is mirrored any more; how far it came stays known.
  Task<void> stop_disks(bool keep_tables);

  /// Of the disks that are mirrored, or were.
  std::vector<SourceDisks::DiskStats> disk_stats() const;
  /// For those who watch now; it is not kept.
  void tell_progress(std::string text);
  /// How it stands, as JSON for `watch` and the job's progress events.
  std::string progress() const;

 private:
  Task<Result<void>> finish_once(TargetEnd end);
  void die_at(std::string_view prefix, Phase phase) const;
  Result<SourceDisk> source_disk(const MoveDiskState& disk) const;
  std::vector<SourceDisks::DiskStats> last_stats_{};
};

}  // namespace diskferry
