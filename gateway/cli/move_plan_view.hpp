// The plan of a move as a gateway makes it, asked for and shown: for `plan migrate`, and before `migrate`
// begins.
#pragma once

#include "gateway/cli/command.hpp"
#include "gateway/cli/migrate_options.hpp"

#include <string>

namespace diskferry::cli {

struct PlanMigrateOptions {
  MigrateOptions migrate;
  bool dry_run = false;  ///< show the difference of the definitions, too
  unsigned predict_seconds = 0;
  bool as_json = false;
};
void add_plan_migrate_options(CLI::App& app, PlanMigrateOptions& options);
/// `diskferry plan migrate`: refused when there are blockers.
Result<ExitCode> plan_migrate(Invocation& invocation, const PlanMigrateOptions& options);

/// Asks for the plan and shows what speaks against the move on stderr. True: it would be refused.
Result<bool> show_findings(Invocation& invocation, const std::string& gateway, const MoveRequest& request);

}  // namespace diskferry::cli
