// What the ways of a machine that runs under libvirt have in common: both hypervisors, what they tell while
// it moves, and why it has failed.
#pragma once

#include "gateway/move/libvirt_ends.hpp"
#include "gateway/move/live_way.hpp"

#include <mutex>
#include <optional>
#include <string>

namespace diskferry {

class LibvirtWay : public LiveWay {
 public:
  Task<Result<void>> connect() override { return ends_.connect(move_); }
  Task<Result<void>> connect_here() override { return ends_.connect_here(move_); }
  Task<void> take_measures() override;

 protected:
  /// How long it is tried to learn from both hosts which of them has the machine. A host that comes back
  /// after a reboot answers within it.
  static constexpr Duration find_out_limit = std::chrono::minutes(15);
  static constexpr Duration find_out_pause = std::chrono::milliseconds(500);

  explicit LibvirtWay(MoveContext& move) : LiveWay(move) {}
  // LiveMachine
  Task<Result<LibvirtJob>> memory_job() override { return ends_.source->job(move_.job.subject); }
  Task<Result<void>> set_memory_rate(std::uint64_t bytes_per_s) override;
  Task<Result<void>> set_memory_pause_ms(std::uint64_t ms) override;
  Task<Result<void>> abort() override { return ends_.source->abort_job(move_.job.subject); }
  Task<Result<void>> suspend() override { return ends_.source->suspend(move_.job.subject); }

  /// What happens to the machine on both hosts is told to heard() from now on.
  Task<Result<void>> watch();
  /// Thread: the hypervisors'.
  virtual void heard(bool is_source, const LibvirtEvent& event) = 0;
  /// What the request and the record say of every migration.
  LibvirtMigration memory_migration() const;
  /// What both hosts say of the machine, as far as they can be asked.
  Task<WhoRuns> ask_both();
  /// Ends the machine there; one that is gone has ended.
  Task<Result<void>> destroy(Libvirt& host) const;
  /// It went on on the other host, and must never go on here.
  Task<Result<void>> end_paused_source(const WhoRuns& said);
  /// libvirt says that the migration failed. A success where it has gone over all the same. `remedy`: where
  /// it took too long.
  Task<Result<void>> settle_failure(Error said, std::string remedy);
  /// Before anybody is asked who has it.
  virtual Task<void> before_asking() { co_return; }
  /// libvirt would keep the memory's rate for the machine's next migration, whoever asks for that.
  Task<void> take_rate_back();

  LibvirtEnds ends_{};
  bool was_given_up_ = false;  ///< because the machine that waited at the target ended
  bool is_cause_known_ = false;
  // What the hypervisors' threads tell.
  mutable std::mutex guard_;
  std::optional<TimePoint> target_resumed_{};
  std::string source_ended_{};  ///< libvirt's words for how the machine ended there; empty: it did not
  std::string target_ended_{};

 private:
  Error first_cause_of(Error said);
};

TimePoint time_of(const LibvirtEvent& event);

}  // namespace diskferry
