// The coordinator of one move, on the source's gateway: a list of steps, each written down before it is done,
// and one undo point. Before the commit every failure ends in undo(), with the guest on the source; after it,
// it only goes forward, and a process that comes later goes on with resume().
//
// This is the way "intercept": libvirt mirrors the disks into our sockets, migrates the memory, and decides
// which host runs; the barrier makes that decision wait for the disks (docs/move-protocol.md).
#pragma once

#include "diskferry/driver.hpp"
#include "diskferry/task_group.hpp"
#include "gateway/hypervisor/libvirt.hpp"
#include "gateway/jobs/job_store.hpp"
#include "gateway/move/barrier.hpp"
#include "gateway/move/move_state.hpp"
#include "gateway/move/outcome.hpp"
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

 private:
  // coordinator.cpp: the list of steps
  Task<Result<void>> load();
  Task<Result<void>> forward();
  Task<Result<void>> undo(Error why);
  Task<Result<void>> find_out(bool may_wait);
  Task<Result<void>> settle_after_crash();
  Task<Result<void>> connect_again();
  bool may_undo() const noexcept;
  Task<Result<void>> take_over();
  // coordinator_prepare.cpp
  Task<Result<void>> connect();
  Task<Result<void>> prepare();
  Task<Result<void>> prepare_targets();
  Task<Result<void>> open_sources();
  Task<Result<void>> refuse_blockers_now();
  Task<Result<void>> rewrite(const VmDescription& vm);
  unsigned connections() const;
  // coordinator_cold.cpp
  class CopyProgress;
  Task<Result<void>> copy_cold();
  Task<Result<void>> switch_cold();
  // coordinator_switch.cpp
  Task<Result<void>> migrate();
  Task<Result<void>> supervise();
  Task<Result<void>> look_once();
  Task<Result<void>> act_on_timeout();
  Task<Result<WhoRuns>> ask_both();
  Task<std::optional<VmState>> ask_host(std::unique_ptr<Libvirt>& host, std::string uri);
  BarrierHooks barrier_hooks(Executor own);
  Task<Result<bool>> is_guest_stopped();
  Task<Result<void>> record_synchronized();
  void on_event(bool is_source, const LibvirtEvent& event);
  void measure_pause();
  // coordinator_end.cpp
  Task<Result<void>> commit();
  Task<Result<void>> let_source_go();
  Task<Result<void>> release_taken_over();
  Task<Result<void>> revert_taken_over();
  Task<Result<void>> finish_target(TargetEnd end);
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
  std::unique_ptr<Barrier> barrier_;
  std::unique_ptr<SourceDisks> disks_;
  std::optional<Outcome> outcome_{};

  // What the hypervisor's threads and the supervisor see.
  mutable std::mutex guard_;
  LibvirtJob memory_{};
  std::optional<TimePoint> source_stopped_{};
  std::optional<TimePoint> target_resumed_{};
  std::atomic<std::uint64_t> bytes_per_s_ = 0;
  std::atomic<std::uint64_t> max_pause_ms_ = 0;
  std::atomic<bool> is_over_ = false;
  bool has_suspended_ = false;
  bool has_post_copied_ = false;
  bool has_timed_out_ = false;
  std::vector<SourceDisks::DiskStats> final_stats_{};
  std::uint64_t copied_bytes_ = 0;
};

/// "https://HOST:PORT" of the gateway beside a libvirt URI, where the request names none. Errors:
/// invalid_argument (no host).
Result<std::string> gateway_beside(std::string_view libvirt_uri);

}  // namespace diskferry
