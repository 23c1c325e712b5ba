// A machine under libvirt whose disks are exports of this gateway goes to another host by way of storage that
// both hosts reach: the exports come to be on it (a replacement), libvirt moves the memory alone, and the
// guest waits on the other host, paused, until this gateway has closed the storage. So one side writes at a
// time, always: the guest here through this gateway, and later the guest there by itself.
#pragma once

#include "gateway/move/libvirt_ends.hpp"
#include "gateway/move/live_way.hpp"

#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace diskferry {

class ThroughWay final : public LiveWay {
 public:
  explicit ThroughWay(MoveContext& move) : LiveWay(move) {}

  Task<Result<void>> connect() override { return ends_.connect(move_); }
  Task<Result<void>> connect_here() override { return ends_.connect_here(move_); }
  Task<Result<void>> prepare() override;
  Task<Result<void>> migrate() override;
  Task<Result<void>> settle() override;
  bool may_undo() const override;
  bool knows_cause() const override { return true; }
  Task<void> undo() override;
  Task<void> take_measures() override;
  Task<void> let_source_go() override;
  Task<void> close() override { return ends_.close(); }

 private:
  // LiveMachine
  Task<Result<LibvirtJob>> memory_job() override { return ends_.source->job(move_.job.subject); }
  Task<Result<void>> set_memory_rate(std::uint64_t bytes_per_s) override;
  Task<Result<void>> set_memory_pause_ms(std::uint64_t ms) override;
  Task<Result<void>> abort() override { return ends_.source->abort_job(move_.job.subject); }
  Task<Result<void>> suspend() override { return ends_.source->suspend(move_.job.subject); }
  Task<Result<void>> start_post_copy() override;
  bool is_guest_stopped() const override;
  // through_way.cpp: the memory
  LibvirtMigration what_to_migrate() const;
  Task<Result<void>> migrate_memory();
  Task<Result<void>> settle_failure(Error said);
  Error first_cause_of(const Error& said);
  void on_event(bool is_source, const LibvirtEvent& event);
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
  Task<WhoRuns> ask_both();
  Task<Result<void>> make_true(const WhoRuns& said);
  Task<Result<void>> end_target(const WhoRuns& said);
  Task<Result<void>> hand_over();
  Task<Result<void>> enter_for_sure(Phase next);
  Task<Result<void>> resume_there();

  LibvirtEnds ends_{};
  // What the hypervisors' threads tell.
  mutable std::mutex guard_;
  std::optional<TimePoint> source_stopped_{};
  std::optional<TimePoint> target_resumed_{};
  std::string source_ended_{};  ///< libvirt's words for how the machine ended there; empty: it did not
  std::string target_ended_{};
};

}  // namespace diskferry
