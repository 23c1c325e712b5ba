// A machine under libvirt whose disks are exports of this gateway goes to another host by way of storage that
// both hosts reach: the exports come to be on it (a replacement), libvirt moves the memory alone, and the
// guest waits on the other host, paused, until this gateway has closed the storage. So one side writes at a
// time, always: the guest here through this gateway, and later the guest there by itself.
#pragma once

#include "gateway/move/libvirt_way.hpp"

#include <optional>
#include <string>
#include <vector>

namespace diskferry {

class ThroughWay final : public LibvirtWay {
 public:
  explicit ThroughWay(MoveContext& move) : LibvirtWay(move) {}

  Task<Result<void>> prepare() override;
  Task<Result<void>> migrate() override;
  Task<Result<void>> settle() override;
  bool may_undo() const override;
  bool knows_cause() const override { return true; }
  Task<void> undo() override;
  Task<void> let_source_go() override;
  Task<void> close() override { return ends_.close(); }

 private:
  // LiveMachine
  Task<Result<void>> start_post_copy() override;
  bool is_guest_stopped() const override;
  // LibvirtWay
  void heard(bool is_source, const LibvirtEvent& event) override;
  // through_way.cpp: the memory
  LibvirtMigration what_to_migrate() const;
  Task<Result<void>> migrate_memory();
  void measure_pause(TimePoint arrived, TimePoint closed);
  // through_storage.cpp: the exports
  std::vector<MoveDiskState*> rehomed();
  Task<Result<void>> replace_storage();
  Task<Result<void>> follow_replacement();
  Task<Result<void>> pass_on_limits(std::uint64_t& told_bytes_per_s);
  void tell_copied();
  Task<Result<void>> prove_storage();
  Task<void> end_replacement();
  Task<Result<void>> expect_ended(std::string id);
  void note_places();
  Task<Result<void>> expect_in_place(const MoveDiskState& disk);
  Task<Result<void>> close_storage();
  Task<Result<void>> withdraw(const MoveDiskState& disk);
  // through_outcome.cpp: who has the machine
  Task<Result<void>> find_out() override;
  Task<Result<void>> make_true(const WhoRuns& said);
  Task<Result<void>> end_target(const WhoRuns& said);
  Task<Result<void>> hand_over();
  Task<Result<void>> enter_for_sure(Phase next);
  Task<Result<void>> resume_there();

  std::optional<TimePoint> source_stopped_{};  // under guard_
};

}  // namespace diskferry
