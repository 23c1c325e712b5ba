// See the header.
#include "gateway/jobs/schema.hpp"

#include "diskferry/image_uri.hpp"

#include <array>
#include <fmt/format.h>

namespace diskferry {
namespace {

// STRICT: what a damaged or foreign file holds is refused by type. Texts are never NULL: "" is "none".
constexpr const char* first_step = R"(
  CREATE TABLE jobs (
    id              TEXT    NOT NULL PRIMARY KEY,
    kind            TEXT    NOT NULL,
    subject         TEXT    NOT NULL,
    request         TEXT    NOT NULL,
    phase           TEXT    NOT NULL,
    state           TEXT    NOT NULL,
    status          TEXT    NOT NULL,
    is_active       INTEGER NOT NULL,
    is_exclusive    INTEGER NOT NULL,
    error           TEXT    NOT NULL,
    report          TEXT    NOT NULL,
    created_ms      INTEGER NOT NULL,
    updated_ms      INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    controller      TEXT    NOT NULL,
    lease_until_ms  INTEGER NOT NULL,
    events          INTEGER NOT NULL  -- the sequence number of the last one
  ) STRICT;
  CREATE INDEX jobs_by_activity ON jobs (is_active, updated_ms);
  CREATE TABLE events (
    job       TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    sequence  INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    text      TEXT    NOT NULL,
    time_ms   INTEGER NOT NULL,
    PRIMARY KEY (job, sequence)
  ) STRICT, WITHOUT ROWID;
)";

constexpr const char* second_step = R"(
  CREATE TABLE endpoints (
    name        TEXT    NOT NULL PRIMARY KEY,
    uri         TEXT    NOT NULL,
    format      TEXT    NOT NULL,
    size_bytes  INTEGER NOT NULL,
    configured  TEXT    NOT NULL,
    generation  INTEGER NOT NULL
  ) STRICT;
)";

constexpr std::array steps{first_step, second_step};
constexpr auto latest = static_cast<std::int64_t>(steps.size());

Error refused(const std::string& path, std::string why, std::string remedy) {
  return fail(ErrorKind::unsupported, "open", printable(path)).why(std::move(why)).remedy(std::move(remedy));
}

}  // namespace

Result<void> check_schema(sqlite::Database& database, const std::string& path) {
  DISKFERRY_TRY(const auto version, database.number("PRAGMA user_version"));
  DISKFERRY_TRY(const auto application, database.number("PRAGMA application_id"));
  DISKFERRY_TRY(const auto tables, database.number("SELECT count(*) FROM sqlite_schema"));
  if (application != job_database_application_id && (tables != 0 || version != 0 || application != 0))
    return unexpected(refused(path, "the file is not a job database of diskferry", "name another folder"));
  if (version > latest || version < 0)
    return unexpected(refused(
        path,
        fmt::format("a later version of diskferry wrote it (schema {}, this one knows {})", version, latest),
        "run that version, or restore the copy that was made before the update"));
  return {};
}

Result<void> migrate_schema(sqlite::Database& database) {
  DISKFERRY_TRY(const auto version, database.number("PRAGMA user_version"));
  for (auto done = version; done < latest; ++done) {
    DISKFERRY_TRY(auto transaction, sqlite::Transaction::begin(database));
    DISKFERRY_CHECK(database.execute(steps[static_cast<std::size_t>(done)]));
    DISKFERRY_CHECK(database.execute(fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}",
                                                 job_database_application_id, done + 1)));
    DISKFERRY_CHECK(transaction.commit());
  }
  return {};
}

}  // namespace diskferry
