// Jobs of this gateway for its API: the store says what there is, the moves do it, the bus tells of it.
#pragma once

#include "gateway/control/api.hpp"
#include "gateway/jobs/event_bus.hpp"
#include "gateway/jobs/job_store.hpp"
#include "gateway/move/evacuation_service.hpp"
#include "gateway/move/move_service.hpp"
#include "gateway/move/replace_service.hpp"

#include <map>

namespace diskferry::daemon {

/// Thread: any. Lifetime: what it is made of outlives it.
class LocalJobs final : public control::JobsApi {
 public:
  LocalJobs(JobStore& store, EventBus& bus, MoveService& moves, EvacuationService& evacuations,
            ReplaceService& replacements)
      : store_(store), bus_(bus), moves_(moves), evacuations_(evacuations), replacements_(replacements) {}

  Task<Result<std::vector<control::JobDescription>>> jobs(control::JobFilter filter) override;
  Task<Result<control::JobDescription>> job(std::string id) override;
  Task<Result<control::JobDescription>> create_job(control::JobRequest request) override;
  Task<Result<std::string>> plan_job(control::JobRequest request) override;
  Task<Result<control::JobDescription>> act_on_job(std::string id, control::JobAction action) override;
  Task<Result<control::JobDescription>> set_job(std::string id, control::JobSettings settings) override;
  Task<Result<std::unique_ptr<control::EventSource>>> events(control::EventFilter filter) override;

  /// How many there are by the API's word for their status, also those that have ended.
  Task<Result<std::map<std::string, std::uint64_t>>> counts();

 private:
  Task<Result<control::JobDescription>> act_on_evacuation(std::string id, control::JobAction action);
  Task<Result<control::JobDescription>> act_on_replacement(std::string id, control::JobAction action);

  JobStore& store_;
  EventBus& bus_;
  MoveService& moves_;
  EvacuationService& evacuations_;
  ReplaceService& replacements_;
};

}  // namespace diskferry::daemon
