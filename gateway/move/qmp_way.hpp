// A machine that runs without libvirt: this gateway drives both QEMUs by their monitors, and is the one that
// decides which host runs. So it writes `switching` down before the destination is told to run: a process
// that comes later knows from the record alone whether the source may go on.
#pragma once

#include "gateway/move/live_way.hpp"
#include "gateway/move/qmp_ends.hpp"

#include <memory>
#include <string>
#include <vector>

namespace diskferry {

class QmpWay final : public LiveWay {
 public:
  explicit QmpWay(MoveContext& move) : LiveWay(move) {}

  Task<Result<void>> connect() override;
  Task<Result<void>> connect_here() override { co_return make_ends(); }
  Task<Result<void>> prepare() override;
  Task<Result<void>> migrate() override;
  Task<Result<void>> guest_first() override;
  Task<void> undo() override;
  Task<void> let_source_go() override;
  Task<void> close() override;

 private:
  // LiveMachine
  Task<Result<LibvirtJob>> memory_job() override;
  Task<Result<void>> set_memory_rate(std::uint64_t bytes_per_s) override;
  Task<Result<void>> set_memory_pause_ms(std::uint64_t ms) override;
  Task<Result<void>> abort() override;
  Task<Result<void>> suspend() override;
  Task<Result<void>> start_post_copy() override;
  bool is_guest_stopped() const override { return times_.stopped != TimePoint{}; }

  Result<void> make_ends();
  Task<Result<QmpMigrationPlan>> plan();
  /// What is added to the QEMU here; without the machine, enough to remove it.
  std::vector<QmpDisk> mirrors(const QmpMachine* machine) const;
  Task<Result<void>> set_parameter(std::string name, std::uint64_t value);
  Task<Result<void>> before_step(QmpStep step);
  Task<Result<void>> barrier();
  Task<Result<void>> settle_end(const QmpMigrationEnd& end);
  void measure_pause(const QmpMigrationEnd& end);
  Task<Result<void>> find_out() override;
  Task<Result<void>> take_back();
  bool has_begun() const;
  Task<Result<void>> end_target();

  std::unique_ptr<QmpEnds> ends_{};
  struct {
    TimePoint stopped, mirrors_ended, durable;
  } times_{};
};

}  // namespace diskferry
