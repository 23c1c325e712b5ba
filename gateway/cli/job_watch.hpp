// Following a job of a gateway to its end: what `watch` does, and `migrate` and `evacuate` once they have
// begun one.
#pragma once

#include "gateway/cli/command.hpp"
#include "gateway/cli/job_figures.hpp"
#include "gateway/cli/progress.hpp"
#include "gateway/control/api.hpp"

#include <ostream>
#include <string>
#include <string_view>

#include <boost/json/fwd.hpp>

namespace diskferry::cli {

/// Shows events as they come. JSON goes to stdout as it came; of people's form, what happened goes to stdout
/// and the line that is rewritten to stderr. ProgressMode::none: nothing at all.
class JobViewer {
 public:
  JobViewer(Invocation& invocation, ProgressMode mode);
  void show(const control::JobEvent& event);
  void finish() { bar_.finish(); }

 private:
  std::ostream& out_;
  const bool is_json_;
  const bool is_silent_;
  ProgressReporter bar_;
  JobFigures figures_{};
};

/// Follows a job to its end and returns what it ended as. A gateway that is lost on the way is asked again,
/// and the events go on where they stopped. Errors: not_found at once; gone when the gateway was away for too
/// long.
Task<Result<control::JobDescription>> watch_job(Invocation& invocation, std::string gateway, std::string job,
                                                JobViewer& viewer);

/// Records a job and begins it. Errors: as ControlClient::create_job.
Result<control::JobDescription> begin_job(Invocation& invocation, const std::string& gateway,
                                          std::string kind, std::string request_json);

/// As watch_job(); an interruption cancels the job, which is told as `cancelling`, and its end is waited for.
Result<control::JobDescription> follow_or_cancel(Invocation& invocation, const std::string& gateway,
                                                 const std::string& job, ProgressMode mode,
                                                 std::string_view cancelling);

/// What a job's end is for the exit code.
Result<ExitCode> outcome_of(const control::JobDescription& job, std::string_view command);

}  // namespace diskferry::cli
