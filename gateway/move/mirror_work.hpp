// What a mirror still has to copy, as work for the copy engine: first by a plan of what the primary holds,
// so that zeros are not read; then, round by round, what is dirty.
#pragma once

#include "gateway/copy/plan.hpp"
#include "gateway/mirror/mirror_device.hpp"

#include <deque>
#include <mutex>

namespace diskferry {

/// One pass over the disk. Lifetime: of mirror and plan. Thread: as WorkSource says.
class MirrorWork final : public WorkSource {
 public:
  struct Options {
    std::uint64_t request_bytes = 1u << 20;
    /// Leaves out what guests write again and again.
    bool skip_recent = false;
    /// Leaves guests room on this machine; nullptr: guests are held, and wait for it.
    Clock* paced_by = nullptr;
  };
  /// `plan`: of the primary, made while the mirror saw every write; its units begin and end with granules.
  /// nullptr: everything dirty is read.
  MirrorWork(MirrorDevice& mirror, CopyPlan* plan, Options options)
      : mirror_(mirror), plan_(plan), options_(options) {}

  Task<Result<std::optional<Work>>> next() override;
  void ended(const Work& unit, bool is_done) noexcept override { mirror_.end_copy(unit.range, is_done); }

 private:
  Task<Result<std::optional<Work>>> next_now();
  std::optional<Work> next_planned();
  std::optional<Work> next_dirty();

  MirrorDevice& mirror_;
  CopyPlan* const plan_;
  const Options options_;
  std::mutex guard_;
  std::deque<Work> planned_;  // what is left of units of the plan
  std::uint64_t offset_ = 0;  // where dirty granules are looked for
};

}  // namespace diskferry
