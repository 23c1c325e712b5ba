// See the header. All SQL that is about jobs.
#include "gateway/jobs/job_database.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/jobs/schema.hpp"

#include <algorithm>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

namespace diskferry {
namespace {

#define DISKFERRY_JOB_COLUMNS                                                                 \
  "id, kind, subject, request, phase, state, status, error, report, created_ms, updated_ms, " \
  "generation, controller, lease_until_ms "

Error no_job(std::string_view id) {
  return fail(ErrorKind::not_found, "find job", printable(id))
      .why("there is no such job")
      .remedy("'diskferry jobs --all' lists them");
}

Result<JobRecord> record_of(const sqlite::Query& row) {
  const std::string status = row.text(6);
  const auto known = parse_job_status(status);
  if (!known)
    return unexpected(fail(ErrorKind::corrupt, "read job", printable(row.text(0)))
                          .why(fmt::format("its status '{}' is none", printable(status))));
  return JobRecord{.id = row.text(0),
                   .kind = row.text(1),
                   .subject = row.text(2),
                   .request = row.text(3),
                   .phase = row.text(4),
                   .state = row.text(5),
                   .status = *known,
                   .error = row.text(7),
                   .report = row.text(8),
                   .created_ms = row.integer(9),
                   .updated_ms = row.integer(10),
                   .generation = static_cast<std::uint64_t>(row.integer(11)),
                   .controller = row.text(12),
                   .lease_until_ms = row.integer(13)};
}

Result<void> check_generation(const JobRecord& job, std::uint64_t expected) {
  if (job.generation == expected) return {};
  return unexpected(fail(ErrorKind::in_use, "change job", printable(job.id))
                        .why(fmt::format("it was taken over by {} (generation {}, not {})",
                                         printable(job.controller), job.generation, expected)));
}

Result<void> configure(sqlite::Database& database, std::uint64_t bytes_max) {
  // FULL: a transaction is on the disk when it returns, and not only in order with the others as in NORMAL.
  DISKFERRY_CHECK(
      database.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; "
                       "PRAGMA cell_size_check = ON"));
  DISKFERRY_TRY(const auto page_bytes, database.number("PRAGMA page_size"));
  return database.execute(
      fmt::format("PRAGMA max_page_count = {}",
                  std::max<std::uint64_t>(bytes_max / static_cast<std::uint64_t>(page_bytes), 1)));
}

/// What a process before this one wrote last may be in memory only, where making it durable failed: nobody
/// acts on that before it is on the disk.
Result<void> make_durable(sqlite::Database& database) {
  // Without having read, SQLite has the log's lock from switching to it, and refuses.
  DISKFERRY_CHECK(database.number("SELECT count(*) FROM jobs"));
  return database.execute("PRAGMA wal_checkpoint(TRUNCATE)");
}

/// Reads all of it once: some milliseconds for what jobs need, and damage is told before a job is acted on.
Result<void> check_integrity(sqlite::Database& database, const std::string& path) {
  sqlite::Query query(database, "PRAGMA quick_check(1)");
  DISKFERRY_TRY(const bool has_row, query.next());
  if (has_row && query.text(0) == "ok") return {};
  return unexpected(
      fail(ErrorKind::corrupt, "open", printable(path))
          .why("the job database is damaged: " + printable(query.text(0)))
          .remedy("stop the gateway, look at what its jobs had reached, name in its configuration where "
                  "exports are whose storage was replaced, move the file and those beside it away, and start "
                  "it again"));
}

/// Room that the file system keeps for what is written first, into the log beside the database: when the disk
/// is full, a job under way can still note some hundred changes, and so come to its end. The log is written
/// from its beginning again and again while the database is open, so that what is reserved once stays.
/// Without it nothing is lost but that. SQLite holds no lock on this file, or closing it here would drop it.
constexpr off_t reserved_bytes = 8 << 20;
void reserve_log(const std::string& path) {
  const int fd = ::open((path + "-wal").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return;
  (void)::fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, reserved_bytes);
  ::close(fd);
}

}  // namespace

Result<JobDatabase> JobDatabase::open(const std::string& folder, std::uint64_t bytes_max) {
  DISKFERRY_TRY(JobFolder taken, JobFolder::take(folder));
  const std::string path = taken.database_path();
  DISKFERRY_TRY(sqlite::Database database, sqlite::Database::open(path));
  // Whose file it is, before anything is written into it.
  DISKFERRY_CHECK(check_integrity(database, path));
  DISKFERRY_CHECK(check_schema(database, path));
  DISKFERRY_CHECK(configure(database, bytes_max));
  DISKFERRY_CHECK(migrate_schema(database));
  DISKFERRY_CHECK(make_durable(database));
  reserve_log(path);
  return JobDatabase(std::move(taken), std::move(database));
}

Result<void> JobDatabase::check_exclusive(const NewJob& job) {
  if (!job.is_exclusive) return {};
  sqlite::Query other(
      database_,
      "SELECT id, kind FROM jobs WHERE is_active = 1 AND is_exclusive = 1 AND subject = ? LIMIT 1");
  DISKFERRY_TRY(const bool has_row, other.with(job.subject).next());
  if (!has_row) return {};
  return unexpected(fail(ErrorKind::in_use, "create job", printable(job.subject))
                        .why(fmt::format("job {} ({}) is at work on it", printable(other.text(0)),
                                         printable(other.text(1))))
                        .remedy("wait for that job, or cancel it"));
}

Result<JobRecord> JobDatabase::create(const NewJob& job, std::int64_t now_ms) {
  DISKFERRY_TRY(auto transaction, sqlite::Transaction::begin(database_));
  DISKFERRY_CHECK(check_exclusive(job));
  JobRecord record{.id = job.id,
                   .kind = job.kind,
                   .subject = job.subject,
                   .request = job.request,
                   .phase = job.phase,
                   .state = "{}",
                   .error = {},
                   .report = {},
                   .created_ms = now_ms,
                   .updated_ms = now_ms,
                   .controller = {}};
  constexpr int tries = 16;  // of a million names a minute
  for (int i = 0; i < tries; ++i) {
    if (job.id.empty()) record.id = new_job_id(job.kind, now_ms);
    sqlite::Query insert(
        database_,
        "INSERT OR IGNORE INTO jobs (id, kind, subject, request, phase, state, status, is_active, "
        "is_exclusive, error, report, created_ms, updated_ms, generation, controller, lease_until_ms, "
        "events) VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, '', '', ?, ?, 0, '', 0, 0)");
    DISKFERRY_CHECK(insert.with(record.id)
                        .with(record.kind)
                        .with(record.subject)
                        .with(record.request)
                        .with(record.phase)
                        .with(record.state)
                        .with(to_string(record.status))
                        .with(job.is_exclusive ? 1 : 0)
                        .with(now_ms)
                        .with(now_ms)
                        .run());
    if (database_.changes() == 1) {
      DISKFERRY_CHECK(transaction.commit());
      return record;
    }
    if (!job.id.empty()) break;
  }
  return unexpected(fail(ErrorKind::already_exists, "create job", printable(record.id)));
}

Result<JobRecord> JobDatabase::load(std::string_view id) {
  sqlite::Query query(database_, "SELECT " DISKFERRY_JOB_COLUMNS "FROM jobs WHERE id = ?");
  DISKFERRY_TRY(const bool has_row, query.with(id).next());
  if (!has_row) return unexpected(no_job(id));
  return record_of(query);
}

Result<std::vector<JobRecord>> JobDatabase::list(const JobFilter& filter) {
  sqlite::Query query(database_, "SELECT " DISKFERRY_JOB_COLUMNS
                                 "FROM jobs WHERE is_active >= ?1 AND (?2 = '' OR subject = ?2) "
                                 "ORDER BY created_ms DESC, rowid DESC LIMIT ?3");
  query.with(filter.active_only ? 1 : 0)
      .with(filter.subject)
      .with(static_cast<std::int64_t>(std::min(filter.limit, JobLimits::list_max)));
  std::vector<JobRecord> jobs;
  std::size_t bytes = 0;
  DISKFERRY_TRY(bool has_row, query.next());
  while (has_row) {
    DISKFERRY_TRY(auto job, record_of(query));
    bytes += job.request.size() + job.state.size() + job.error.size() + job.report.size();
    if (bytes > filter.bytes_max)
      return unexpected(
          fail(ErrorKind::too_large, "list jobs")
              .why(fmt::format("the first {} have more than {} bytes", jobs.size() + 1, filter.bytes_max))
              .remedy("ask for fewer"));
    jobs.push_back(std::move(job));
    DISKFERRY_TRY(has_row, query.next());
  }
  return jobs;
}

Result<void> JobDatabase::write(const JobRecord& job) {
  sqlite::Query query(
      database_,
      "UPDATE jobs SET phase = ?, state = ?, status = ?, is_active = ?, error = ?, report = ?, "
      "updated_ms = ?, generation = ?, controller = ?, lease_until_ms = ? WHERE id = ?");
  return query.with(job.phase)
      .with(job.state)
      .with(to_string(job.status))
      .with(is_final(job.status) ? 0 : 1)
      .with(job.error)
      .with(job.report)
      .with(job.updated_ms)
      .with(static_cast<std::int64_t>(job.generation))
      .with(job.controller)
      .with(job.lease_until_ms)
      .with(job.id)
      .run();
}

Result<void> JobDatabase::write(const EndpointRecord& endpoint) {
  sqlite::Query query(
      database_,
      "INSERT INTO endpoints (name, uri, format, size_bytes, configured, generation) VALUES (?, ?, ?, ?, ?, "
      "1) "
      "ON CONFLICT (name) DO UPDATE SET uri = excluded.uri, format = excluded.format, "
      "size_bytes = excluded.size_bytes, configured = excluded.configured, generation = generation + 1");
  return query.with(endpoint.name)
      .with(endpoint.uri)
      .with(endpoint.format)
      .with(static_cast<std::int64_t>(endpoint.size_bytes))
      .with(endpoint.configured)
      .run();
}

Result<std::vector<EndpointRecord>> JobDatabase::endpoints() {
  sqlite::Query query(
      database_, "SELECT name, uri, format, size_bytes, configured, generation FROM endpoints ORDER BY name");
  std::vector<EndpointRecord> endpoints;
  DISKFERRY_TRY(bool has_row, query.next());
  while (has_row) {
    endpoints.push_back({.name = query.text(0),
                         .uri = query.text(1),
                         .format = query.text(2),
                         .size_bytes = static_cast<std::uint64_t>(query.integer(3)),
                         .configured = query.text(4),
                         .generation = static_cast<std::uint64_t>(query.integer(5))});
    DISKFERRY_TRY(has_row, query.next());
  }
  return endpoints;
}

Result<std::map<JobStatus, std::uint64_t>> JobDatabase::counts() {
  sqlite::Query query(database_, "SELECT status, COUNT(*) FROM jobs GROUP BY status");
  std::map<JobStatus, std::uint64_t> counts;
  DISKFERRY_TRY(bool has_row, query.next());
  while (has_row) {
    // What a later version wrote is told by load(), and counts for nothing here.
    if (const auto status = parse_job_status(query.text(0)))
      counts[*status] = static_cast<std::uint64_t>(query.integer(1));
    DISKFERRY_TRY(has_row, query.next());
  }
  return counts;
}

Result<std::uint64_t> JobDatabase::update(std::string_view id, std::uint64_t expected_generation,
                                          const JobChanges& changes, std::int64_t now_ms) {
  DISKFERRY_TRY(auto transaction, sqlite::Transaction::begin(database_));
  DISKFERRY_TRY(JobRecord job, load(id));
  DISKFERRY_CHECK(check_generation(job, expected_generation));
  job.status = changes.status.value_or(job.status);
  job.phase = changes.phase.value_or(job.phase);
  job.state = changes.state.value_or(job.state);
  job.error = changes.error.value_or(job.error);
  job.report = changes.report.value_or(job.report);
  job.updated_ms = now_ms;
  DISKFERRY_CHECK(write(job));
  for (const EndpointRecord& endpoint : changes.endpoints) DISKFERRY_CHECK(write(endpoint));
  for (const std::string& name : changes.gone_endpoints) DISKFERRY_CHECK(forget_endpoint(name));
  std::uint64_t sequence = 0;
  if (changes.event) {
    DISKFERRY_TRY(sequence, add_event(id, *changes.event, now_ms));
  }
  DISKFERRY_CHECK(transaction.commit());
  return sequence;
}

Result<JobRecord> JobDatabase::settle(std::string_view id, std::int64_t now_ms) {
  DISKFERRY_TRY(auto transaction, sqlite::Transaction::begin(database_));
  DISKFERRY_TRY(JobRecord job, load(id));
  // What changes nothing is not written by SQLite, and would take no place in the log.
  job.updated_ms = std::max(now_ms, job.updated_ms + 1);
  DISKFERRY_CHECK(write(job));
  DISKFERRY_CHECK(transaction.commit());
  return job;
}

Result<std::uint64_t> JobDatabase::add_event(std::string_view id, const NewJobEvent& event,
                                             std::int64_t now_ms) {
  sqlite::Query count(database_, "UPDATE jobs SET events = events + 1 WHERE id = ? RETURNING events");
  DISKFERRY_TRY(const bool has_row, count.with(id).next());
  if (!has_row) return unexpected(no_job(id));
  const std::int64_t sequence = count.integer(0);
  DISKFERRY_CHECK(count.run());
  sqlite::Query insert(database_,
                       "INSERT INTO events (job, sequence, kind, text, time_ms) VALUES (?, ?, ?, ?, ?)");
  DISKFERRY_CHECK(insert.with(id).with(sequence).with(event.kind).with(event.text).with(now_ms).run());
  constexpr auto kept = static_cast<std::int64_t>(JobLimits::events_per_job_max);
  if (sequence > kept) {
    sqlite::Query drop(database_, "DELETE FROM events WHERE job = ? AND sequence <= ?");
    DISKFERRY_CHECK(drop.with(id).with(sequence - kept).run());
  }
  return static_cast<std::uint64_t>(sequence);
}

Result<std::uint64_t> JobDatabase::append_event(std::string_view id, const NewJobEvent& event,
                                                std::int64_t now_ms) {
  DISKFERRY_TRY(auto transaction, sqlite::Transaction::begin(database_));
  DISKFERRY_TRY(const auto sequence, add_event(id, event, now_ms));
  DISKFERRY_CHECK(transaction.commit());
  return sequence;
}

Result<std::vector<JobEvent>> JobDatabase::events(std::string_view id, std::uint64_t after,
                                                  std::size_t limit) {
  DISKFERRY_CHECK(load(id));
  sqlite::Query query(database_,
                      "SELECT sequence, kind, text, time_ms FROM events WHERE job = ? AND sequence > ? "
                      "ORDER BY sequence LIMIT ?");
  query.with(id)
      .with(static_cast<std::int64_t>(std::min<std::uint64_t>(after, INT64_MAX)))
      .with(static_cast<std::int64_t>(std::min(limit, JobLimits::list_max)));
  std::vector<JobEvent> events;
  DISKFERRY_TRY(bool has_row, query.next());
  while (has_row) {
    events.push_back({.job = std::string(id),
                      .sequence = static_cast<std::uint64_t>(query.integer(0)),
                      .kind = query.text(1),
                      .text = query.text(2),
                      .time_ms = query.integer(3)});
    DISKFERRY_TRY(has_row, query.next());
  }
  return events;
}

Result<JobRecord> JobDatabase::take_lease(std::string_view id, const Lease& lease, std::int64_t now_ms) {
  DISKFERRY_TRY(auto transaction, sqlite::Transaction::begin(database_));
  DISKFERRY_TRY(JobRecord job, load(id));
  if (job.controller != lease.controller) {
    if (job.lease_until_ms > now_ms)
      return unexpected(fail(ErrorKind::in_use, "take over job", printable(id))
                            .why(fmt::format("{} has it for {} ms more", printable(job.controller),
                                             job.lease_until_ms - now_ms)));
    ++job.generation;
    job.controller = lease.controller;
  }
  job.lease_until_ms = lease.until_ms;
  DISKFERRY_CHECK(write(job));
  DISKFERRY_CHECK(transaction.commit());
  return job;
}

Result<void> JobDatabase::release_lease(std::string_view id, std::uint64_t expected_generation) {
  DISKFERRY_TRY(auto transaction, sqlite::Transaction::begin(database_));
  DISKFERRY_TRY(JobRecord job, load(id));
  DISKFERRY_CHECK(check_generation(job, expected_generation));
  job.lease_until_ms = 0;
  DISKFERRY_CHECK(write(job));
  return transaction.commit();
}

Result<std::uint64_t> JobDatabase::end_leases(std::int64_t now_ms) {
  sqlite::Query query(database_, "UPDATE jobs SET lease_until_ms = 0 WHERE lease_until_ms > ?");
  DISKFERRY_CHECK(query.with(now_ms).run());
  return database_.changes();
}

Result<void> JobDatabase::forget_endpoint(std::string_view name) {
  sqlite::Query query(database_, "DELETE FROM endpoints WHERE name = ?");
  return query.with(name).run();
}

Result<void> JobDatabase::remove(std::string_view id) {
  DISKFERRY_TRY(auto transaction, sqlite::Transaction::begin(database_));
  DISKFERRY_TRY(const JobRecord job, load(id));
  if (!is_final(job.status))
    return unexpected(fail(ErrorKind::in_use, "remove job", printable(id))
                          .why(fmt::format("it is {}", to_string(job.status)))
                          .remedy("cancel it first"));
  sqlite::Query query(database_, "DELETE FROM jobs WHERE id = ?");
  DISKFERRY_CHECK(query.with(id).run());
  return transaction.commit();
}

Result<std::uint64_t> JobDatabase::prune(std::int64_t updated_before_ms, std::size_t keep) {
  sqlite::Query query(
      database_,
      "DELETE FROM jobs WHERE is_active = 0 AND updated_ms < ?1 AND id NOT IN "
      "(SELECT id FROM jobs WHERE is_active = 0 ORDER BY updated_ms DESC, rowid DESC LIMIT ?2)");
  DISKFERRY_CHECK(query.with(updated_before_ms)
                      .with(static_cast<std::int64_t>(std::min<std::size_t>(keep, INT64_MAX)))
                      .run());
  return database_.changes();
}

}  // namespace diskferry
