// The tables of the job database, as steps that lead from an empty file to today's. A step that was released
// is never changed: a change is a new step.
#pragma once

#include "gateway/jobs/sqlite.hpp"

namespace diskferry {

/// "DFRY": marks the file as ours.
inline constexpr std::int64_t job_database_application_id = 0x44465259;

/// Whether the file is ours to use. Writes nothing. Errors: unsupported for a database that a later version
/// wrote, or that is somebody else's; corrupt.
Result<void> check_schema(sqlite::Database& database, const std::string& path);
/// Makes or updates the tables, each step in a transaction of its own. Errors: no_space, io.
Result<void> migrate_schema(sqlite::Database& database);

}  // namespace diskferry
