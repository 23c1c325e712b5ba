#include "gateway/move/running_jobs.hpp"

#include <spdlog/spdlog.h>

namespace diskferry {

Task<Error> end_unbegun(JobStore& jobs, JobRecord job, Error why) {
  JobChanges end{.status = JobStatus::failed,
                 .error = why.message(),
                 .event = NewJobEvent{.kind = std::string(end_event)}};
  if (auto saved = co_await jobs.update(job.id, job.generation, std::move(end)); !saved)
    spdlog::warn("{} {}: {}", job.kind, job.id, saved.error().message());
  co_return why;
}

}  // namespace diskferry
