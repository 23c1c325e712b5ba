// JobStore: what a gateway knows of its jobs, kept where kill -9 and power cuts cannot take it. gateway/move
// writes a job's state here before it acts on it, and begins from it after a crash; the control API lists it.
// Never put a secret into a text.
#pragma once

#include "gateway/jobs/job_journal.hpp"

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace diskferry {

class EventBus;

struct JobStoreOptions {
  std::string folder;  ///< of this gateway alone; made where it is missing
  /// Told of every event once it is on the disk, in the order of its sequence. Outlives the store.
  EventBus* bus = nullptr;
  /// Milliseconds since 1970 on a clock that goes on while the gateway does not run; empty: the system's.
  /// Called on the store's thread.
  std::function<std::int64_t()> now_ms{};
  /// A write that would make the database larger is refused with no_space, before the disk is full.
  std::uint64_t bytes_max = std::uint64_t{1} << 30;
};

/// Thread: any; calls are carried out one after the other on a thread of the store's own, which is there also
/// while storage under a disk hangs. Durable: what returned without an error is on the disk, all of it; after
/// an error see JobJournal::update(). Cancel: no effect, for whoever is cancelled must be
/// able to note it; a call takes as long as the disk does. Errors of all: those of JobDatabase, too_large and
/// invalid_argument for texts (see check), corrupt, internal. Lifetime: outlives every task that calls it.
class JobStore final : public JobJournal {
 public:
  /// Errors: in_use when another gateway has the folder (naming its process); unsupported for a file of a
  /// later version or of another program; corrupt, with what to do; permission; no_space.
  static Task<Result<std::unique_ptr<JobStore>>> open(JobStoreOptions options);
  ~JobStore() override;
  JobStore(const JobStore&) = delete;
  JobStore& operator=(const JobStore&) = delete;

  /// Errors: already_exists for a given id; in_use for an exclusive job about a subject that has one.
  Task<Result<JobRecord>> create(NewJob job);
  /// Errors: not_found.
  Task<Result<JobRecord>> load(std::string id);
  /// Newest first. Errors: too_large (filter.bytes_max).
  Task<Result<std::vector<JobRecord>>> list(JobFilter filter);

  Task<Result<std::uint64_t>> update(std::string id, std::uint64_t expected_generation,
                                     JobChanges changes) override;
  Task<Result<JobRecord>> settle(std::string id) override;
  /// For what is worth knowing and changes nothing. Errors: not_found.
  Task<Result<std::uint64_t>> append_event(std::string id, NewJobEvent event);
  /// Those after a sequence number, in order; fewer than asked for is normal. Errors: not_found.
  Task<Result<std::vector<JobEvent>>> events(std::string id, std::uint64_t after, std::size_t limit);

  Task<Result<JobRecord>> take_lease(std::string id, std::string controller, Duration duration) override;
  /// Lets others take over at once. Errors: not_found; in_use as update().
  Task<Result<void>> release_lease(std::string id, std::uint64_t expected_generation);
  /// Ends every lease; returns how many were alive. For a gateway that has just started and whose jobs have
  /// no controllers but in its own process: the folder's lock proves that the earlier ones are dead.
  Task<Result<std::uint64_t>> end_leases();

  /// How many jobs there are, by status; those that none has are left out.
  Task<Result<std::map<JobStatus, std::uint64_t>>> counts();

  /// Where exports are whose storage was replaced.
  Task<Result<std::vector<EndpointRecord>>> endpoints();
  /// The export is not there any more. Nothing is done where there is no such record.
  Task<Result<void>> forget_endpoint(std::string name);

  /// With its events. Errors: not_found; in_use for a job that is not over.
  Task<Result<void>> remove(std::string id);
  /// Removes jobs that were over for longer than `older_than`, but leaves the last `keep` of them. Returns
  /// how many.
  Task<Result<std::uint64_t>> prune(Duration older_than, std::size_t keep);

 private:
  struct State;
  explicit JobStore(JobStoreOptions options);
  template <class Work>
  auto call(Work work) -> Task<decltype(work())>;
  std::unique_ptr<State> state_;
};

}  // namespace diskferry
