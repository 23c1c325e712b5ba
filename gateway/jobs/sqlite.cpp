// See the header. The only file that includes sqlite3.h.
#include "gateway/jobs/sqlite.hpp"

#include "diskferry/image_uri.hpp"

#include <cerrno>
#include <utility>

#include <sqlite3.h>

namespace diskferry::sqlite {
namespace {

/// Nobody else opens the file while we hold the folder's lock; an operator who looks with sqlite3 may.
constexpr int busy_timeout_ms = 5'000;

bool is_no_space(int error_number) {
  return error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG;
}

/// SQLite's primary result code as a kind. The errno is that of the last system call, where one failed.
ErrorKind kind_of(int code, int error_number) {
  switch (code & 0xff) {
    case SQLITE_FULL:
      return ErrorKind::no_space;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
      if (is_no_space(error_number)) return ErrorKind::no_space;
      return error_number == 0 ? ErrorKind::io : kind_of_errno(error_number);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return ErrorKind::corrupt;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return ErrorKind::in_use;
    case SQLITE_READONLY:
      return ErrorKind::read_only;
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return ErrorKind::permission;
    case SQLITE_NOMEM:
    case SQLITE_TOOBIG:
      return ErrorKind::too_large;
    default:
      return ErrorKind::internal;
  }
}

const char* remedy_for(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::no_space:
      return "free space on the file system of the job database; jobs go on from what was last noted";
    case ErrorKind::corrupt:
      return "stop the gateway, look at what its jobs had reached (virsh domjobinfo, the targets), name in "
             "its "
             "configuration where exports are whose storage was replaced, move the file and those beside it "
             "away, and start it again";
    case ErrorKind::in_use:
      return "another program holds the database open; end it";
    default:
      return "";
  }
}

}  // namespace

void Database::Close::operator()(sqlite3* connection) const noexcept {
  sqlite3_close_v2(connection);
}
void Database::Close::operator()(sqlite3_stmt* statement) const noexcept {
  sqlite3_finalize(statement);
}

Result<Database> Database::open(std::string path) {
  Database database(std::move(path));
  sqlite3* connection = nullptr;
  // No mutexes of SQLite's: the store calls from one thread.
  const int code = sqlite3_open_v2(
      database.path_.c_str(), &connection,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE, nullptr);
  database.connection_.reset(connection);
  if (connection == nullptr)
    return unexpected(
        fail(ErrorKind::too_large, "open job database", printable(database.path_)).why("out of memory"));
  if (code != SQLITE_OK) return unexpected(database.error("open job database"));
  sqlite3_busy_timeout(connection, busy_timeout_ms);
  // What is read may have been damaged: SQLite looks twice, and nothing in the file may run anything.
  sqlite3_db_config(connection, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(connection, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  return database;
}

Result<void> Database::execute(const std::string& sql) {
  if (sqlite3_exec(connection_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
    return unexpected(error("use job database"));
  return {};
}

Result<std::int64_t> Database::number(const char* sql) {
  Query query(*this, sql);
  DISKFERRY_TRY(const bool has_row, query.next());
  return has_row ? query.integer(0) : 0;
}

std::uint64_t Database::changes() const noexcept {
  return static_cast<std::uint64_t>(sqlite3_changes64(connection_.get()));
}

bool Database::is_in_transaction() const noexcept {
  return sqlite3_get_autocommit(connection_.get()) == 0;
}

Error Database::error(std::string operation) const {
  const int code = sqlite3_extended_errcode(connection_.get());
  const int error_number = sqlite3_system_errno(connection_.get());
  const ErrorKind kind = kind_of(code, error_number);
  Error error = fail(kind, std::move(operation), printable(path_));
  // The texts of SQLite speak of its own objects; ours are the kinds.
  std::string why = sqlite3_errmsg(connection_.get());
  if (kind == ErrorKind::corrupt) why = "the job database is damaged: " + why;
  error = std::move(error).why(printable(why));
  const bool is_of_the_system = (code & 0xff) == SQLITE_IOERR || (code & 0xff) == SQLITE_CANTOPEN;
  if (is_of_the_system && error_number != 0) error = std::move(error).cause(errno_code(error_number));
  if (const char* remedy = remedy_for(kind); *remedy != 0) error = std::move(error).remedy(remedy);
  return error;
}

Result<sqlite3_stmt*> Database::prepared(const char* sql) {
  if (const auto found = statements_.find(sql); found != statements_.end()) return found->second.get();
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v3(connection_.get(), sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr) !=
      SQLITE_OK)
    return unexpected(error("prepare"));
  statements_[sql].reset(statement);
  return statement;
}

Query::Query(Database& database, const char* sql) : database_(database) {
  auto statement = database.prepared(sql);
  if (statement) {
    statement_ = *statement;
  } else {
    state_ = unexpected(std::move(statement).error());
  }
}

Query::~Query() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

Query& Query::with(std::int64_t value) {
  if (state_ && sqlite3_bind_int64(statement_, ++bound_, value) != SQLITE_OK)
    state_ = unexpected(database_.error("bind"));
  return *this;
}

Query& Query::with(std::string_view text) {
  // An empty view may have no address, and that would be NULL.
  const char* from = text.empty() ? "" : text.data();
  if (state_ &&
      sqlite3_bind_text64(statement_, ++bound_, from, text.size(), SQLITE_STATIC, SQLITE_UTF8) != SQLITE_OK)
    state_ = unexpected(database_.error("bind"));
  return *this;
}

Result<bool> Query::next() {
  if (!state_) return unexpected(std::move(state_).error());
  switch (sqlite3_step(statement_)) {
    case SQLITE_ROW:
      return true;
    case SQLITE_DONE:
      return false;
    default:
      return unexpected(database_.error("use job database"));
  }
}

Result<void> Query::run() {
  DISKFERRY_TRY(bool has_row, next());
  while (has_row) {
    DISKFERRY_TRY(has_row, next());
  }
  return {};
}

std::int64_t Query::integer(int column) const {
  return sqlite3_column_int64(statement_, column);
}

std::string Query::text(int column) const {
  const auto* from = sqlite3_column_text(statement_, column);
  const auto bytes = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
  return from == nullptr ? std::string{} : std::string(reinterpret_cast<const char*>(from), bytes);
}

Result<Transaction> Transaction::begin(Database& database) {
  // With the right to write from the start: a reader that wants to write later could be refused.
  Query begin(database, "BEGIN IMMEDIATE");
  DISKFERRY_CHECK(begin.run());
  return Transaction(database);
}

Transaction::~Transaction() {
  // SQLite has ended it itself after some errors.
  if (database_ != nullptr && database_->is_in_transaction()) (void)database_->execute("ROLLBACK");
}

Result<void> Transaction::commit() {
  Query commit(*database_, "COMMIT");
  return commit.run();
}

}  // namespace diskferry::sqlite
