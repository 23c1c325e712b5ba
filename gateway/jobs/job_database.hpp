// The job database: every read and write of jobs as one blocking call and one transaction. JobStore calls it
// from its thread; nobody else does. What a write returns as done is on the disk.
#pragma once

#include "gateway/jobs/job.hpp"
#include "gateway/jobs/job_folder.hpp"
#include "gateway/jobs/sqlite.hpp"

#include <map>
#include <vector>

namespace diskferry {

struct Lease {
  std::string controller;
  std::int64_t until_ms = 0;
};

/// Thread: one at a time. Errors of all: no_space (nothing was changed), corrupt, io, not_found where a job
/// is named that is not there, and those named.
class JobDatabase {
 public:
  /// `bytes_max`: the database never grows beyond it; a write that would is no_space.
  /// Errors: in_use, permission, unsupported, corrupt.
  static Result<JobDatabase> open(const std::string& folder, std::uint64_t bytes_max);

  /// Errors: already_exists, in_use (is_exclusive).
  Result<JobRecord> create(const NewJob& job, std::int64_t now_ms);
  Result<JobRecord> load(std::string_view id);
  /// Newest first.
  Result<std::vector<JobRecord>> list(const JobFilter& filter);
  /// The event's sequence number, 0 without one. Errors: in_use when the generation is another.
  Result<std::uint64_t> update(std::string_view id, std::uint64_t expected_generation,
                               const JobChanges& changes, std::int64_t now_ms);
  /// See JobJournal. A transaction whose end failed may be in the log of a later process, until another one
  /// has taken its place there.
  Result<JobRecord> settle(std::string_view id, std::int64_t now_ms);
  Result<std::uint64_t> append_event(std::string_view id, const NewJobEvent& event, std::int64_t now_ms);
  Result<std::vector<JobEvent>> events(std::string_view id, std::uint64_t after, std::size_t limit);
  /// Errors: in_use.
  Result<JobRecord> take_lease(std::string_view id, const Lease& lease, std::int64_t now_ms);
  Result<void> release_lease(std::string_view id, std::uint64_t expected_generation);
  /// Returns how many were alive.
  Result<std::uint64_t> end_leases(std::int64_t now_ms);
  /// Errors: in_use for a job that is active.
  Result<void> remove(std::string_view id);
  /// By name.
  Result<std::vector<EndpointRecord>> endpoints();
  /// How many jobs there are, by status; those that none has are left out.
  Result<std::map<JobStatus, std::uint64_t>> counts();
  Result<void> forget_endpoint(std::string_view name);
  /// Returns how many jobs it removed.
  Result<std::uint64_t> prune(std::int64_t updated_before_ms, std::size_t keep);

 private:
  JobDatabase(JobFolder folder, sqlite::Database database)
      : folder_(std::move(folder)), database_(std::move(database)) {}
  Result<void> check_exclusive(const NewJob& job);
  Result<void> write(const JobRecord& job);
  Result<void> write(const EndpointRecord& endpoint);
  Result<std::uint64_t> add_event(std::string_view id, const NewJobEvent& event, std::int64_t now_ms);

  JobFolder folder_;  // first: the lock is held until the database is closed
  sqlite::Database database_;
};

}  // namespace diskferry
