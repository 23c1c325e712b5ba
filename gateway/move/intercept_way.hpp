// A machine that runs under libvirt: libvirt mirrors the disks into our sockets, migrates the memory, and
// decides which host runs; the barrier makes that decision wait for the disks.
#pragma once

#include "gateway/move/barrier.hpp"
#include "gateway/move/guest_watch.hpp"
#include "gateway/move/libvirt_ends.hpp"
#include "gateway/move/live_way.hpp"

#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace diskferry {

class InterceptWay final : public LiveWay {
 public:
  explicit InterceptWay(MoveContext& move) : LiveWay(move) {}

  Task<Result<void>> connect() override { return ends_.connect(move_); }
  Task<Result<void>> connect_here() override { return ends_.connect_here(move_); }
  Task<Result<void>> prepare() override;
  Task<Result<void>> migrate() override;
  void refuse() override;
  bool knows_cause() const override { return is_cause_known_; }
  Task<void> undo() override;
  Task<void> take_measures() override;
  Task<void> let_source_go() override { return ends_.undefine_source(move_); }
  Task<void> close() override;

 private:
  // LiveMachine
  Task<Result<LibvirtJob>> memory_job() override { return ends_.source->job(move_.job.subject); }
  Task<Result<void>> set_memory_rate(std::uint64_t bytes_per_s) override;
  Task<Result<void>> set_memory_pause_ms(std::uint64_t ms) override;
  Task<Result<void>> abort() override { return ends_.source->abort_job(move_.job.subject); }
  Task<Result<void>> suspend() override { return ends_.source->suspend(move_.job.subject); }
  Task<Result<void>> start_post_copy() override { return ends_.source->start_post_copy(move_.job.subject); }
  bool is_guest_stopped() const override { return guest_->stopped_at().has_value(); }
  Task<Result<void>> looked() override;
  // intercept_way.cpp
  BarrierHooks barrier_hooks(Executor own);
  Task<Result<bool>> ask_whether_stopped();
  LibvirtMigration what_to_migrate() const;
  void on_event(bool is_source, const LibvirtEvent& event);
  Task<Result<void>> settle_failure(Error said);
  Error first_cause_of(Error said);
  void measure_pause();
  // intercept_outcome.cpp
  Task<Result<void>> find_out() override;
  bool may_have_gone_over() const;
  /// libvirt lets the source run where it lost sight of the target, which may run, too.
  Task<Result<void>> fence_source();
  Task<Result<void>> make_true(const WhoRuns& said);
  Task<WhoRuns> ask_both();

  LibvirtEnds ends_{};
  std::unique_ptr<GuestWatch> guest_{};
  std::unique_ptr<Barrier> barrier_{};
  bool was_given_up_ = false;  ///< because the machine that waited at the target ended
  bool is_cause_known_ = false;
  // What the hypervisor's threads tell.
  std::mutex guard_;
  std::optional<TimePoint> target_resumed_{};
  std::string source_ended_{};  ///< libvirt's words for how the machine ended there; empty: it did not
  std::string target_ended_{};
};

}  // namespace diskferry
