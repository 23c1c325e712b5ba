// A job that replaces the storage of disks, as its service runs it: of exports of this gateway (Replacement),
// or of a machine's disk that is not on it yet (Adoption).
#pragma once

#include "diskferry/task.hpp"
#include "gateway/move/replace_request.hpp"

#include <cstdint>

namespace diskferry {

/// Thread: one reactor, but where said. Lifetime: until run() or leave_to_next() has ended.
class ReplaceJob {
 public:
  virtual ~ReplaceJob() = default;

  /// For a job that an earlier process left, before clients are let in. Once, before run().
  virtual Task<Result<void>> take_up() = 0;
  /// Instead of run(): leaves everything to a later process.
  virtual Task<void> leave_to_next() = 0;
  /// The job, from wherever its record says it is, to its end. Errors: why it ended.
  virtual Task<Result<void>> run() = 0;

  // What operators ask for while it runs. Thread: any.
  enum class Wish : std::uint8_t { fall_back, pause };
  /// Whether such a job can do that at all. Errors: unsupported, with what to do instead.
  virtual Result<void> accepts(Wish wish) const = 0;
  virtual void commit_now() = 0;
  virtual void fall_back() = 0;
  virtual void pause() = 0;
  virtual void resume() = 0;
  /// Errors: invalid_argument; unsupported, as accepts().
  virtual Result<void> set(const ReplaceSettings& settings) = 0;
  /// The cancellation that follows is the end of this process: the next one goes on.
  virtual void gateway_stops() noexcept = 0;
  virtual void cancel() noexcept = 0;
};

}  // namespace diskferry
