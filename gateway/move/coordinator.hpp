// The coordinator of one move, on the source's gateway: a list of steps, each written down before it is done,
// and one undo point. Before the commit every failure ends in undo(), with the guest on the source; after it,
// it only goes forward, and a process that comes later goes on with resume().
//
// Two ways for a machine that runs. "intercept": libvirt mirrors the disks into our sockets, migrates the
// memory, and decides which host runs; the barrier makes that decision wait for the disks. "qmp", without
// libvirt: this coordinator drives both QEMUs, and its record decides (docs/move-protocol.md).
#pragma once

#include "diskferry/driver.hpp"
#include "diskferry/task_group.hpp"
#include "gateway/hypervisor/libvirt.hpp"
#include "gateway/jobs/job_store.hpp"
#include "gateway/move/barrier.hpp"
#include "gateway/move/guest_watch.hpp"
#include "gateway/move/move_state.hpp"
#include "gateway/move/outcome.hpp"
#include "gateway/move/preflight.hpp"
#include "gateway/move/qmp_ends.hpp"
#include "gateway/move/source_disks.hpp"
#include "gateway/move/target_gateway.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <string>

namespace diskferry {

/// What the daemon lends to its moves.
struct MoveEnvironment {
  DriverContext& drivers;
  JobStore& jobs;
  EventBus& bus;
  std::string controller{};                    ///< this process's name in leases
  std::string libvirt_uri = "qemu:///system";  ///< of this host
  std::string run_folder = "/run/diskferry";   ///< each move has a folder of its own in it
  std::string state_folder = "/var/lib/diskferry";
  std::string qmp_sockets_folder{};  ///< of the monitors that may be opened; empty: none
  std::int64_t hypervisor_uid = -1;
  std::int64_t hypervisor_gid = -1;
  std::uint64_t window_bytes = 64ull << 20;
  unsigned connections = 4;
  GatewayFacts here{};
  std::string address_here{};  ///< where other hosts reach this gateway; empty: nowhere
  /// The gateway of another host. `address`: as in MoveRequest::gateway.
  std::function<Task<Result<std::unique_ptr<TargetGateway>>>(std::string address)> connect_gateway;
};

/// Thread: run() and resume() once, on one reactor, which everything else is called on, too; but where said.
class Coordinator {
 public:
  Coordinator(MoveEnvironment& environment, JobRecord job);
  ~Coordinator();
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  /// The move, from wherever its record says it is, to its end. Cancel: undoes what can be undone, and ends;
  /// after the commit it has no effect. Errors: why it was undone. What is left is in the record.
  Task<Result<void>> run();
  /// Lets a retained source go. Instead of run(). Errors: in_use in another phase.
  Task<Result<void>> release();
  /// Takes a cold move back: the machine is defined here again, and there no more. Instead of run(). Errors:
  /// in_use in another phase, or where the machine runs there.
  Task<Result<void>> revert();

  /// How it stands, as JSON for `watch` and the job's progress events.
  std::string progress() const;
  /// Thread: any. 0: no bound.
  void set_bytes_per_s(std::uint64_t bytes_per_s);
  void set_max_pause_ms(std::uint64_t ms);
  /// Thread: any. The cancellation that follows is the end of this gateway, and nobody's wish for the move's.
  void gateway_stops() noexcept { is_gateway_stopping_ = true; }

 private:
  // coordinator.cpp: the list of steps
  Task<Result<void>> load();
  Task<Result<void>> forward();
  Task<Result<void>> undo(Error why);
  Task<Result<void>> settle_after_crash();
  Task<Result<void>> connect_again();
  bool may_undo() const noexcept;
  Task<Result<void>> take_over();
  // coordinator_prepare.cpp
  Task<Result<void>> connect();
  Task<Result<void>> connect_gateway();
  Task<Result<void>> prepare();
  Task<Result<void>> prepare_targets();
  Task<Result<void>> open_sources();
  /// Returns what it found out on the way.
  Task<Result<PreflightFacts>> refuse_blockers_now();
  Task<Result<void>> rewrite(const PreflightFacts& facts);
  unsigned connections() const;
  // coordinator_cold.cpp
  class CopyProgress;
  Task<Result<void>> copy_cold();
  Task<Result<void>> switch_cold();
  // coordinator_switch.cpp
  Task<Result<void>> migrate();
  Task<Result<void>> supervise();
  Task<Result<void>> look_once();
  Task<Result<void>> apply_limits(std::uint64_t disk_rate);
  Task<Result<void>> act_on_timeout();
  BarrierHooks barrier_hooks(Executor own);
  Task<Result<bool>> ask_whether_stopped();
  std::function<Task<Result<void>>()> drop_caches_hook(Executor own);
  Task<Result<void>> record_synchronized();
  void on_event(bool is_source, const LibvirtEvent& event);
  void measure_pause();
  Task<Result<void>> give_up_without_target();
  Error first_cause_of(Error said);
  Error cancelled_by() const;
  // coordinator_outcome.cpp
  bool may_have_gone_over() const;
  /// libvirt lets the source run where it lost sight of the target, which may run, too.
  Task<Result<void>> fence_source();
  Task<Result<void>> find_out();
  Task<Result<void>> make_true(const WhoRuns& said);
  Task<WhoRuns> ask_both();
  Task<std::optional<VmCondition>> ask_host(std::unique_ptr<Libvirt>& host, std::string uri);
  // coordinator_qmp.cpp; the last three are for both ways
  Result<void> make_ends();
  Task<Result<void>> connect_by_qmp();
  Task<Result<void>> prepare_by_qmp();
  Task<Result<QmpMigrationPlan>> plan_by_qmp();
  /// What is added to the QEMU here; without the machine, enough to remove it.
  std::vector<QmpDisk> mirrors(const QmpMachine* machine) const;
  Task<Result<void>> before_qmp_step(QmpStep step);
  Task<Result<void>> barrier_by_qmp();
  Task<Result<void>> migrate_by_monitors();
  Task<Result<void>> settle_by_qmp(const QmpMigrationEnd& end);
  Task<Result<void>> find_out_by_qmp();
  Task<Result<void>> take_back_by_monitors();
  bool has_begun() const noexcept;
  Task<Result<void>> guest_first();
  Task<Result<void>> end_qmp_target();
  Task<void> undo_by_qmp();
  Task<void> let_qmp_source_go();
  Task<Result<LibvirtJob>> memory_job();
  Task<Result<void>> set_memory_rate(std::uint64_t bytes_per_s);
  Task<Result<void>> abort_at_source();
  // coordinator_end.cpp
  Task<Result<void>> commit();
  Task<Result<void>> let_source_go();
  Task<Result<void>> release_taken_over();
  Task<Result<void>> revert_taken_over();
  Task<Result<void>> finish_target(TargetEnd end, Duration limit);
  Task<Result<void>> finish_once(TargetEnd end);
  Task<void> close();

  Task<Result<void>> enter(Phase next);
  Task<Result<void>> save(JobChanges changes);
  std::string socket() const { return move_socket_path_; }

  MoveEnvironment& environment_;
  JobRecord job_;
  MoveRequest request_;
  MoveState state_;
  std::string move_socket_path_;
  std::unique_ptr<Libvirt> source_;
  std::unique_ptr<Libvirt> target_;
  std::unique_ptr<TargetGateway> gateway_;
  std::unique_ptr<GuestWatch> guest_;
  std::unique_ptr<QmpEnds> ends_;  // of the way "qmp"; source_ and target_ are null then
  std::string target_monitor_{};   // of the way "qmp"
  struct {
    TimePoint stopped, mirrors_ended, durable;
  } qmp_times_{};
  std::unique_ptr<Barrier> barrier_;
  std::unique_ptr<SourceDisks> disks_;
  std::optional<Outcome> outcome_{};

  // What the hypervisor's threads and the supervisor see.
  mutable std::mutex guard_;
  LibvirtJob memory_{};
  std::optional<TimePoint> target_resumed_{};
  std::string source_ended_{};  ///< libvirt's words for how the machine ended there; empty: it did not
  std::string target_ended_{};
  std::atomic<std::uint64_t> bytes_per_s_ = 0;
  std::atomic<std::uint64_t> max_pause_ms_ = 0;
  std::atomic<bool> is_over_ = false;
  std::atomic<bool> is_gateway_stopping_ = false;
  std::uint64_t told_bytes_per_s_ = 0;  ///< the limits that the parts of the move know of
  std::uint64_t told_pause_ms_ = 0;
  bool has_suspended_ = false;
  bool has_post_copied_ = false;
  bool has_timed_out_ = false;
  bool was_given_up_ = false;  ///< because the machine that waited at the target ended
  bool is_cause_known_ = false;
  bool has_lost_source_ = false;  ///< the connection to libvirt there
  bool has_lost_target_ = false;
  std::vector<SourceDisks::DiskStats> final_stats_{};
  std::uint64_t copied_bytes_ = 0;
};

/// "https://HOST:PORT" of the gateway beside a libvirt URI, where the request names none. Errors:
/// invalid_argument (no host).
Result<std::string> gateway_beside(std::string_view libvirt_uri);

}  // namespace diskferry
