// What a job writes itself down with: the part of the store that decides what a later process believes. An
// interface, so that a simulation can have writes fail in every way.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/error.hpp"
#include "diskferry/task.hpp"
#include "gateway/jobs/job.hpp"

#include <cstdint>
#include <string>

namespace diskferry {

/// Thread: any. Durable: what returned without an error is on the disk.
class JobJournal {
 public:
  virtual ~JobJournal() = default;

  /// Makes `controller` (a name that no other process and no earlier life has) the one that acts for the job,
  /// or lets it be that for longer. The generation of the record is what its updates name; it grows when the
  /// controller is another one than before. Errors: not_found; in_use while another's lease is alive.
  virtual Task<Result<JobRecord>> take_lease(std::string id, std::string controller, Duration duration) = 0;
  /// Writes what is given, if the job is still of that generation. Returns the sequence number of the event,
  /// 0 without one. After an error other than those named, what was given may still be what a later process
  /// finds, until something was written after it: see settle(). Errors: not_found; in_use: another controller
  /// took over, and this one must let go of everything.
  virtual Task<Result<std::uint64_t>> update(std::string id, std::uint64_t expected_generation,
                                             JobChanges changes) = 0;
  /// After an update that failed: writes the job once more as it is, and returns that. When it is done, this
  /// is what every later process finds. Errors: it is still not known.
  virtual Task<Result<JobRecord>> settle(std::string id) = 0;
};

}  // namespace diskferry
