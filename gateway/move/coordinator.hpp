// The coordinator of one move, on the source's gateway: a list of steps, each written down before it is done,
// and one undo point. Before the commit every failure ends in undo(), with the guest on the source; after it,
// it only goes forward, and a process that comes later goes on from the record. What the hypervisors are
// asked for is the matter of the move's way (move_way.hpp).
#pragma once

#include "gateway/move/move_context.hpp"
#include "gateway/move/move_way.hpp"

#include <atomic>
#include <functional>
#include <memory>

namespace diskferry {

/// Thread: run(), release() and revert() once, on one reactor, which everything else is called on, too; but
/// where said.
class Coordinator {
 public:
  using MakeWay = std::function<std::unique_ptr<MoveWay>(MoveContext&)>;

  /// `make` is for tests.
  Coordinator(MoveEnvironment& environment, JobRecord job, MakeWay make = make_way);
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

  /// Thread: any. 0: no bound.
  void set_bytes_per_s(std::uint64_t bytes_per_s) { move_.bytes_per_s = bytes_per_s; }
  void set_max_pause_ms(std::uint64_t ms) { move_.max_pause_ms = ms; }
  /// Thread: any. The cancellation that follows is the end of this gateway, and nobody's wish for the move's.
  void gateway_stops() noexcept { is_gateway_stopping_ = true; }

 private:
  Task<Result<void>> forward();
  Task<Result<void>> connect() { return way_->connect(); }
  Task<Result<void>> prepare();
  Task<Result<void>> migrate() { return way_->migrate(); }
  Task<Result<void>> commit();
  Task<Result<void>> let_source_go();
  Task<Result<void>> undo(Error why);
  Error cause_to_tell(Error why) const;
  Task<Result<void>> note_end(Result<void> result);
  Task<void> close();
  // coordinator_resume.cpp: what a later process does
  Task<Result<void>> settle_after_crash();
  Task<Result<void>> connect_once();
  Task<Result<void>> connect_again();
  Task<Result<void>> take_over();
  Task<Result<void>> release_taken_over();
  Task<Result<void>> revert_taken_over();

  MoveContext move_;
  const MakeWay make_way_;
  std::unique_ptr<MoveWay> way_{};  ///< null before the record was read
  std::atomic<bool> is_gateway_stopping_ = false;
};

}  // namespace diskferry
