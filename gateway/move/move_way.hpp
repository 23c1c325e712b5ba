// The ways in which a machine gets to the other host. The coordinator has the list of steps, the record and
// the undo point, which are the same for all; a way does what differs: whom it asks, what goes over, and how
// it is found out who has the machine. A new way is a class here and a line in make_way().
//
//   through_way     it runs under libvirt from exports of this gateway: their storage becomes one that both
//                   hosts reach, and libvirt moves the memory
//   intercept_way   it runs under libvirt, which mirrors the disks into our sockets and decides who runs
//   qmp_way         it runs without libvirt: both QEMUs are driven from here, and our record decides
//   cold_way        it is shut off: its disks are copied and its definition goes over
#pragma once

#include "gateway/move/move_context.hpp"

#include <memory>

namespace diskferry {

/// Thread: all on the move's reactor. Errors are those of the hypervisors and gateways that are asked.
class MoveWay {
 public:
  virtual ~MoveWay() = default;

  /// Reaches the hypervisors of both hosts and the other gateway. May be called again after close().
  virtual Task<Result<void>> connect() = 0;
  /// Reaches the hypervisor of this host alone. Instead of connect(), for letting the source go.
  virtual Task<Result<void>> connect_here() = 0;
  /// Refuses what the preflight finds, chooses the disks' routes, and has targets and sources ready.
  virtual Task<Result<void>> prepare() = 0;
  /// Moves it. With success it belongs to the other host, and the phase is `switching`.
  /// Cancel: gives up what can be given up, and says where the machine is.
  virtual Task<Result<void>> migrate() = 0;

  /// For who comes after a crash: lets a guest go on that was left standing, where the record alone tells
  /// that it may. Before anybody else is asked.
  virtual Task<Result<void>> guest_first() { co_return Result<void>{}; }
  /// For who comes after a crash between `prepared` and the commit: finds out who has the machine. With
  /// success it is the other host.
  virtual Task<Result<void>> settle() = 0;

  /// Whether it is known that the machine is here, so that what was made there may be removed.
  virtual bool may_undo() const = 0;
  /// From now on nothing that the hypervisor here waits for is granted.
  virtual void refuse() {}
  /// The error of migrate() is the first cause, and not only what followed from it.
  virtual bool knows_cause() const { return false; }
  /// Ends what the hypervisors still have of this move. What fails is noted in the state.
  virtual Task<void> undo() { co_return; }

  /// While the source can still tell: what it measured.
  virtual Task<void> take_measures() { co_return; }
  /// The machine here is given up for good. What fails is noted in the state.
  virtual Task<void> let_source_go() = 0;
  /// It can be taken back from `retained`.
  virtual bool is_revertible() const { return false; }
  /// Takes the machine there away again. Errors also: in_use (it runs there; or it cannot be taken back).
  virtual Task<Result<void>> take_from_target();
  virtual Task<void> close() = 0;
};

/// The way that the request of a move asks for. Lifetime: the context outlives it.
std::unique_ptr<MoveWay> make_way(MoveContext& move);

}  // namespace diskferry
