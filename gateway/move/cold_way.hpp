// A machine that is shut off: its disks are copied by the same engine as any image, its definition goes over,
// and the source keeps both until it is released. Nobody writes meanwhile, so there is no delta and no
// barrier.
#pragma once

#include "gateway/move/libvirt_ends.hpp"
#include "gateway/move/move_way.hpp"

namespace diskferry {

class ColdWay final : public MoveWay {
 public:
  explicit ColdWay(MoveContext& move) : move_(move) {}

  Task<Result<void>> connect() override { return ends_.connect(move_); }
  Task<Result<void>> connect_here() override { return ends_.connect_here(move_); }
  Task<Result<void>> prepare() override { return ends_.prepare(move_); }
  Task<Result<void>> migrate() override;
  Task<Result<void>> settle() override;
  /// A machine that is shut off decides nothing by itself: it is where its definition is.
  bool may_undo() const override { return true; }
  Task<void> let_source_go() override { return ends_.undefine_source(move_); }
  bool is_revertible() const override { return true; }
  Task<Result<void>> take_from_target() override;
  Task<void> close() override { return ends_.close(); }

 private:
  Task<Result<void>> copy(const MoveDiskState& disk);
  Task<Result<void>> switch_over();

  MoveContext& move_;
  LibvirtEnds ends_{};
};

}  // namespace diskferry
