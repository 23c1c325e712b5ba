// Following a job of a gateway to its end: what `watch` does, and `migrate` once it has begun one.
#pragma once

#include "gateway/cli/command.hpp"
#include "gateway/cli/progress.hpp"
#include "gateway/control/api.hpp"

#include <ostream>
#include <string>

namespace diskferry::cli {

/// Shows events as they come. JSON goes to stdout as it came; of people's form, what happened goes to stdout
/// and the line that is rewritten to stderr.
class JobViewer {
 public:
  JobViewer(Invocation& invocation, ProgressMode mode);
  void show(const control::JobEvent& event);
  void finish() { bar_.finish(); }

 private:
  std::ostream& out_;
  const bool is_json_;
  ProgressReporter bar_;
};

/// Follows a job to its end and returns what it ended as. A gateway that is lost on the way is asked again,
/// and the events go on where they stopped. Errors: not_found at once; gone when the gateway was away for too
/// long.
Task<Result<control::JobDescription>> watch_job(Invocation& invocation, std::string gateway, std::string job,
                                                JobViewer& viewer);

/// What a job's end is for the exit code.
Result<ExitCode> outcome_of(const control::JobDescription& job, std::string_view command);

}  // namespace diskferry::cli
