// A job's record in a simulated world: writes fail for sure, or are there all the same, or so that a later
// process may find them, as those of a database whose log could not be made durable.
#pragma once

#include "gateway/jobs/job_journal.hpp"
#include "gateway/move/phase.hpp"
#include "tests/simulation/world.hpp"

#include <functional>
#include <map>
#include <optional>
#include <vector>

namespace diskferry::sim {

class Journal final : public JobJournal {
 public:
  Journal(World& world, JobRecord job) : world_(world), job_(std::move(job)) {}

  unsigned fail_one_in = 0;           ///< 0: no write fails
  std::function<void()> on_places{};  ///< called when exports are written down to be elsewhere

  const JobRecord& job() const { return job_; }
  const EndpointRecord* endpoint(const std::string& name) const {
    const auto found = endpoints_.find(name);
    return found == endpoints_.end() ? nullptr : &found->second;
  }
  /// What was written that must not follow what was there; empty: nothing.
  const std::string& problem() const { return problem_; }

  /// The process dies. What it tried to write last may be found.
  void die() {
    is_dead_ = true;
    if (unsure_ && world_.one_in(2)) apply(*unsure_);
    unsure_.reset();
  }
  void live() {
    is_dead_ = false;
    ++job_.generation;
  }

  Task<Result<JobRecord>> take_lease(std::string, std::string controller, Duration) override {
    DISKFERRY_CO_CHECK(co_await arrive("take over job"));
    job_.controller = std::move(controller);
    co_return job_;
  }
  Task<Result<std::uint64_t>> update(std::string, std::uint64_t, JobChanges changes) override {
    DISKFERRY_CO_CHECK(co_await arrive("change job"));
    if (fails()) {
      if (world_.one_in(2)) {
        unsure_ = std::move(changes);
      } else if (world_.one_in(4)) {
        apply(changes);  // it is there, and who asked does not know
      }
      co_return unexpected(fail(ErrorKind::io, "change job", job_.id));
    }
    unsure_.reset();
    apply(changes);
    co_return 0;
  }
  Task<Result<JobRecord>> settle(std::string) override {
    DISKFERRY_CO_CHECK(co_await arrive("settle job"));
    if (fails()) co_return unexpected(fail(ErrorKind::io, "settle job", job_.id));
    unsure_.reset();
    co_return job_;
  }

 private:
  bool fails() { return fail_one_in != 0 && world_.one_in(fail_one_in); }
  /// Nobody can cut a write short, so that it takes its turn whatever happens to who waits for it.
  Task<Result<void>> arrive(const char* verb) {
    (void)co_await world_.turn([] { return true; });
    if (is_dead_) co_return unexpected(fail(ErrorKind::in_use, verb, job_.id));
    co_return Result<void>{};
  }
  void apply(const JobChanges& changes) {
    if (changes.phase) check_phase(*changes.phase);
    job_.phase = changes.phase.value_or(job_.phase);
    job_.state = changes.state.value_or(job_.state);
    job_.status = changes.status.value_or(job_.status);
    job_.error = changes.error.value_or(job_.error);
    job_.report = changes.report.value_or(job_.report);
    for (const EndpointRecord& endpoint : changes.endpoints) endpoints_[endpoint.name] = endpoint;
    world_.trace("recorded: " + job_.phase);
    if (!changes.endpoints.empty() && on_places) on_places();
  }
  void check_phase(const std::string& next) {
    const auto from = phase_named(job_.phase);
    const auto to = phase_named(next);
    if (!from || !to || !may_follow(*from, *to)) problem_ = "from " + job_.phase + " to " + next;
  }

  World& world_;
  JobRecord job_;
  std::map<std::string, EndpointRecord> endpoints_;
  std::optional<JobChanges> unsure_;
  bool is_dead_ = false;
  std::string problem_;
};

}  // namespace diskferry::sim
