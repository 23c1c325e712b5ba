// What both ways of moving a machine that runs have in common: a supervisor, and an outcome that has to be
// known before anything is removed.
#pragma once

#include "gateway/move/move_way.hpp"
#include "gateway/move/outcome.hpp"
#include "gateway/move/supervisor.hpp"

#include <optional>

namespace diskferry {

class LiveWay : public MoveWay, protected LiveMachine {
 public:
  bool may_undo() const override;
  Task<Result<void>> settle() override;

 protected:
  explicit LiveWay(MoveContext& move) : move_(move), supervisor_(move, *this) {}
  /// Asks until it is known who has the machine, and sets the outcome. Errors: timed_out.
  virtual Task<Result<void>> find_out() = 0;
  /// The gateway ended while the machine moved, and the guest is here.
  Error ended_without_us() const;
  Error runs_twice() const;
  /// `remedy`: what to do, where the move took longer than allowed.
  Error took_too_long(std::string remedy) const;

  MoveContext& move_;
  Supervisor supervisor_;
  std::optional<Outcome> outcome_{};
};

}  // namespace diskferry
