// A machine that runs under libvirt: libvirt mirrors the disks into our sockets, migrates the memory, and
// decides which host runs; the barrier makes that decision wait for the disks.
#pragma once

#include "gateway/move/barrier.hpp"
#include "gateway/move/guest_watch.hpp"
#include "gateway/move/libvirt_way.hpp"

#include <memory>

namespace diskferry {

class InterceptWay final : public LibvirtWay {
 public:
  explicit InterceptWay(MoveContext& move) : LibvirtWay(move) {}

  Task<Result<void>> prepare() override;
  Task<Result<void>> migrate() override;
  void refuse() override;
  bool knows_cause() const override { return is_cause_known_; }
  Task<void> undo() override { return take_rate_back(); }
  Task<void> let_source_go() override { return ends_.undefine_source(move_); }
  Task<void> close() override;

 private:
  // LiveMachine
  Task<Result<void>> start_post_copy() override { return ends_.source->start_post_copy(move_.job.subject); }
  bool is_guest_stopped() const override { return guest_->stopped_at().has_value(); }
  Task<Result<void>> looked() override;
  // LibvirtWay
  void heard(bool is_source, const LibvirtEvent& event) override;
  Task<void> before_asking() override;
  // intercept_way.cpp
  BarrierHooks barrier_hooks(Executor own);
  Task<Result<bool>> ask_whether_stopped();
  LibvirtMigration what_to_migrate() const;
  void measure_pause();
  // intercept_outcome.cpp
  Task<Result<void>> find_out() override;
  bool may_have_gone_over() const;
  /// libvirt lets the source run where it lost sight of the target, which may run, too.
  Task<Result<void>> fence_source();
  Task<Result<void>> make_true(const WhoRuns& said);
  Task<WhoRuns> ask_whom_to_believe();

  std::unique_ptr<GuestWatch> guest_{};
  std::unique_ptr<Barrier> barrier_{};
};

}  // namespace diskferry
